"""A cache whose features stay in the shards that it was merged from: which, and how they are read.

HDF5 gives zeros where a source of a virtual dataset is missing, and would follow one anywhere. So
a virtual dataset is never read as such here: its sources are opened as the caches that they are.
"""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError, CacheError
from cache.file_seal import declared_seal, file_seal_fits
from cache.layout import Expected, own_dataset

ATTRIBUTE = "sources"
FORMAT_VERSION = "1.2"
"""Of files with sources."""

MAX_SOURCES = 100_000
_DATASET = "features"
_OPEN_AT_ONCE = 16
_REMEDY = "put the shards back where they were, or merge them again"


class Source(NamedTuple):
    """A file that holds some of the features.

    Attributes:
        file: its path relative to the folder of the cache, with `/`, in or below that folder.
        rows: patches in it.
        seal: SHA-256 of its file seal.
    """

    file: str
    rows: int
    seal: str


class SourceCache(Protocol):
    """What is asked of an opened source."""

    sources: tuple[Source, ...]

    @property
    def fingerprint(self) -> str:
        """Of its recipe."""

    @property
    def patches(self) -> int:
        """How many it holds."""

    def features(self, start: int, stop: int) -> NDArray[np.floating]:
        """Rows of the features."""

    def unchecked(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a dataset, right or not."""

    def stored_features(self) -> NDArray[np.floating] | None:
        """All features, at the speed of the disk."""

    def close(self) -> None:
        """Close the file."""


def describe_sources(shards: Sequence[tuple[Path, int]], out: Path) -> list[Source]:
    """The sources of a cache at `out`, from shards and the number of patches in each.

    Raises:
        CacheError: a shard does not lie in or below the folder of `out`.
    """
    return [Source(_relative(path, out), rows, declared_seal(path)) for path, rows in shards]


def _relative(path: Path, out: Path) -> str:
    folder = Path(os.path.abspath(out)).parent  # noqa: PTH100 - links stay links
    try:
        return Path(os.path.abspath(path)).relative_to(folder).as_posix()  # noqa: PTH100
    except ValueError as error:
        raise CacheError(
            f"{path}: not in or below {folder}, from where a cache that copies nothing would have "
            "to find it: choose an output beside or above the shards, or merge with copying"
        ) from error


def read_sources(text: str) -> tuple[Source, ...]:
    """Read the attribute `sources`.

    Raises:
        ValueError: it is not a list of files below the cache's folder, with rows and seals.
    """
    found = json.loads(text)
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_SOURCES:
        raise ValueError("sources are not a list")
    if not all(isinstance(entry, list) and len(entry) == 3 for entry in found):
        raise ValueError("a source is not a file, its rows and its seal")
    sources = tuple(Source(*entry) for entry in found)
    wrong = [source for source in sources if not _is_allowed(source)]
    if wrong:
        raise ValueError(f"source {wrong[0]!r:.200} is not a file below the cache's folder")
    return sources


def _is_allowed(source: Source) -> bool:
    file, rows, seal = source
    if not isinstance(file, str) or type(rows) is not int or not isinstance(seal, str):
        return False
    path = PurePosixPath(file)
    is_below = not path.is_absolute() and str(path) == file and ".." not in path.parts
    plain = file.isprintable() and not set(file) & set("\\:") and path.name != ""
    return is_below and plain and rows >= 0 and len(seal) == 64 and set(seal) <= set(_HEX)


_HEX = "0123456789abcdef"


class JoinedFeatures:
    """The features of all sources, one after another: (P, D), read as a dataset is.

    Args:
        cache: the file that names them.
        fingerprint: of the recipe that all must have.
        dtype: of the features.
        dim: D.
        sources: see `Source`; each is there and has its seal, or opening fails.
        opened: opens a cache.

    Raises:
        CacheDamagedError: a source is missing, or another file.
    """

    def __init__(
        self,
        cache: Path,
        fingerprint: str,
        dtype: np.dtype[Any],
        dim: int,
        sources: Sequence[Source],
        opened: Callable[[Path], SourceCache],
    ) -> None:
        self.dtype = dtype
        self._cache, self._fingerprint = cache, fingerprint
        self._sources, self._opened = sources, opened
        self._ends = list(accumulate((source.rows for source in sources), initial=0))
        self.shape = (self._ends[-1], dim)
        self.nbytes = self._ends[-1] * dim * dtype.itemsize
        self._open: OrderedDict[int, SourceCache] = OrderedDict()
        for source in sources:
            self._check(source)

    def __len__(self) -> int:
        return self.shape[0]

    def path(self, source: Source) -> Path:
        """Where a source is."""
        return self._cache.parent / source.file

    def _check(self, source: Source) -> None:
        path = self.path(source)
        if not path.is_file():
            raise CacheDamagedError(
                f"{self._cache}: features are in {path}, which is missing: {_REMEDY}"
            )
        found = declared_seal(path)
        if found != source.seal:
            raise CacheDamagedError(
                f"{self._cache}: {path} is another file than was merged (seal {found[:12]}…, "
                f"expected {source.seal[:12]}…): {_REMEDY}"
            )

    def _source(self, number: int) -> SourceCache:
        """An opened source; a few stay open."""
        if number not in self._open:
            source = self._sources[number]
            self._check(source)
            cache = self._opened(self.path(source))
            self._open[number] = cache
            same = cache.fingerprint == self._fingerprint and not cache.sources
            if not same or cache.patches != source.rows:
                raise CacheDamagedError(
                    f"{self._cache}: {self.path(source)} is not a shard of it (of "
                    f"{cache.patches} patches, expected {source.rows}): {_REMEDY}"
                )
            if len(self._open) > _OPEN_AT_ONCE:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        return self._joined(start, stop, lambda cache, a, b: cache.features(a, b))

    def unchecked(self, start: int, stop: int) -> NDArray[Any]:
        """Rows as they are in the sources, right or not."""
        return self._joined(start, stop, lambda cache, a, b: cache.unchecked(_DATASET, a, b))

    def _joined(
        self, start: int, stop: int, read: Callable[[SourceCache, int, int], NDArray[Any]]
    ) -> NDArray[Any]:
        stop = min(stop, len(self))
        values = np.empty((max(0, stop - start), self.shape[1]), self.dtype)
        for number, first in enumerate(self._ends[:-1]):
            a, b = max(start, first), min(stop, self._ends[number + 1])
            if a < b:
                values[a - start : b - start] = read(self._source(number), a - first, b - first)
        return values

    def stored(self) -> NDArray[np.floating] | None:
        """All rows, at the speed of the disk; None where they do not lie as expected."""
        values: NDArray[Any] = np.empty(self.shape, self.dtype)
        for number, first in enumerate(self._ends[:-1]):
            found = self._source(number).stored_features()
            if found is None:
                return None
            values[first : self._ends[number + 1]] = found
        return values

    def broken(self) -> list[Path]:
        """The sources whose bytes are not those that were written; reads all of them."""
        paths = map(self.path, self._sources)
        return [path for path in paths if not file_seal_fits(path)]

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            self._open.popitem()[1].close()


def check_virtual(file: h5py.File, expected: Expected, sources: Sequence[Source]) -> None:
    """Check that other readers of HDF5 find the same features; no source is opened.

    Raises:
        CacheDamagedError: the virtual dataset is missing, or made of something else.
    """
    found = own_dataset(file, expected)
    if not found.is_virtual:
        raise CacheDamagedError(f"{file.filename}: dataset {expected.name} is not a virtual one")
    start, wanted = 0, []
    for source in sources:
        if source.rows:
            wanted.append((source.file, _DATASET, start, source.rows))
        start += source.rows
    maps = []
    for one in found.virtual_sources():
        first, last = one.vspace.get_select_bounds()
        maps.append((one.file_name, one.dset_name, first[0], last[0] + 1 - first[0]))
    if maps != wanted:
        raise CacheDamagedError(
            f"{file.filename}: dataset {expected.name} is not made of its sources"
        )


class VirtualFeatures:
    """Takes the place of a growing dataset: rows are counted and digested, and not written."""

    def __init__(
        self, file: h5py.File, dim: int, dtype: np.dtype[Any], sources: Sequence[Source]
    ) -> None:
        self._file, self._dim, self._dtype, self._sources = file, dim, dtype, sources
        self.rows, self.digest = 0, hashlib.sha256()

    def append(self, rows: NDArray[Any]) -> None:
        """Rows (n, D) of the next source."""
        block = np.ascontiguousarray(rows, dtype=self._dtype)
        self.digest.update(block.data if block.size else b"")
        self.rows += len(block)

    def flush(self) -> None:
        """Create the virtual dataset.

        Raises:
            CacheError: the sources have not as many rows as came.
        """
        total = sum(source.rows for source in self._sources)
        if total != self.rows:
            raise CacheError(f"the sources have {total} patches, {self.rows} came")
        layout = h5py.VirtualLayout((total, self._dim), self._dtype)
        start = 0
        for source in self._sources:
            shape = (source.rows, self._dim)
            if source.rows:
                part = h5py.VirtualSource(source.file, _DATASET, shape, dtype=self._dtype)
                layout[start : start + source.rows] = part
            start += source.rows
        self._file.create_virtual_dataset(_DATASET, layout)

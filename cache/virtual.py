"""Features that lie in other files: written as a virtual dataset, read from those files.

HDF5 gives zeros for the rows of a source that is missing, and looks for it in several folders. So
it is never asked to read a virtual dataset: its description is compared with the sources that the
cache declares, and these are opened one by one.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5s
from numpy.typing import NDArray

from cache.bulk import read_chunks, read_into
from cache.errors import CacheDamagedError, CacheError
from cache.layout import Expected, find_dataset, own_object, reading
from cache.opening import SealCheck, open_file
from cache.sources import Source, check_sources

FEATURES = "features"
_MAX_OPEN = 16
"""Sources that are open at once, each with a buffer of about a megabyte."""


class VirtualRows:
    """Takes rows as `GrowingDataset` does, but keeps only their digest: they are in the sources."""

    def __init__(
        self, file: h5py.File, sources: Sequence[Source], dim: int, dtype: np.dtype[np.generic]
    ) -> None:
        self._file, self._sources, self._dim, self._dtype = file, sources, dim, dtype
        self.rows = 0
        self.digest = hashlib.sha256()

    def append(self, rows: NDArray[np.generic]) -> None:
        """Note rows (n, D), those that come next in the sources."""
        self.digest.update(np.ascontiguousarray(rows, self._dtype).data)
        self.rows += len(rows)

    def flush(self) -> None:
        """Create the dataset.

        Raises:
            CacheError: the sources hold another number of rows.
        """
        held = sum(source.rows for source in self._sources)
        if self.rows != held:
            raise CacheError(f"{self.rows} rows of features were given, the sources hold {held}")
        layout = h5py.VirtualLayout((held, self._dim), self._dtype)
        for source, start in _starts(self._sources):
            rows = h5py.VirtualSource(source.name, FEATURES, (source.rows, self._dim), self._dtype)
            layout[start : start + source.rows] = rows
        self._file.create_virtual_dataset(FEATURES, layout)


def _starts(sources: Sequence[Source]) -> Iterator[tuple[Source, int]]:
    start = 0
    for source in sources:
        yield source, start
        start += source.rows


class VirtualFeatures:
    """The features of a virtual cache, read from its sources; they are opened when they are needed.

    Args:
        path: the virtual cache.
        sources: that it declares.
        dim: length D of a row.
        dtype: type of the features.
        seal: `absent` reads sources whatever their seal is, and else only those that were merged.

    Attributes:
        shape: (P, D).
        nbytes: of all features.
    """

    def __init__(
        self,
        path: Path,
        sources: Sequence[Source],
        dim: int,
        dtype: np.dtype[np.generic],
        seal: SealCheck,
    ) -> None:
        self._path, self._sources = path.absolute(), sources
        self._dim, self.dtype, self._seal = dim, dtype, seal
        self._open: dict[int, h5py.File] = {}
        self.shape = (sum(source.rows for source in sources), dim)
        self.nbytes = self.shape[0] * dim * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        return self._gather(start, stop, lambda dataset, first, last: dataset[first:last])

    def unchecked(self, start: int, stop: int) -> NDArray[Any]:
        """Rows as they are in the sources, whether the checksums of HDF5 fit or not."""
        return self._gather(start, stop, read_chunks)

    def read_unchecked(self) -> NDArray[Any] | None:
        """All rows, as `cache.bulk.read_unchecked` reads them."""
        values: NDArray[Any] = np.empty(self.shape, self.dtype)
        for number, (source, start) in enumerate(_starts(self._sources)):
            block = values[start : start + source.rows]
            with reading(self._file(number)):
                if not read_into(self._file(number), self._dataset(number), block):
                    return None
        return values

    def _gather(
        self, start: int, stop: int, read: Callable[[h5py.Dataset, int, int], NDArray[Any]]
    ) -> NDArray[Any]:
        spans = list(self._spans(start, stop))
        for number, _, _ in spans:  # what a forged file claims is checked before memory is given
            self._dataset(number)
        values: NDArray[Any] = np.empty((max(0, stop - start), self._dim), self.dtype)
        done = 0
        for number, first, last in spans:
            with reading(self._file(number), FEATURES):
                values[done : done + last - first] = read(self._dataset(number), first, last)
            done += last - first
        return values

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Number of each source that holds some of the rows, and which of its own these are."""
        for number, (source, at) in enumerate(_starts(self._sources)):
            first, last = max(start - at, 0), min(stop - at, source.rows)
            if first < last:
                yield number, first, last

    def _file(self, number: int) -> Path:
        return self._path.parent / self._sources[number].name

    def _dataset(self, number: int) -> h5py.Dataset:
        source = self._sources[number]
        if number not in self._open:
            if len(self._open) == _MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[number] = self._opened(number)
        expected = Expected(FEATURES, self.dtype, (source.rows, self._dim))
        with reading(self._file(number)):
            return find_dataset(self._open[number], expected)

    def _opened(self, number: int) -> h5py.File:
        if self._seal != "absent":
            check_sources(self._path, [self._sources[number]])
        try:
            return open_file(self._file(number), "absent")
        except CacheError as error:
            raise CacheDamagedError(f"{self._path}: a shard cannot be read: {error}") from error

    def close(self) -> None:
        """Close the sources."""
        while self._open:
            self._open.popitem()[1].close()


def check_mapping(
    file: h5py.File, sources: Sequence[Source], dim: int, dtype: np.dtype[np.generic]
) -> None:
    """Check that `features` are all rows (n, D) of the sources, in order, without opening one.

    Raises:
        CacheDamagedError: they are not.
    """
    found = own_object(file, FEATURES)
    if not isinstance(found, h5py.Dataset) or not _maps(found, sources, dim):
        raise CacheDamagedError(
            f"{file.filename}: dataset {FEATURES} is not the rows of the {len(sources)} sources "
            "that the file declares: merge again"
        )
    shape = (sum(source.rows for source in sources), dim)  # HDF5 may be asked for it now
    if (found.shape, found.dtype) != (shape, dtype):
        raise CacheDamagedError(
            f"{file.filename}: dataset {FEATURES} is {found.dtype} {found.shape}, expected "
            f"{dtype} {shape}"
        )


def _maps(dataset: h5py.Dataset, sources: Sequence[Source], dim: int) -> bool:
    plan = dataset.id.get_create_plist()
    if not dataset.is_virtual or plan.get_virtual_count() != len(sources):
        return False
    return all(
        plan.get_virtual_filename(number) == source.name
        and plan.get_virtual_dsetname(number) == FEATURES
        and plan.get_virtual_srcspace(number).get_select_type() == h5s.SEL_ALL
        and _is_rows(plan.get_virtual_vspace(number), start, source.rows, dim)
        for number, (source, start) in enumerate(_starts(sources))
    )


def _is_rows(space: h5s.SpaceID, start: int, rows: int, dim: int) -> bool:
    try:
        points, bounds = space.get_select_npoints(), space.get_select_bounds()
    except (RuntimeError, ValueError):  # without end: HDF5 would open the sources to know the shape
        return False
    return (points, bounds) == (rows * dim, ((start, 0), (start + rows - 1, dim - 1)))

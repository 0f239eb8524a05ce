"""How a cache lies in HDF5: creating datasets and attributes, sealing, and reading them back."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.schema import canonical_json

LIBVER = "v110"
"""HDF5 1.10 and newer read the files; this generation checksums its metadata."""

SEAL = "complete"
CHUNK_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 64 * 1024 * 1024
"""Readers hold a chunk in memory, whatever they ask of it."""

COORD_DTYPE = np.dtype("<i4")
OFFSET_DTYPE = np.dtype("<i8")
DIGEST_LENGTH = 64
MAX_ATTRIBUTES = 256


def chunk_rows(row_bytes: int) -> int:
    """Rows of a dataset that fill one chunk."""
    return max(1, CHUNK_BYTES // row_bytes)


class GrowingDataset:
    """A checksummed dataset that rows are appended to, and the SHA-256 of those rows."""

    def __init__(
        self, group: h5py.Group, name: str, row_shape: tuple[int, ...], dtype: np.dtype[np.generic]
    ) -> None:
        self._group, self._name = group, name
        self._row_shape, self._dtype = row_shape, dtype
        self._chunk = chunk_rows(dtype.itemsize * int(np.prod(row_shape, dtype=np.int64)))
        self._waiting: list[NDArray[np.generic]] = []
        self._waiting_rows = 0
        self._dataset: h5py.Dataset | None = None
        self.rows = 0
        self.digest = hashlib.sha256()

    def append(self, rows: NDArray[np.generic]) -> None:
        """Add rows (n, ...) of the dataset's type; they reach the file a few chunks at a time."""
        block = np.ascontiguousarray(rows, dtype=self._dtype)
        self.digest.update(block.data if block.size else b"")
        self._waiting.append(block)
        self._waiting_rows += len(block)
        self.rows += len(block)
        if self._waiting_rows >= 4 * self._chunk:
            self.flush()

    def flush(self) -> None:
        """Write what waits, and create the dataset even if it has no row."""
        empty = np.empty((0, *self._row_shape), self._dtype)
        block = np.concatenate([empty, *self._waiting])
        if self._dataset is None:
            self._dataset = create_dataset(
                self._group, self._name, block, min(self._chunk, max(1, len(block)))
            )
        else:
            self._dataset.resize(self.rows, axis=0)
            if block.dtype.kind == "S":  # HDF5 tells UTF-8 from bytes, NumPy does not
                block = block.astype(self._dataset.dtype)
            self._dataset[self.rows - len(block) :] = block
        self._waiting, self._waiting_rows = [], 0


def create_dataset(
    group: h5py.Group, name: str, values: NDArray[np.generic], chunk: int | None = None
) -> h5py.Dataset:
    """Create a checksummed dataset, growing along its first axis, of text if `values` is bytes."""
    row_bytes = values.dtype.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))
    rows = chunk or min(chunk_rows(row_bytes), max(1, len(values)))
    if values.dtype.kind == "S":
        values = values.astype(h5py.string_dtype("utf-8", values.dtype.itemsize))
    return group.create_dataset(
        name,
        data=values,
        maxshape=(None, *values.shape[1:]),
        chunks=(rows, *values.shape[1:]),
        fletcher32=True,
    )


def write_attributes(file: h5py.File, attributes: dict[str, str]) -> None:
    """Write the root attributes, the seal over them last.

    They are of fixed length: HDF5 keeps text of variable length where it has no checksum, and
    damage there makes it search without end.
    """
    for name, text in {**attributes, SEAL: attributes_seal(attributes)}.items():
        data = text.encode()
        file.attrs.create(
            name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(1, len(data)))
        )


def read_attributes(file: h5py.File) -> dict[str, str]:
    """Read the root attributes.

    Raises:
        CacheDamagedError: one is not text of fixed length, or there are absurdly many.
    """
    size = Path(file.filename).stat().st_size
    if len(file.attrs) > MAX_ATTRIBUTES:
        raise CacheDamagedError(f"{file.filename}: {len(file.attrs)} attributes, expected about 13")
    attributes = {}
    for name in file.attrs:
        found = file.attrs.get_id(name)  # its type and shape, before memory is given to a value
        text = h5py.check_string_dtype(found.dtype)
        if found.shape != () or text is None or not text.length or text.length > size:
            raise CacheDamagedError(
                f"{file.filename}: attribute {name} is not text of fixed length"
            )
        attributes[name] = file.attrs[name].decode()
    return attributes


def attributes_seal(attributes: dict[str, str]) -> str:
    """SHA-256 of the canonical JSON of the root attributes other than the seal itself."""
    sealed = {name: text for name, text in attributes.items() if name != SEAL}
    return hashlib.sha256(canonical_json(sealed).encode()).hexdigest()


def sequence_digest(features: NDArray[np.floating], coords: NDArray[np.integer]) -> bytes:
    """SHA-256, in hexadecimal, of one image's rows of features and then of coordinates."""
    digest = hashlib.sha256(features.data)
    digest.update(coords.data)
    return digest.hexdigest().encode()


@dataclass(frozen=True)
class Expected:
    """What a dataset of the format is.

    Attributes:
        name: its path in the file.
        dtype: its type; None is text of fixed length.
        shape: its lengths; None accepts any.
    """

    name: str
    dtype: np.dtype[np.generic] | None
    shape: tuple[int | None, ...]


def find_dataset(file: h5py.File, expected: Expected) -> h5py.Dataset:
    """Find a dataset that is as the format says, without following a link out of the file.

    Raises:
        CacheDamagedError: it is not there, or is something else.
    """
    found = own_object(file, expected.name)
    problem = _problem(found, expected)
    if problem:
        raise CacheDamagedError(f"{file.filename}: dataset {expected.name} {problem}")
    return found


def own_object(file: h5py.File, name: str) -> h5py.Dataset | h5py.Group | None:
    """What the file itself holds under a name, without following a link out of it; else None."""
    group = file
    for part in name.split("/"):
        if not isinstance(group, h5py.Group):
            return None
        # Links by name may lead to another file, which would then be opened.
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            return None
        group = group[part]
    return group


def _problem(found: h5py.Dataset | h5py.Group | None, expected: Expected) -> str:
    if not isinstance(found, h5py.Dataset):
        return "is missing"
    if found.is_virtual:  # first of all: HDF5 may open other files to know the shape of one
        return "is not stored in chunks of this file"
    if not _fits(found, expected):
        shape = ", ".join("any" if n is None else str(n) for n in expected.shape)
        wanted = "text of fixed length" if expected.dtype is None else str(expected.dtype)
        return f"is {found.dtype} {found.shape}, expected {wanted} ({shape})"
    creation = found.id.get_create_plist()
    if found.chunks is None or creation.get_external_count():
        return "is not stored in chunks of this file"
    if creation.get_nfilters() != 1 or not found.fletcher32:
        return "must have the fletcher32 checksum as its only filter"
    if math.prod(found.chunks) * found.dtype.itemsize > MAX_CHUNK_BYTES:
        return f"has chunks of {found.chunks}, expected at most {MAX_CHUNK_BYTES:,} bytes"
    # Nothing is compressed, so a shape that the file cannot hold is a lie: no memory is given it.
    size = Path(found.file.filename).stat().st_size
    return f"claims {found.nbytes:,} bytes in a file of {size:,}" if found.nbytes > size else ""


def _fits(found: h5py.Dataset, expected: Expected) -> bool:
    if found.shape is None or len(found.shape) != len(expected.shape):
        return False
    if any(want not in (None, n) for want, n in zip(expected.shape, found.shape, strict=True)):
        return False
    if expected.dtype is None:
        text = h5py.check_string_dtype(found.dtype)
        return text is not None and text.length is not None
    return bool(found.dtype == expected.dtype)


@contextmanager
def reading(path: Path, what: str = "its attributes") -> Iterator[None]:
    """Turn what HDF5 raises on a damaged file into `CacheDamagedError`."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError) as error:
        raise CacheDamagedError(
            f"{path}: {what} cannot be read ({error}): mend the file with `pipeline cache repair`, "
            "copy it again, or extract again"
        ) from error

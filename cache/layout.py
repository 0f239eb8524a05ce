"""How a cache lies in HDF5: creating datasets and attributes, sealing, and reading them back."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
COORD_DTYPE = np.dtype("<i4")
OFFSET_DTYPE = np.dtype("<i8")


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
    """Write the root attributes, the seal over them last."""
    for name, text in {**attributes, SEAL: seal(attributes)}.items():
        file.attrs[name] = text


def read_attributes(file: h5py.File) -> dict[str, str]:
    """Read the root attributes.

    Raises:
        CacheDamagedError: one is not text.
    """
    attributes = {}
    for name, value in file.attrs.items():
        if not isinstance(value, str):
            raise CacheDamagedError(f"{file.filename}: attribute {name} is not text")
        attributes[name] = value
    return attributes


def seal(attributes: dict[str, str]) -> str:
    """SHA-256 of the canonical JSON of the root attributes other than the seal itself."""
    sealed = {name: text for name, text in attributes.items() if name != SEAL}
    return hashlib.sha256(canonical_json(sealed).encode()).hexdigest()


def get_dataset(
    file: h5py.File, name: str, kind: str, shape: Sequence[int | None], itemsize: int | None = None
) -> h5py.Dataset:
    """Get a dataset that has the type and shape expected of it.

    Args:
        file: the open cache.
        name: the dataset.
        kind: NumPy's letter for the kind of type: `f`, `i`, `S`.
        shape: expected lengths; None accepts any.
        itemsize: bytes of one value; None accepts any.

    Raises:
        CacheDamagedError: it is not there, or is something else.
    """
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise CacheDamagedError(f"{file.filename}: dataset {name} is missing")
    fits = len(found.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found.shape, strict=True)
    )
    dtype = found.dtype
    if not fits or dtype.kind != kind or itemsize not in (None, dtype.itemsize):
        wanted = f"{kind}{itemsize or ''} {tuple('any' if n is None else n for n in shape)}"
        raise CacheDamagedError(
            f"{file.filename}: {name} is {dtype} {found.shape}, expected {wanted}"
        )
    return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what HDF5 raises on a damaged file into `CacheDamagedError`."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError) as error:
        raise CacheDamagedError(
            f"{path}: cannot be read ({error}): copy it again, or extract again"
        ) from error

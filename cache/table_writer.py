"""Write the image table: held until the end, or as it comes where the widths are known."""

import hashlib
from array import array
from collections.abc import Iterator

import h5py
import numpy as np

from cache.errors import CacheError
from cache.layout import GrowingDataset, create_dataset
from cache.schema import TEXT_COLUMNS, ImageRow
from cache.table import NUMBER_DTYPE, ImageTable, Widths, encode_text, table_sha256

GROUP = "images"
BLOCK_ROWS = 16384
"""Rows of the table that are in memory at once."""


def _error(image_id: str) -> CacheError:
    return CacheError(f"image {image_id} was already written: ids must be unique")


class HeldTable:
    """Keeps the rows, as the longest text of a column is known only at the end."""

    def __init__(self) -> None:
        self._rows: list[ImageRow] = []
        self._ids: set[str] = set()

    def take_id(self, image_id: str) -> None:
        """Note an id.

        Raises:
            CacheError: it was taken before.
        """
        if image_id in self._ids:
            raise _error(image_id)
        self._ids.add(image_id)

    def append(self, row: ImageRow) -> None:
        """Add a row."""
        self._rows.append(row)

    def finish(self, file: h5py.File) -> str:
        """Write the table; its SHA-256."""
        table = ImageTable.from_rows(self._rows)
        group = file.create_group(GROUP)
        for name in ImageRow._fields:
            column = table[name]
            is_text = name in TEXT_COLUMNS
            create_dataset(group, name, encode_text(column.tolist()) if is_text else column)
        return table.sha256()


class StreamedTable:
    """Writes each row at once; keeps 8 bytes an image, to tell ids that are there twice."""

    def __init__(self, file: h5py.File, widths: Widths) -> None:
        group = file.create_group(GROUP)
        types = {
            name: np.dtype(f"S{widths[name]}") if name in TEXT_COLUMNS else NUMBER_DTYPE
            for name in ImageRow._fields
        }
        self._columns = {
            name: GrowingDataset(group, name, (), dtype) for name, dtype in types.items()
        }
        self._types = types
        self._ids = array("Q")
        self._waiting: list[ImageRow] = []

    def take_id(self, image_id: str) -> None:
        """Note an id; one that was taken before is told at the end."""
        self._ids.append(id_hash(image_id))

    def append(self, row: ImageRow) -> None:
        """Add a row."""
        self._waiting.append(row)
        if len(self._waiting) == BLOCK_ROWS:
            self._write()

    def _write(self) -> None:
        for name, dataset in self._columns.items():
            values = [getattr(row, name) for row in self._waiting]
            if name in TEXT_COLUMNS:
                values = [text.encode() for text in values]
            dataset.append(np.array(values, self._types[name]))
        self._waiting = []

    def finish(self, file: h5py.File) -> str:
        """Write what waits; the SHA-256 of the table.

        Raises:
            CacheError: two images have the same id.
        """
        self._write()
        for dataset in self._columns.values():
            dataset.flush()
        if has_twice(self._ids):
            raise CacheError("two images have the same id: ids must be unique in all shards")
        return table_sha256(lambda name: stored_blocks(file[GROUP][name]))


def id_hash(image_id: str) -> int:
    """64 bits of an id; a million ids have two alike once in 37 million tables."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "little")


def has_twice(hashes: "array[int]") -> bool:
    """Whether a number is there more than once."""
    values = np.sort(np.frombuffer(hashes, np.uint64))
    return bool((values[1:] == values[:-1]).any())


def stored_blocks(column: h5py.Dataset) -> Iterator[list[object]]:
    """The values of a column in a file, some at a time."""
    for start in range(0, len(column), BLOCK_ROWS):
        values = column[start : start + BLOCK_ROWS].tolist()
        yield [value.decode() if isinstance(value, bytes) else value for value in values]

"""The image table: its columns as arrays, their HDF5 form and their digest."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError, UnknownImageError
from cache.schema import NUMBER_COLUMNS, ImageRow

NUMBER_DTYPE = np.dtype("<i4")

Widths = Mapping[str, int]
"""Bytes of the longest text of each text column, at least 1."""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of a cache, a column at a time.

    Attributes:
        columns: column name → (N,) array, text as Python strings in an object array, numbers as
            int32, in the order of `ImageRow`.
    """

    columns: Mapping[str, NDArray[np.object_] | NDArray[np.int32]]

    def __len__(self) -> int:
        return len(self.columns["image_id"])

    def __getitem__(self, column: str) -> NDArray[np.object_] | NDArray[np.int32]:
        """One column, (N,)."""
        return self.columns[column]

    def rows(self) -> list[ImageRow]:
        """The images as rows, in cache order."""
        lists = (self.columns[name].tolist() for name in ImageRow._fields)
        return [ImageRow(*values) for values in zip(*lists, strict=True)]

    def index(self, image_id: str) -> int:
        """Position of an image.

        Raises:
            UnknownImageError: there is no image of that id.
        """
        try:
            return self._positions[image_id]
        except KeyError:
            raise UnknownImageError(f"no image {image_id!r} among {len(self)}") from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {image_id: i for i, image_id in enumerate(self.columns["image_id"])}

    @classmethod
    def from_rows(cls, rows: Iterable[ImageRow]) -> "ImageTable":
        """Turn rows into columns."""
        by_column = list(zip(*rows, strict=True)) or [()] * len(ImageRow._fields)
        return cls(
            {
                name: np.array(values, dtype=NUMBER_DTYPE if name in NUMBER_COLUMNS else object)
                for name, values in zip(ImageRow._fields, by_column, strict=True)
            }
        )

    def sha256(self) -> str:
        """The `manifest_sha256` of FORMAT.md: every column's name and values, a line each."""
        return table_sha256(lambda name: [self.columns[name].tolist()])


def table_sha256(blocks: Callable[[str], Iterable[Iterable[object]]]) -> str:
    """The `manifest_sha256` of FORMAT.md, of a table that is given block by block.

    Args:
        blocks: gives the values of a column, some at a time.
    """
    digest = hashlib.sha256()
    for name in ImageRow._fields:
        digest.update(f"{name}\n".encode())
        for values in blocks(name):
            digest.update("".join(f"{value}\n" for value in values).encode())
    return digest.hexdigest()


def encode_text(values: Sequence[str]) -> NDArray[np.bytes_]:
    """Text as a fixed-width UTF-8 column, as wide as its longest value and at least 1 byte."""
    encoded = [value.encode() for value in values]
    width = max(map(len, encoded), default=0)
    return np.array(encoded, dtype=f"S{max(width, 1)}")


def decode_text(values: NDArray[np.bytes_], where: str) -> NDArray[np.object_]:
    """The reverse of `encode_text`.

    Raises:
        CacheDamagedError: a value is not UTF-8.
    """
    try:
        return np.array([value.decode() for value in values.tolist()], dtype=object)
    except UnicodeDecodeError as error:
        raise CacheDamagedError(f"{where}: text is not UTF-8 ({error})") from error

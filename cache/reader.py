"""Open a cache, check it, and give the sequences of its images."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import (
    CacheDamagedError,
    CacheFormatError,
    CacheIncompleteError,
    RecipeError,
    UnknownImageError,
)
from cache.layout import SEAL, get_dataset, read_attributes, reading, seal
from cache.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    TEXT_COLUMNS,
    Failure,
    ImageRow,
    Recipe,
    ShardPlace,
)
from cache.table import ImageTable, decode_text

_MAJOR = FORMAT_VERSION.split(".", maxsplit=1)[0]
_ATTRIBUTES = (
    "recipe",
    "fingerprint",
    "manifest_sha256",
    "features_sha256",
    "index_sha256",
    "provenance",
    "failures",
)


class FeatureCache:
    """A feature cache, open for reading.

    Opening checks the format, that the file was finished, the recipe's fingerprint and the
    shapes; `cache.verify` checks every value.

    Example:
        >>> with FeatureCache("features.h5") as cache:      # doctest: +SKIP
        ...     features = cache.sequence("SOB_B_TA-14-4659-40-001")  # (6, 512)

    Attributes:
        path: the file.
        recipe: how the features were made.
        provenance: where and when.
        offsets: (N + 1,) int64; image i owns rows `offsets[i]:offsets[i + 1]`.
        failures: images that were asked for and have no features.
        shard: the file's place in a larger cache, if it is a shard.

    Raises:
        CacheFormatError: the file is not a cache, or of a version that is not read here.
        CacheIncompleteError: it was never finished.
        CacheDamagedError: what it declares does not fit together.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            with reading(self.path):
                self.attributes = _checked_attributes(self.path, self._file)
                self._read_header()
                self._find_datasets()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        self.recipe = _read_recipe(self.path, self.attributes)
        self.provenance: dict[str, str] = json.loads(self.attributes["provenance"])
        self.failures = [Failure(*entry) for entry in json.loads(self.attributes["failures"])]
        place = self.attributes.get("shard")
        self.shard = ShardPlace(**json.loads(place)) if place else None

    def _find_datasets(self) -> None:
        offsets = get_dataset(self._file, "offsets", "i", (None,), 8)
        if len(offsets) == 0:
            raise CacheDamagedError(f"{self.path}: offsets is empty, expected at least one")
        self._count = len(offsets) - 1
        itemsize = np.dtype(self.recipe.dtype).itemsize
        self._features = get_dataset(
            self._file, "features", "f", (None, self.recipe.feature_dim), itemsize
        )
        self._coords = get_dataset(self._file, "coords", "i", (len(self._features), 2), 4)
        for name in ImageRow._fields:
            kind, size = ("S", None) if name in TEXT_COLUMNS else ("i", 4)
            get_dataset(self._file, f"images/{name}", kind, (self._count,), size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read stays valid."""
        self._file.close()

    def __len__(self) -> int:
        """The number of images N."""
        return self._count

    @property
    def patches(self) -> int:
        """The number of patches P of all images."""
        return len(self._features)

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.attributes["fingerprint"]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(N + 1,) row at which each image begins, and P."""
        with reading(self.path):
            offsets: NDArray[np.int64] = self._file["offsets"][:]
        if offsets[0] != 0 or offsets[-1] != self.patches or (np.diff(offsets) < 1).any():
            raise CacheDamagedError(
                f"{self.path}: offsets must rise from 0 to {self.patches}, the number of patches"
            )
        return offsets

    @cached_property
    def images(self) -> ImageTable:
        """The image table."""
        columns = {}
        with reading(self.path):
            for name in ImageRow._fields:
                where = f"{self.path}: images/{name}"
                values = self._file["images"][name][:]
                columns[name] = decode_text(values, where) if name in TEXT_COLUMNS else values
        return ImageTable(columns)

    def sequence(self, image: int | str) -> NDArray[np.floating]:
        """The features of one image.

        Args:
            image: its position or its id.

        Returns:
            (n, D) float16 or float32, in scan order.

        Raises:
            UnknownImageError: there is no such image.
        """
        with reading(self.path):
            rows: NDArray[np.floating] = self._features[self._span(image)]
        return rows

    def coords(self, image: int | str) -> NDArray[np.int32]:
        """The x and y of each patch's top-left pixel of one image, (n, 2)."""
        with reading(self.path):
            rows: NDArray[np.int32] = self._coords[self._span(image)]
        return rows

    def _span(self, image: int | str) -> slice:
        position = self.images.index(image) if isinstance(image, str) else image
        if not 0 <= position < self._count:
            raise UnknownImageError(f"{self.path}: no image {position}, it holds {self._count}")
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def features(self, start: int = 0, stop: int | None = None) -> NDArray[np.floating]:
        """Rows `start` to `stop` of the features of all images, (P, D) if neither is given."""
        with reading(self.path):
            rows: NDArray[np.floating] = self._features[start:stop]
        return rows

    def load(self) -> NDArray[np.floating]:
        """All features (P, D), read once, after everything was checked against its digest.

        Raises:
            CacheDamagedError: features, coordinates, offsets or images are not what was written.
        """
        features = self.features()
        self._expect("features_sha256", hashlib.sha256(features.data).hexdigest())
        index = hashlib.sha256(self.all_coords().tobytes() + self.offsets.tobytes())
        self._expect("index_sha256", index.hexdigest())
        self._expect("manifest_sha256", self.images.sha256())
        return features

    def _expect(self, attribute: str, found: str) -> None:
        if self.attributes[attribute] != found:
            raise CacheDamagedError(
                f"{self.path}: {attribute} does not agree with the content: extract again"
            )

    def all_coords(self) -> NDArray[np.int32]:
        """The coordinates of all patches, (P, 2)."""
        with reading(self.path):
            rows: NDArray[np.int32] = self._coords[:]
        return rows


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise CacheFormatError(f"{path}: no such file: make it with `pipeline extract`")
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        with path.open("rb") as file:
            is_hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
        if is_hdf5:
            raise CacheDamagedError(f"{path}: damaged or cut short: extract again") from error
        raise CacheFormatError(f"{path}: not an HDF5 file, expected a feature cache") from error


def _checked_attributes(path: Path, file: h5py.File) -> dict[str, str]:
    if file.attrs.get("format") is None:
        raise CacheFormatError(f"{path}: HDF5, but not a feature cache (no attribute `format`)")
    attributes = read_attributes(file)
    if attributes["format"] != FORMAT_NAME:
        raise CacheFormatError(
            f"{path}: format is {attributes['format']!r}, expected {FORMAT_NAME!r}"
        )
    version = attributes.get("format_version", "none")
    if version.split(".", maxsplit=1)[0] != _MAJOR:
        raise CacheFormatError(
            f"{path}: format version {version}, this software reads {_MAJOR}.x: "
            "extract again, or use the version that wrote it"
        )
    if SEAL not in attributes:
        raise CacheIncompleteError(f"{path}: was never finished: extract again")
    if attributes[SEAL] != seal(attributes):
        raise CacheDamagedError(f"{path}: its attributes were changed after it was finished")
    missing = [name for name in _ATTRIBUTES if name not in attributes]
    if missing:
        raise CacheDamagedError(f"{path}: attributes missing: {', '.join(missing)}")
    return attributes


def _read_recipe(path: Path, attributes: dict[str, str]) -> Recipe:
    try:
        recipe = Recipe.from_json(attributes["recipe"])
    except RecipeError as error:
        raise CacheDamagedError(f"{path}: {error}") from error
    if recipe.fingerprint != attributes["fingerprint"]:
        raise CacheDamagedError(
            f"{path}: fingerprint {attributes['fingerprint'][:12]}… is not that of its recipe, "
            f"{recipe.fingerprint[:12]}…"
        )
    return recipe

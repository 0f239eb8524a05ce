"""Open a cache, check it, and give the sequences of its images."""

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.bulk import digests_fit, read_chunks, read_unchecked
from cache.errors import (
    CacheDamagedError,
    CacheError,
    CacheFormatError,
    CacheIncompleteError,
    RecipeError,
    UnknownImageError,
)
from cache.file_seal import SEAL_BROKEN, file_seal_fits
from cache.layout import (
    COORD_DTYPE,
    OFFSET_DTYPE,
    SEAL,
    Expected,
    attributes_seal,
    find_dataset,
    read_attributes,
    reading,
)
from cache.opening import SealCheck, open_file
from cache.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    TEXT_COLUMNS,
    ImageRow,
    Recipe,
    read_failures,
    read_place,
    read_provenance,
)
from cache.sources import ATTRIBUTE as SOURCES
from cache.sources import check_contents, check_sources, read_sources
from cache.statistics import (
    ATTRIBUTE,
    COLOUR_DTYPE,
    COLOUR_NAMES,
    GROUP,
    HASH_BYTES,
    HASH_DTYPE,
    Statistics,
)
from cache.table import NUMBER_DTYPE, ImageTable, decode_text
from cache.virtual import VirtualFeatures, check_mapping

_MAJOR = FORMAT_VERSION.split(".", maxsplit=1)[0]
_ATTRIBUTES = (
    "recipe",
    "fingerprint",
    "manifest_sha256",
    "features_sha256",
    "index_sha256",
    "digests_sha256",
    "provenance",
    "failures",
)


class FeatureCache:
    """A feature cache, open for reading.

    Opening checks the format, that the file was finished, the recipe's fingerprint and the
    shapes, in a time that does not depend on the number of images; `load` checks what it gives,
    and `cache.verify` everything. Of a virtual cache, all but the features is read.

    Args:
        path: the file.
        seal: `present` expects the file seal; `whole` reads all of the file first and compares
            it with the seal; `absent` takes files without one, or a damaged one, to see what can
            be saved. All of this goes for the shards of a virtual cache, too: each must be the
            one that was merged, except with `absent`.

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
        sources: the shards that hold the features of a virtual cache; none if the file does.

    Raises:
        CacheFormatError: the file is not a cache, or of a version that is not read here.
        CacheIncompleteError: it was never finished.
        CacheDamagedError: what it declares does not fit together, or a shard that holds its
            features is missing or another one.
    """

    def __init__(self, path: Path | str, *, seal: SealCheck = "present") -> None:
        self.path = Path(path)
        self._file = open_file(self.path, seal)
        try:
            with reading(self.path):
                self.attributes = _checked_attributes(self.path, self._file)
                self._read_header()
                self._check_own_bytes(seal)
                self._find_datasets(seal)
            if seal != "absent":
                check_sources(self.path, self.sources)
            if seal == "whole":
                check_contents(self.path, self.sources)
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        self.recipe = _read_recipe(self.path, self.attributes)
        self.provenance = read_provenance(self.attributes["provenance"])
        self.failures = read_failures(self.attributes["failures"])
        place = self.attributes.get("shard")
        self.shard = None if place is None else read_place(place)
        sources = self.attributes.get(SOURCES)
        self.sources = [] if sources is None else read_sources(sources)
        if self.sources and self.shard is not None:
            raise CacheDamagedError(f"{self.path}: is a shard, but declares sources as a whole")

    def _check_own_bytes(self, seal: SealCheck) -> None:
        """Read all of a virtual cache, which is small, before HDF5 looks at its features.

        Their description has no checksum, and damage there makes HDF5 search without end.
        """
        if self.sources and seal != "whole" and not file_seal_fits(self.path):
            raise CacheDamagedError(
                f"{self.path}: {SEAL_BROKEN}: merge again with `pipeline cache merge --virtual`, "
                "as its features lie in its shards"
            )

    def _find_features(self, seal: SealCheck) -> h5py.Dataset | VirtualFeatures:
        dtype, dim = np.dtype(self.recipe.dtype).newbyteorder("<"), self.recipe.feature_dim
        if not self.sources:
            return find_dataset(self._file, Expected("features", dtype, (None, dim)))
        check_mapping(self._file, self.sources, dim, dtype)
        return VirtualFeatures(self.path, self.sources, dim, dtype, seal)

    def _find_datasets(self, seal: SealCheck) -> None:
        problems: list[str] = []
        self._datasets: dict[str, h5py.Dataset | VirtualFeatures] = {}

        def take(name: str, find: Callable[[], h5py.Dataset | VirtualFeatures]) -> int | None:
            try:
                self._datasets[name] = find()
            except CacheDamagedError as error:
                problems.append(str(error))
                return None
            return len(self._datasets[name])

        def find(name: str, dtype: np.dtype[np.generic] | None, *shape: int | None) -> int | None:
            return take(name, lambda: find_dataset(self._file, Expected(name, dtype, shape)))

        patches = take("features", lambda: self._find_features(seal))
        find("coords", COORD_DTYPE, patches, 2)
        ends = find("offsets", OFFSET_DTYPE, None)
        images = None if ends is None else ends - 1
        find("digests", None, images)
        for name in ImageRow._fields:
            find(f"images/{name}", None if name in TEXT_COLUMNS else NUMBER_DTYPE, images)
        if self.has_statistics:
            find(f"{GROUP}/colour", COLOUR_DTYPE, images, len(COLOUR_NAMES))
            find(f"{GROUP}/perceptual_hash", HASH_DTYPE, images, HASH_BYTES)
            find(f"{GROUP}/pixels_sha256", None, images)
            find(f"{GROUP}/digests", None, images)
        if images == -1:
            problems.append(f"{self.path}: offsets is empty, expected at least one")
        if problems:
            raise CacheDamagedError("; ".join(problems))

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
        features = self._datasets["features"]
        if isinstance(features, VirtualFeatures):
            features.close()
        self._file.close()

    def __len__(self) -> int:
        """The number of images N."""
        return len(self._datasets["offsets"]) - 1

    @property
    def patches(self) -> int:
        """The number of patches P of all images."""
        return len(self._datasets["features"])

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.attributes["fingerprint"]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(N + 1,) row at which each image begins, and P."""
        offsets = self.stored_offsets
        if offsets[0] != 0 or offsets[-1] != self.patches or (np.diff(offsets) < 1).any():
            raise CacheDamagedError(
                f"{self.path}: offsets must rise from 0 to {self.patches}, the number of patches"
            )
        views = len(self.recipe.views)
        if (np.diff(offsets) % views).any():
            raise CacheDamagedError(
                f"{self.path}: an image's patches are not those of {views} views, equally many each"
            )
        return offsets

    @cached_property
    def stored_offsets(self) -> NDArray[np.int64]:
        """(N + 1,) the offsets as they are in the file, right or not."""
        offsets: NDArray[np.int64] = self._read("offsets")
        return offsets

    @cached_property
    def digests(self) -> NDArray[np.bytes_]:
        """(N,) SHA-256 of each image's features and coordinates, in hexadecimal.

        Raises:
            CacheDamagedError: they are not those that were written.
        """
        digests: NDArray[np.bytes_] = self._read("digests")
        self.expect("digests_sha256", hashlib.sha256(digests.view(np.uint8).data).hexdigest())
        return digests

    @cached_property
    def images(self) -> ImageTable:
        """The image table."""
        columns = {}
        for name in ImageRow._fields:
            values = self._read(f"images/{name}")
            where = f"{self.path}: images/{name}"
            columns[name] = decode_text(values, where) if name in TEXT_COLUMNS else values
        return ImageTable(columns)

    def text_width(self, column: str) -> int:
        """Bytes that each text of a column of the image table takes in the file."""
        return int(self._datasets[f"images/{column}"].dtype.itemsize)

    def image_rows(self, start: int, stop: int) -> list[ImageRow]:
        """Rows `start` to `stop` of the image table, without reading the others."""
        lists = (self.image_column(name, start, stop) for name in ImageRow._fields)
        return [ImageRow(*values) for values in zip(*lists, strict=True)]

    def image_column(self, name: str, start: int, stop: int) -> list[Any]:
        """Rows `start` to `stop` of a column of the image table."""
        values = self._read(f"images/{name}", slice(start, stop))
        if name in TEXT_COLUMNS:
            values = decode_text(values, f"{self.path}: images/{name}")
        found: list[Any] = values.tolist()
        return found

    @property
    def has_statistics(self) -> bool:
        """Whether the cache declares statistics of its images."""
        return ATTRIBUTE in self.attributes

    @cached_property
    def statistics(self) -> Statistics | None:
        """The statistics of all images, checked; None if the cache holds none.

        Raises:
            CacheDamagedError: they are not those that were written.
        """
        if not self.has_statistics:
            return None
        names = (f"{GROUP}/{name}" for name in ("colour", "perceptual_hash", "pixels_sha256"))
        colour, hashes, texts = (self._read(name) for name in names)
        decoded = decode_text(texts, f"{self.path}: {GROUP}/pixels_sha256")
        statistics = Statistics(colour, hashes, decoded)
        self.expect(ATTRIBUTE, statistics.sha256())
        return statistics

    def sequence(self, image: int | str, view: int = 0) -> NDArray[np.floating]:
        """The features of one image.

        Args:
            image: its position or its id.
            view: position of the view in the recipe's `views`.

        Returns:
            (n, D) float16 or float32, in scan order.

        Raises:
            UnknownImageError: there is no such image, or no such view.
        """
        rows: NDArray[np.floating] = self._read("features", self._span(image, view))
        return rows

    def coords(self, image: int | str, view: int = 0) -> NDArray[np.int32]:
        """The x and y of each patch's top-left pixel of one image, (n, 2), in its view."""
        rows: NDArray[np.int32] = self._read("coords", self._span(image, view))
        return rows

    def _span(self, image: int | str, view: int) -> slice:
        position = self.images.index(image) if isinstance(image, str) else image
        views = len(self.recipe.views)
        if not (0 <= position < len(self) and 0 <= view < views):
            raise UnknownImageError(
                f"{self.path}: no image {position} in view {view}, it holds {len(self)} images in "
                f"{views} views"
            )
        start, stop = self.offsets[position : position + 2].tolist()
        patches = (stop - start) // views
        return slice(start + view * patches, start + (view + 1) * patches)

    def all_views(self) -> NDArray[np.uint8]:
        """Of each row of the features, the position of its view in the recipe's `views`, (P,)."""
        views = len(self.recipe.views)
        patches = np.repeat(np.diff(self.offsets) // views, views)  # (N · views,)
        return np.repeat(np.tile(np.arange(views, dtype=np.uint8), len(self)), patches)

    def features(self, start: int = 0, stop: int | None = None) -> NDArray[np.floating]:
        """Rows `start` to `stop` of the features of all images, (P, D) if neither is given."""
        rows: NDArray[np.floating] = self._read("features", slice(start, stop))
        return rows

    def all_coords(self, start: int = 0, stop: int | None = None) -> NDArray[np.int32]:
        """Rows `start` to `stop` of the coordinates of all patches, (P, 2) if neither is given."""
        rows: NDArray[np.int32] = self._read("coords", slice(start, stop))
        return rows

    def _read(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        with reading(self.path, name):
            return np.asarray(self._datasets[name][rows])

    def dataset(self, name: str) -> NDArray[Any]:
        """All of a dataset of the format, as it is in the file.

        Raises:
            CacheDamagedError: a checksum in it is wrong.
        """
        return self._read(name)

    def part(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` of a dataset of the format, as they are in the file.

        Raises:
            CacheDamagedError: a checksum in them is wrong.
        """
        return self._read(name, slice(start, stop))

    def unchecked(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` of a dataset as they are in the file, right or not.

        HDF5 refuses a whole chunk if its checksum is wrong, and with it the images that a digest
        still proves. Used only with such a proof.
        """
        dataset = self._datasets[name]
        if isinstance(dataset, VirtualFeatures):
            return dataset.unchecked(start, stop)
        with reading(self.path, name):
            return read_chunks(dataset, start, stop)

    def load(self) -> NDArray[np.floating]:
        """All features (P, D), read once, after everything was checked against its digest.

        Raises:
            CacheDamagedError: features, coordinates, offsets, images or statistics are not what
                was written.
            CacheError: they do not fit in the memory of this machine.
        """
        _check_memory(self.path, self._datasets["features"].nbytes)
        features = self._proved_features()
        if features is None:  # slower, and says what is wrong
            features = self.features()
            self.expect("features_sha256", hashlib.sha256(features.data).hexdigest())
        index = hashlib.sha256(self.all_coords().tobytes() + self.offsets.tobytes())
        self.expect("index_sha256", index.hexdigest())
        self.expect("manifest_sha256", self.images.sha256())
        _ = self.statistics
        return features

    def _proved_features(self) -> NDArray[np.floating] | None:
        """All features (P, D) if the digest of every image proves them; else None."""
        features = self._raw_features()
        if features is None or len(self.digests) != len(self):
            return None
        fit = digests_fit(features, self.all_coords(), self.offsets, self.digests)
        return features if fit else None

    def _raw_features(self) -> NDArray[np.floating] | None:
        dataset = self._datasets["features"]
        if isinstance(dataset, VirtualFeatures):
            return dataset.read_unchecked()
        with reading(self.path, "features"):
            return read_unchecked(self.path, dataset)

    def expect(self, attribute: str, found: str) -> None:
        """Compare a digest with the one that was declared.

        Raises:
            CacheDamagedError: they differ.
        """
        if self.attributes[attribute] != found:
            raise CacheDamagedError(
                f"{self.path}: {attribute} does not agree with the content "
                f"(found {found[:12]}…, expected {self.attributes[attribute][:12]}…): "
                "mend it with `pipeline cache repair`, or extract again"
            )


def _check_memory(path: Path, needed: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise CacheError(
            f"{path}: its features take {needed / 1e9:.1f} GB, this machine has "
            f"{memory / 1e9:.1f} GB of memory: use a larger one, or fewer images"
        )


def _checked_attributes(path: Path, file: h5py.File) -> dict[str, str]:
    attributes = read_attributes(file)
    if attributes.get("format") != FORMAT_NAME:
        raise CacheFormatError(
            f"{path}: format is {attributes.get('format')!r}, expected {FORMAT_NAME!r}"
        )
    version = attributes.get("format_version", "none")
    if version.split(".", maxsplit=1)[0] != _MAJOR:
        raise CacheFormatError(
            f"{path}: format version {version}, this software reads {_MAJOR}.x: "
            "extract again, or use the version that wrote it"
        )
    if SEAL not in attributes:
        raise CacheIncompleteError(f"{path}: was never finished: extract again")
    if attributes[SEAL] != attributes_seal(attributes):
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

"""Write a cache or a shard of one, image by image, and publish it whole."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.disk import Disk, open_disk
from cache.errors import CacheError
from cache.file_seal import BLOCK_BYTES, write_file_seal
from cache.files import publish
from cache.layout import (
    COORD_DTYPE,
    DIGEST_LENGTH,
    LIBVER,
    OFFSET_DTYPE,
    GrowingDataset,
    create_dataset,
    sequence_digest,
    write_attributes,
)
from cache.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    VIRTUAL_VERSION,
    Failure,
    ImageRow,
    Recipe,
    ShardPlace,
    canonical_json,
    check_row,
)
from cache.sources import ATTRIBUTE as SOURCES
from cache.sources import Source, to_json
from cache.statistics import (
    ATTRIBUTE,
    COLOUR_DTYPE,
    COLOUR_NAMES,
    GROUP,
    HASH_BYTES,
    HASH_DTYPE,
    ImageStatistics,
    Statistics,
    check_statistics,
)
from cache.table import Widths
from cache.table_writer import HeldTable, StreamedTable
from cache.verify import check
from cache.virtual import VirtualRows


@contextmanager
def write_cache(
    path: Path | str,
    recipe: Recipe,
    provenance: Mapping[str, str],
    shard: ShardPlace | None = None,
    widths: Widths | None = None,
    sources: Sequence[Source] = (),
) -> Iterator["CacheWriter"]:
    """Write a cache, which appears at `path` complete and verified, or not at all.

    Args:
        path: the file to publish.
        recipe: how the features were made.
        provenance: where and when they were made; it does not enter the fingerprint.
        shard: the place in a larger cache, if the file is a shard.
        widths: bytes of the longest text of each column of the image table, if they are known
            before: then memory does not grow with the number of images.
        sources: shards that hold the features that will be appended, in order: then the file
            refers to them, and holds no features itself.

    Yields:
        The writer to append images to.

    Raises:
        PublishError: the file cannot be written.
        CacheError: what was appended breaks the format.
    """
    with publish(path) as temporary:
        with (
            open_disk(temporary) as disk,
            h5py.File(
                temporary,
                "w",
                driver="fileobj",
                fileobj=disk,
                libver=LIBVER,
                userblock_size=BLOCK_BYTES,
            ) as file,
        ):
            writer = CacheWriter(file, recipe, disk, widths, sources)
            yield writer
            writer.finish(provenance, shard)
        write_file_seal(temporary)
        check(temporary)


class CacheWriter:
    """Appends images to an open file; made by `write_cache`."""

    def __init__(
        self,
        file: h5py.File,
        recipe: Recipe,
        disk: Disk,
        widths: Widths | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        self._file, self._recipe, self._disk, self._sources = file, recipe, disk, sources
        self._features = _features(file, recipe, sources)
        self._coords = GrowingDataset(file, "coords", (2,), COORD_DTYPE)
        self._digests = GrowingDataset(file, "digests", (), _DIGEST)
        self._lengths = array("q")
        self._table = HeldTable() if widths is None else StreamedTable(file, widths)
        self._failures: list[Failure] = []
        self._statistics: StatisticsWriter | None = None

    def append(
        self,
        row: ImageRow,
        features: NDArray[np.floating],
        coords: NDArray[np.integer],
        statistics: ImageStatistics | None = None,
    ) -> None:
        """Add one image.

        Args:
            row: its row of the image table.
            features: (n, D), n ≥ 1, in scan order; rounded to the recipe's dtype. If the recipe
                has several views, those of each, one view after another, equally many.
            coords: (n, 2), x and y of each patch's top-left pixel, in its view.
            statistics: of its pixels; given for all images or for none.

        Raises:
            CacheError: the image is already there, or its arrays have another shape, or a value
                is not finite in the recipe's dtype, or only some images have statistics.
            OSError: the disk refused what was written before; `write_cache` turns it into a
                `PublishError`.
        """
        self._disk.raise_error()
        self._table.take_id(row.image_id)
        check_row(row, f"image {row.image_id}")
        dim = self._recipe.feature_dim
        if features.ndim != 2 or features.shape[1] != dim or len(features) == 0:
            raise CacheError(f"{row.image_id}: features {features.shape}, expected (n ≥ 1, {dim})")
        if coords.shape != (len(features), 2):
            raise CacheError(f"{row.image_id}: coords {coords.shape}, expected as many as features")
        views = len(self._recipe.views)
        if len(features) % views:
            raise CacheError(f"{row.image_id}: {len(features)} patches, expected {views} views")
        self._take_statistics(row.image_id, statistics)
        stored = self._stored(row.image_id, features)
        placed = np.ascontiguousarray(coords, COORD_DTYPE)
        self._features.append(stored)
        self._coords.append(placed)
        self._lengths.append(len(features))
        self._digests.append(np.array([sequence_digest(stored, placed)], _DIGEST))
        self._table.append(row)

    def _take_statistics(self, image_id: str, statistics: ImageStatistics | None) -> None:
        if self._lengths and (statistics is None) == (self._statistics is not None):
            raise CacheError(f"{image_id}: statistics must be given for all images or for none")
        if statistics is not None:
            checked = check_statistics(statistics, f"image {image_id}")
            self._statistics = self._statistics or StatisticsWriter(self._file)
            self._statistics.append(checked)

    def fail(self, failure: Failure) -> None:
        """Record an image that has no features."""
        self._table.take_id(failure.image_id)
        self._failures.append(failure)

    def _stored(self, image_id: str, features: NDArray[np.floating]) -> NDArray[np.floating]:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(features, np.dtype(self._recipe.dtype).newbyteorder("<"))
        if not np.isfinite(stored).all():
            largest = float(np.abs(features).max())
            raise CacheError(
                f"{image_id}: a feature is not finite in {self._recipe.dtype} (largest magnitude "
                f"{largest:g}): compute and store in float32, and check the weights"
            )
        return stored

    def finish(self, provenance: Mapping[str, str], shard: ShardPlace | None) -> None:
        """Write what is known only at the end: offsets, image table, failures, attributes.

        Raises:
            CacheError: two images have the same id.
        """
        self._features.flush()
        self._coords.flush()
        self._digests.flush()
        offsets = np.zeros(len(self._lengths) + 1, OFFSET_DTYPE)
        np.cumsum(np.frombuffer(self._lengths, np.int64), out=offsets[1:])
        create_dataset(self._file, "offsets", offsets)
        index_digest = self._coords.digest.copy()
        index_digest.update(offsets.data)
        attributes = {
            "format": FORMAT_NAME,
            "format_version": VIRTUAL_VERSION if self._sources else FORMAT_VERSION,
            "recipe": self._recipe.to_json(),
            "fingerprint": self._recipe.fingerprint,
            "manifest_sha256": self._table.finish(self._file),
            "features_sha256": self._features.digest.hexdigest(),
            "index_sha256": index_digest.hexdigest(),
            "digests_sha256": self._digests.digest.hexdigest(),
            "provenance": canonical_json(dict(provenance)),
            "failures": canonical_json([list(failure) for failure in self._failures]),
        }
        if self._statistics is not None:
            attributes[ATTRIBUTE] = self._statistics.finish()
        if self._sources:
            attributes[SOURCES] = to_json(self._sources)
        if shard is not None:
            attributes["shard"] = canonical_json(shard._asdict())
        write_attributes(self._file, attributes)


def _features(
    file: h5py.File, recipe: Recipe, sources: Sequence[Source]
) -> GrowingDataset | VirtualRows:
    dtype = np.dtype(recipe.dtype).newbyteorder("<")
    if sources:
        return VirtualRows(file, sources, recipe.feature_dim, dtype)
    return GrowingDataset(file, "features", (recipe.feature_dim,), dtype)


class StatisticsWriter:
    """Appends the statistics of images to an open file."""

    def __init__(self, file: h5py.File) -> None:
        group = file.create_group(GROUP)
        self._colour = GrowingDataset(group, "colour", (len(COLOUR_NAMES),), COLOUR_DTYPE)
        self._hashes = GrowingDataset(group, "perceptual_hash", (HASH_BYTES,), HASH_DTYPE)
        self._pixels = GrowingDataset(group, "pixels_sha256", (), _DIGEST)
        self._digests = GrowingDataset(group, "digests", (), _DIGEST)

    def append(self, image: ImageStatistics) -> None:
        """Add those of one image."""
        one = Statistics.stack([image])
        self._colour.append(one.colour)
        self._hashes.append(one.perceptual_hash)
        self._pixels.append(np.array([image.pixels_sha256.encode()], _DIGEST))
        self._digests.append(np.array(one.digests(), _DIGEST))

    def finish(self) -> str:
        """Write what waits; the SHA-256 of all."""
        for dataset in (self._colour, self._hashes, self._pixels, self._digests):
            dataset.flush()
        return self._digests.digest.hexdigest()


_DIGEST = np.dtype(f"S{DIGEST_LENGTH}")

"""Small caches to test with."""

from pathlib import Path

import numpy as np

from cache import FeatureCache, ImageRow, ImageStatistics, Recipe, ShardPlace, write_cache

DIM = 4


def make_recipe(**changes) -> Recipe:
    fields = {
        "encoder": "vgg16",
        "weights": "random(seed=0)",
        "weights_sha256": "0" * 64,
        "layer": "features.30",
        "pooling": "mean",
        "feature_dim": DIM,
        "patch_size": 224,
        "stride": 224,
        "scan_order": "raster",
        "edge_policy": "drop",
        "colour": "rgb",
        "normalisation": "none",
        "precision": "float32",
        "dtype": "float16",
        "views": ("identity",),
    }
    return Recipe(**{**fields, **changes})


def make_row(image_id: str, **changes) -> ImageRow:
    row = ImageRow(image_id, f"{image_id}.png", "benign", "", "s1", "c1", 100, 700, 460, "a" * 64)
    return row._replace(**changes)


def features_of(seed: int, patches: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(patches, DIM)).astype(np.float32)


def coords_of(patches: int) -> np.ndarray:
    return np.arange(2 * patches, dtype=np.int32).reshape(patches, 2)


def statistics_of(seed: int) -> ImageStatistics:
    rng = np.random.default_rng(seed)
    return ImageStatistics(
        rng.normal(size=12).astype(np.float32),
        rng.integers(0, 256, 32, dtype=np.uint8),
        rng.bytes(32).hex(),
    )


def write(
    path: Path,
    recipe: Recipe,
    lengths: list[int],
    shard: ShardPlace | None = None,
    statistics: bool = False,
) -> Path:
    """A cache whose image i has `lengths[i]` patches, with all values drawn from seed i."""
    first = 100 * shard.number if shard else 0
    with write_cache(path, recipe, {"made": "by a test"}, shard) as writer:
        for i, length in enumerate(lengths, first):
            described = statistics_of(i) if statistics else None
            features, coords = features_of(i, length), coords_of(length)
            writer.append(make_row(f"image{i}"), features, coords, described)
    return path


def strip_statistics(path: Path) -> None:
    """Write a cache anew without statistics, as format 1.0 has none."""
    with FeatureCache(path) as cache:
        offsets, features, coords = cache.offsets, cache.features(), cache.all_coords()
        with write_cache(path, cache.recipe, cache.provenance, cache.shard) as writer:
            for i, row in enumerate(cache.images.rows()):
                span = slice(offsets[i], offsets[i + 1])
                writer.append(row, features[span], coords[span])
            for failure in cache.failures:
                writer.fail(failure)

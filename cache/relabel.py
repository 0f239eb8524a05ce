"""Correct the labels in a cache, without touching its features."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import ImageTableError
from cache.reader import FeatureCache
from cache.schema import ImageRow
from cache.sequences import BLOCK_ROWS
from cache.verify import check
from cache.writer import write_cache

RELABELLED = ("label", "subtype", "slide", "case", "magnification")
"""What may change: what somebody says of an image, not what was read from its file."""

HISTORY = "relabelled"
"""Key of the provenance that lists the relabellings."""


class Changes(NamedTuple):
    """What relabelling changed: the number of images, and of images in each changed column."""

    images: int
    columns: dict[str, int]


def relabel(source: Path | str, rows: Sequence[ImageRow], out: Path | str) -> Changes:
    """Copy a cache, or replace it, with other labels.

    Features, coordinates, offsets, statistics, the order of the images, recipe, failures, shard
    place, paths and SHA-256 stay as they are. The `relabelled` entry of the provenance gains
    `<date> from <manifest_sha256 of the old image table>`; entries are separated by `; `, the
    newest is the last. Nothing is gained where nothing changes; then a cache that would be
    replaced by itself is left alone.

    Reads and writes blocks: memory does not grow with the number of patches.

    Args:
        source: the cache or shard. Every value of it is checked first.
        rows: the new image table, all of it, in the order of the old one.
        out: the file to publish; may be `source`, which is replaced whole or not at all.

    Raises:
        ImageTableError: `rows` are not the images of the cache, differ in more than
            `RELABELLED`, or hold a value that is not allowed.
        CacheError: the source is not a sound cache.
        PublishError: `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    check(source)
    with FeatureCache(source) as cache:
        changes = _changes(cache, rows)
        if changes.images or not (out.exists() and out.samefile(source)):
            _write(cache, rows, out, _provenance(cache) if changes.images else cache.provenance)
    return changes


def _changes(cache: FeatureCache, rows: Sequence[ImageRow]) -> Changes:
    old = cache.images.rows()
    if len(rows) != len(old):
        raise ImageTableError(f"{cache.path}: {len(rows)} rows given, it holds {len(old)} images")
    images, columns = 0, dict.fromkeys(RELABELLED, 0)
    for before, after in zip(old, rows, strict=True):
        pairs = zip(ImageRow._fields, before, after, strict=True)
        changed = [name for name, mine, theirs in pairs if mine != theirs]
        fixed = [name for name in changed if name not in RELABELLED]
        if fixed:
            raise ImageTableError(
                f"{cache.path}: image {before.image_id}: {', '.join(fixed)} would change, "
                f"expected changes of {', '.join(RELABELLED)} only: extract again instead"
            )
        images += bool(changed)
        for name in changed:
            columns[name] += 1
    return Changes(images, {name: count for name, count in columns.items() if count})


def _provenance(cache: FeatureCache) -> dict[str, str]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = f"{now} from {cache.attributes['manifest_sha256']}"
    history = [*filter(None, [cache.provenance.get(HISTORY)]), entry]
    return {**cache.provenance, HISTORY: "; ".join(history)}


def _write(
    cache: FeatureCache, rows: Sequence[ImageRow], out: Path, provenance: dict[str, str]
) -> None:
    features_digest, index_digest = hashlib.sha256(), hashlib.sha256()
    statistics = cache.statistics
    with write_cache(out, cache.recipe, provenance, cache.shard) as writer:
        for i, (row, (features, coords)) in enumerate(zip(rows, _sequences(cache), strict=True)):
            features_digest.update(np.ascontiguousarray(features).data)
            index_digest.update(np.ascontiguousarray(coords).data)
            writer.append(row, features, coords, statistics[i] if statistics else None)
        for failure in cache.failures:
            writer.fail(failure)
        index_digest.update(cache.offsets.tobytes())
        # What was copied is what was checked, even if the file changed in between.
        cache.expect("features_sha256", features_digest.hexdigest())
        cache.expect("index_sha256", index_digest.hexdigest())


def _sequences(
    cache: FeatureCache,
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.int32]]]:
    """Features (n, D) and coordinates (n, 2) of each image, read in blocks of whole images."""
    offsets, first = cache.offsets, 0
    while first < len(cache):
        start = offsets[first]
        after = int(np.searchsorted(offsets, start + BLOCK_ROWS, side="right")) - 1
        last = max(first + 1, after)  # an image larger than a block is a block of its own
        features = cache.features(start, offsets[last])
        coords = cache.all_coords(start, offsets[last])
        for i in range(first, last):
            span = slice(offsets[i] - start, offsets[i + 1] - start)
            yield features[span], coords[span]
        first = last

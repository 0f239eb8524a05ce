"""Check every value of a cache against what the cache declares."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheDamagedError, CacheError, printable
from cache.file_seal import SEAL_BROKEN, file_seal_fits
from cache.proof import BLOCK_IMAGES, damaged_statistics, stored_statistics
from cache.reader import FeatureCache
from cache.schema import check_row
from cache.sequences import BLOCK_ROWS, damaged_images
from cache.sources import content_problem
from cache.statistics import ATTRIBUTE, GROUP
from cache.table import table_sha256
from cache.table_writer import has_twice, id_hash


def verify(path: Path | str) -> list[str]:
    """Find every violation of the format in a file.

    Reads all of it, in blocks, in memory that does not grow with the number of patches.

    Returns:
        One line for each violation; none if the cache is sound.
    """
    file = Path(path)
    try:
        with FeatureCache(file) as cache:
            return [line for part in _CHECKS for line in _violations(part, cache)]
    except CacheError as error:
        return [str(error)]


def check(path: Path | str) -> None:
    """Raise if `verify` finds anything.

    Raises:
        CacheDamagedError: with every violation in its message.
    """
    violations = verify(path)
    if violations:
        raise CacheDamagedError("; ".join(violations))


def content_fits(cache: FeatureCache) -> bool:
    """Whether all features, coordinates and offsets are those that were written."""
    return not any(_violations(part, cache) for part in (_check_features, _check_index))


def _violations(part: Callable[[FeatureCache], list[str]], cache: FeatureCache) -> list[str]:
    try:
        return [printable(f"{cache.path}: {line}") for line in part(cache)]
    except CacheError as error:
        return [str(error)]


def _check_seal(cache: FeatureCache) -> list[str]:
    mine = [] if file_seal_fits(cache.path) else [SEAL_BROKEN]
    found = (content_problem(cache.path.parent, source) for source in cache.sources)
    return mine + [f"source {problem}" for problem in found if problem]


def _check_features(cache: FeatureCache) -> list[str]:
    digest, broken = hashlib.sha256(), 0
    unreadable: list[str] = []
    for start in range(0, cache.patches, BLOCK_ROWS):
        try:
            block = cache.features(start, start + BLOCK_ROWS)
        except CacheError:
            stop = min(start + BLOCK_ROWS, cache.patches)
            unreadable.append(f"features: a checksum in rows {start} to {stop} is wrong")
            continue
        digest.update(block.data)
        broken += int((~np.isfinite(block).all(axis=1)).sum())
    lines = [f"features: {broken} of {cache.patches} rows are not finite"] if broken else []
    if unreadable:
        return unreadable + lines
    return lines + _compare("features", cache, "features_sha256", digest.hexdigest())


def _check_index(cache: FeatureCache) -> list[str]:
    digest = hashlib.sha256()
    for start in range(0, cache.patches, BLOCK_ROWS):
        digest.update(cache.all_coords(start, start + BLOCK_ROWS).data)
    digest.update(cache.offsets.data)
    return _compare("coords and offsets", cache, "index_sha256", digest.hexdigest())


def _check_sequences(cache: FeatureCache) -> list[str]:
    damaged = damaged_images(cache)
    names = cache.images["image_id"][damaged].tolist() if damaged else []
    return [f"image {name}: its features or coordinates are not those written" for name in names]


def _check_statistics(cache: FeatureCache) -> list[str]:
    if not cache.has_statistics:
        return []
    lines, broken, joint = [], set(), hashlib.sha256()
    for start in range(0, len(cache), BLOCK_IMAGES):
        stop = min(start + BLOCK_IMAGES, len(cache))
        broken |= {name for name in _STATISTICS if not _readable(cache, name, start, stop)}
        found = stored_statistics(cache, start, stop)
        unusable = [] if found is None else found.unusable()
        if unusable:
            names = cache.image_column("image_id", start, stop)
            lines += [f"image {names[i]}: its statistics make no sense" for i in unusable]
        if _DIGESTS not in broken:
            joint.update(cache.part(_DIGESTS, start, stop).tobytes())
    lines += [f"{name}: a checksum is wrong" for name in sorted(broken)]
    if _DIGESTS not in broken:
        lines += _compare(_DIGESTS, cache, ATTRIBUTE, joint.hexdigest())
    try:
        damaged = damaged_statistics(cache)
    except CacheError as error:
        return [*lines, str(error)]
    names = cache.images["image_id"].tolist() if damaged else []
    return lines + [f"image {names[i]}: its statistics are not those written" for i in damaged]


_DIGESTS = f"{GROUP}/digests"
_STATISTICS = (
    *(f"{GROUP}/{name}" for name in ("colour", "perceptual_hash", "pixels_sha256")),
    _DIGESTS,
)


def _readable(cache: FeatureCache, name: str, start: int, stop: int) -> bool:
    try:
        cache.part(name, start, stop)
    except CacheError:
        return False
    return True


def _check_images(cache: FeatureCache) -> list[str]:
    lines = _compare("images", cache, "manifest_sha256", table_sha256(_blocks_of(cache)))
    hashes = array("Q", [id_hash(failure.image_id) for failure in cache.failures])
    for start in range(0, len(cache), BLOCK_IMAGES):
        rows = cache.image_rows(start, min(start + BLOCK_IMAGES, len(cache)))
        for i, row in enumerate(rows, start):
            try:
                check_row(row, f"images, row {i}")
            except CacheError as error:
                lines.append(str(error))
        hashes.extend(id_hash(row.image_id) for row in rows)
    if not has_twice(hashes):
        return lines
    ids = [*cache.images["image_id"], *(failure.image_id for failure in cache.failures)]
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    return lines + [f"images: id {image_id} appears more than once" for image_id in twice]


def _blocks_of(cache: FeatureCache) -> Callable[[str], Iterator[list[Any]]]:
    def blocks(name: str) -> Iterator[list[Any]]:
        for start in range(0, len(cache), BLOCK_IMAGES):
            yield cache.image_column(name, start, min(start + BLOCK_IMAGES, len(cache)))

    return blocks


_CHECKS = (
    *(_check_seal, _check_features, _check_index, _check_images),
    *(_check_sequences, _check_statistics),
)


def _compare(what: str, cache: FeatureCache, attribute: str, found: str) -> list[str]:
    declared = cache.attributes[attribute]
    if declared == found:
        return []
    return [f"{what}: SHA-256 is {found[:12]}…, {attribute} says {declared[:12]}…"]

"""Tell the images of a cache whose statistics are provably those that were written."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.reader import FeatureCache
from cache.statistics import ATTRIBUTE, GROUP, Statistics

BLOCK_IMAGES = 16384
"""Images whose statistics are in memory at once."""


def stored_statistics(
    cache: FeatureCache, start: int = 0, stop: int | None = None
) -> Statistics | None:
    """The statistics of images as they are in the file, right or not; None if it holds none.

    They are given even where the checksum of their chunk is wrong.

    Args:
        cache: the cache.
        start: the first image.
        stop: the image after the last; None is the end.

    Raises:
        CacheDamagedError: they cannot be read at all.
    """
    return _statistics(cache, start, stop) if cache.has_statistics else None


def _statistics(cache: FeatureCache, start: int, stop: int | None) -> Statistics:
    colour, hashes, pixels = (
        _rows(cache, name, start, stop) for name in ("colour", "perceptual_hash", "pixels_sha256")
    )
    texts = [text.decode("utf-8", "replace") for text in pixels.tolist()]
    return Statistics(colour, hashes, np.array(texts, object))


def damaged_statistics(cache: FeatureCache) -> list[int]:
    """Compare the statistics of every image with their digest, in blocks.

    Returns:
        The positions of the images whose statistics are damaged, in order; none if the cache
        holds no statistics.

    Raises:
        CacheDamagedError: they cannot be read, or neither they nor their digests are those that
            were written, so that nothing is proved.
    """
    if not cache.has_statistics:
        return []
    mine, theirs = hashlib.sha256(), hashlib.sha256()
    damaged: list[int] = []
    for start in range(0, len(cache), BLOCK_IMAGES):
        stop = min(start + BLOCK_IMAGES, len(cache))
        found = _statistics(cache, start, stop).digests()
        declared = _rows(cache, "digests", start, stop).tolist()
        mine.update(b"".join(found))
        theirs.update(b"".join(declared))
        damaged += [
            start + i
            for i, pair in enumerate(zip(found, declared, strict=True))
            if pair[0] != pair[1]
        ]
    if mine.hexdigest() == cache.attributes[ATTRIBUTE]:
        return []
    cache.expect(ATTRIBUTE, theirs.hexdigest())
    return damaged


def _rows(cache: FeatureCache, name: str, start: int, stop: int | None) -> NDArray[Any]:
    stop = len(cache) if stop is None else stop
    try:
        return cache.part(f"{GROUP}/{name}", start, stop)
    except CacheDamagedError:
        return cache.unchecked(f"{GROUP}/{name}", start, stop)

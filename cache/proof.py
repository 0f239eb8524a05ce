"""Tell the images of a cache whose statistics are provably those that were written."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.reader import FeatureCache
from cache.statistics import ATTRIBUTE, GROUP, Statistics, joint_digest


def stored_statistics(cache: FeatureCache) -> Statistics | None:
    """The statistics of a cache as they are in the file, right or not; None if it holds none.

    They are given even where the checksum of their chunk is wrong.

    Raises:
        CacheDamagedError: they cannot be read at all.
    """
    if not cache.has_statistics:
        return None
    texts = [text.decode("utf-8", "replace") for text in _rows(cache, "pixels_sha256").tolist()]
    return Statistics(
        _rows(cache, "colour"), _rows(cache, "perceptual_hash"), np.array(texts, object)
    )


def damaged_statistics(cache: FeatureCache) -> list[int]:
    """Compare the statistics of every image with their digest.

    Returns:
        The positions of the images whose statistics are damaged, in order; none if the cache
        holds no statistics.

    Raises:
        CacheDamagedError: they cannot be read, or neither they nor their digests are those that
            were written, so that nothing is proved.
    """
    statistics = stored_statistics(cache)
    if statistics is None:
        return []
    found = statistics.digests()
    if joint_digest(found) == cache.attributes[ATTRIBUTE]:
        return []
    declared = _rows(cache, "digests").tolist()
    cache.expect(ATTRIBUTE, joint_digest(declared))
    pairs = zip(found, declared, strict=True)
    return [i for i, (mine, theirs) in enumerate(pairs) if mine != theirs]


def _rows(cache: FeatureCache, name: str) -> NDArray[Any]:
    try:
        return cache.dataset(f"{GROUP}/{name}")
    except CacheDamagedError:
        return cache.unchecked(f"{GROUP}/{name}", 0, len(cache))

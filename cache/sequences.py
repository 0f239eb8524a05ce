"""Tell the images of a cache whose sequences are provably those that were written."""

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.layout import sequence_digest
from cache.reader import FeatureCache

BLOCK_ROWS = 16384
"""Patches that are read at once."""


def damaged_images(cache: FeatureCache) -> list[int]:
    """Compare the features and coordinates of every image with its digest.

    A wrong checksum of HDF5's costs a whole chunk, a wrong digest one image. A block that cannot be
    read at all is divided until the images in it that can be read are told from the others.

    Returns:
        The positions of the images that are damaged, in order.

    Raises:
        CacheDamagedError: the digests or offsets themselves cannot be read, or the digests are
            not those that were written.
    """
    step = max(1, BLOCK_ROWS * len(cache) // max(1, cache.patches))
    return [
        image
        for first in range(0, len(cache), step)
        for image in _damaged(cache, first, min(first + step, len(cache)))
    ]


def _damaged(cache: FeatureCache, first: int, last: int) -> list[int]:
    expected = cache.digests[first:last].tolist()
    try:
        found = _digests(cache, first, last)
    except CacheDamagedError:
        if last - first == 1:
            return [first]
        middle = (first + last) // 2
        return _damaged(cache, first, middle) + _damaged(cache, middle, last)
    pairs = zip(found, expected, strict=True)
    return [first + i for i, (mine, declared) in enumerate(pairs) if mine != declared]


def _digests(cache: FeatureCache, first: int, last: int) -> list[bytes]:
    ends = cache.stored_offsets[first : last + 1]
    if ends[0] < 0 or ends[-1] > cache.patches or (np.diff(ends) < 1).any():
        raise CacheDamagedError(f"{cache.path}: offsets of images {first} to {last} do not rise")
    features, coords = read_rows(cache, int(ends[0]), int(ends[-1]))
    spans = zip((ends[:-1] - ends[0]).tolist(), (ends[1:] - ends[0]).tolist(), strict=True)
    return [sequence_digest(features[a:b], coords[a:b]) for a, b in spans]


def read_rows(
    cache: FeatureCache, start: int, stop: int
) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
    """Features (n, D) and coordinates (n, 2) of rows that a digest proves, or is to prove.

    They are given even where the checksum of their chunk is wrong.

    Raises:
        CacheDamagedError: they cannot be read at all.
    """
    try:
        return cache.features(start, stop), cache.all_coords(start, stop)
    except CacheDamagedError:
        features = cache.unchecked("features", start, stop)
        return features, cache.unchecked("coords", start, stop)

"""Find all pairs of perceptual hashes that differ in few bits: exactly, in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.ahead import ahead, usable_cpus
from pipeline.progress import Progress, silent

_TILE = 1024
"""Hashes a side of the square that one thread compares at a time."""

_BAND = 64
"""Rows of a tile that are compared at once: their distances stay in the processor's cache."""

_MAX_WORKERS = 8

_EVEN_ROWS_FIRST = [
    2 * row + byte for odd in (0, 1) for row in range(odd, 16, 2) for byte in (0, 1)
]
"""Neighbouring rows of the 16 × 16 bits are alike: every other one tells most of the rest."""


class NearPairs(NamedTuple):
    """Pairs: positions `first` < `second`, and in how many bits they differ, (n,) each."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance: NDArray[np.int64]


def near_pairs(
    hashes: NDArray[np.uint8], bits: int, progress: Progress = silent
) -> Iterator[NearPairs]:
    """Find the pairs that differ in at most `bits` bits.

    Every pair is compared: by half of its bits, which decides nearly all, then by the rest. (At
    so many bits, tables of parts of the hashes leave nearly as many pairs to compare.)

    Args:
        hashes: (N, 32), 256 bits each.
        bits: the largest distance, 0 to 255.
        progress: told of each tile of pairs.

    Yields:
        Pairs in batches of at most a tile, in a fixed order; each pair once.
    """
    content = np.ascontiguousarray(hashes[:, _EVEN_ROWS_FIRST])
    words = np.ascontiguousarray(content.view(np.uint64).T)  # (4, N)
    starts = range(0, words.shape[1], _TILE)
    tiles = ((row, column) for row in starts for column in starts if row <= column)
    workers = min(_MAX_WORKERS, usable_cpus())  # NumPy lets other threads run

    def compare(tile: tuple[int, int]) -> NearPairs:
        return _compare(words, *tile, bits)

    with progress(len(starts) * (len(starts) + 1) // 2, 0) as advance:
        for found in ahead(compare, tiles, workers, window=2 * workers):
            advance(1)
            if len(found.first):
                yield found


def _compare(words: NDArray[np.uint64], row: int, column: int, bits: int) -> NearPairs:
    """The near pairs of one tile, which begins at hash `row` and hash `column`."""
    others = words[:, column : column + _TILE]  # (4, n)
    parts = []
    for start in range(row, min(row + _TILE, words.shape[1]), _BAND):
        band = words[:, start : min(start + _BAND, row + _TILE)]  # (4, m)
        half = _distances(band[0, :, None], others[0]) + _distances(band[1, :, None], others[1])
        i, j = np.divmod(np.flatnonzero(half <= bits), others.shape[1])
        distance = half[i, j].astype(np.int64)
        for word in (2, 3):
            distance += _distances(band[word, i], others[word, j])
        parts.append(np.stack([i + start, j + column, distance]))
    first, second, distance = np.concatenate(parts, axis=1)
    near = (distance <= bits) & (first < second)
    return NearPairs(first[near], second[near], distance[near])


def _distances(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """In how many bits words differ, broadcast. Two of them add up to 128 at most."""
    different: NDArray[np.uint8] = np.bitwise_count(left ^ right)
    return different

"""What an image is by its pixels alone: its colour, its look and its content, in a few numbers."""

import hashlib
import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cache.statistics import COLOUR_NAMES as COLOUR_NAMES  # one place to import them from
from cache.statistics import ImageStatistics as ImageStatistics

NEAR_BITS = 24
"""Perceptual hashes that differ in so few bits, or fewer, are of copies of one image.

Measured on 242 BreakHis images at 100X of 21 slides: the 29,161 pairs of different images differ in
76 bits or more (0.1 percentile 98, median 127); the closest are overlapping fields of one slide. A
copy differs in at most 10 bits as a JPEG of quality 75, 12 at half the size, 15 as both, 12 if 5 %
brighter, 3 if 5 % darker, 18 without a border of 2 pixels. Turned or mirrored copies are not found,
and images that are blank all over look alike. At 40 bits, one pair of different images passed for
copies once their stains had been normalised.
"""

_GREY = np.array([299, 587, 114], np.int64)
"""Weights of R, G and B in luma (ITU-R BT.601), in thousandths."""

_HASH_ROWS, _HASH_COLUMNS = 16, 17

_SCALE = 1 << 15
_DENSITY = np.array([round(-math.log((v + 1) / 256) * _SCALE) for v in range(256)], np.float64)
"""Optical density of each value: whole numbers, whose sums are exact in any order."""

# Products of densities are under 2³⁶: the sum of so many is exact in a float64.
_PART_PIXELS = 1 << 15

_PERCENTILES = (5, 50, 95)
_BIN_WIDTH = 32
_BINS = 3 * int(_DENSITY[0]) // _BIN_WIDTH + 1


def image_statistics(pixels: NDArray[np.uint8]) -> ImageStatistics:
    """Describe an image by its pixels, with the same bits on every machine.

    Args:
        pixels: (H, W, 3), RGB, 0 to 255, at least 17 a side.
    """
    running = RunningStatistics(*pixels.shape[:2])
    running.add(pixels)
    return running.result()


class RunningStatistics:
    """The statistics of an image that comes band by band; however it is divided, the same bits.

    Args:
        height: of the image, in pixels, as `width` at least 17.
        width: of the image.
    """

    def __init__(self, height: int, width: int) -> None:
        self._densities = _DensitySums()
        self._boxes = _Boxes(height, width)
        self._digest = pixels_digest(height, width)

    def add(self, band: NDArray[np.uint8]) -> None:
        """Take the next rows (h, W, 3) from the top."""
        content = np.ascontiguousarray(band)
        self._densities.add(content.reshape(-1, 3))
        self._boxes.add(content)
        self._digest.update(content.data)

    def result(self) -> ImageStatistics:
        """The statistics, once every row was added."""
        return ImageStatistics(
            self._densities.colour(), self._boxes.perceptual_hash(), self._digest.hexdigest()
        )


def pixels_digest(height: int, width: int) -> "hashlib._Hash":
    """A SHA-256 that an image's pixels, row by row, are to be added to."""
    return hashlib.sha256(f"{height} {width} 3\n".encode())


class _DensitySums:
    """Sums (3) and sums of products (3, 3) of the densities, and how often each total occurs."""

    def __init__(self) -> None:
        self._pixels = 0
        self._sums = [0] * 3  # Python's integers: exact at any size
        self._products = [[0] * 3 for _ in range(3)]
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Take pixels (n, 3)."""
        self._pixels += len(pixels)
        buffer = np.empty((3, min(_PART_PIXELS, len(pixels))))
        for start in range(0, len(pixels), _PART_PIXELS):
            part = np.ascontiguousarray(pixels[start : start + _PART_PIXELS].T)  # (3, n)
            # With mode="clip", NumPy writes to `out` directly; no value needs clipping.
            self._add(np.take(_DENSITY, part, out=buffer[:, : part.shape[1]], mode="clip"))

    def _add(self, densities: NDArray[np.float64]) -> None:
        for i, row in enumerate(np.einsum("in,jn->ij", densities, densities).tolist()):
            self._sums[i] += int(densities[i].sum())
            for j, product in enumerate(row):
                self._products[i][j] += int(product)
        bins = (densities.sum(axis=0) / _BIN_WIDTH).astype(np.int64)
        self._counts += np.bincount(bins, minlength=_BINS)

    def colour(self) -> NDArray[np.float32]:
        """The 12 numbers of `COLOUR_NAMES`."""
        n, sums = self._pixels, self._sums
        # n² times the covariances.
        spread = [
            [n * self._products[i][j] - sums[i] * sums[j] for j in range(3)] for i in range(3)
        ]
        means = [total / (n * _SCALE) for total in sums]
        deviations = [math.sqrt(spread[i][i]) / (n * _SCALE) for i in range(3)]
        pairs = ((0, 1), (0, 2), (1, 2))
        correlations = [_correlation(spread[i][j], spread[i][i], spread[j][j]) for i, j in pairs]
        percentiles = _percentiles(self._counts)
        return np.array([*means, *deviations, *correlations, *percentiles], np.float32)


def _correlation(covariance: int, variance: int, other: int) -> float:
    """Pearson's, and 0 where a channel does not vary."""
    return covariance / math.sqrt(variance * other) if variance and other else 0.0


def _percentiles(counts: NDArray[np.int64]) -> list[float]:
    reached = np.cumsum(counts)
    ranks = [(percent * int(reached[-1]) + 99) // 100 for percent in _PERCENTILES]  # from 1
    bins = np.searchsorted(reached, ranks).tolist()
    return [found * _BIN_WIDTH / (3 * _SCALE) for found in bins]


class _Boxes:
    """Sums of 16 × 17 boxes of an image."""

    def __init__(self, height: int, width: int) -> None:
        self._rows = np.arange(_HASH_ROWS + 1) * height // _HASH_ROWS
        self._columns = np.arange(_HASH_COLUMNS + 1) * width // _HASH_COLUMNS
        self._sums = np.zeros((_HASH_ROWS, width, 3), np.int64)
        self._top = 0

    def add(self, band: NDArray[np.uint8]) -> None:
        """Take the next rows (h, W, 3)."""
        bottom = self._top + len(band)
        for box, (start, stop) in enumerate(pairwise(self._rows.tolist())):
            first, last = max(start, self._top) - self._top, min(stop, bottom) - self._top
            if first < last:
                self._sums[box] += band[first:last].sum(axis=0, dtype=np.int64)
        self._top = bottom

    def perceptual_hash(self) -> NDArray[np.uint8]:
        """Which boxes are brighter than their left neighbours: (32,)."""
        sums = np.add.reduceat(self._sums, self._columns[:-1], axis=1) @ _GREY  # (16, 17)
        widths = np.diff(self._columns)
        # Means without a division: a / m < b / n is a · n < b · m.
        brighter = sums[:, :-1] * widths[1:] < sums[:, 1:] * widths[:-1]  # (16, 16)
        return np.packbits(brighter.ravel())

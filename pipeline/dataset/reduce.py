"""An image at a fraction of its size, to be shown."""

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.picture import Picture, WholePicture

SHOWN_SIDE = 1600
"""Pixels of the longer side of a reduced image, or up to twice as many."""


class Reduced:
    """Takes an image band by band, and gives the means of squares of its pixels.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.

    Attributes:
        factor: side of the squares; 1 for an image that needs no reduction.
    """

    def __init__(self, height: int, width: int) -> None:
        self.factor = max(1, max(height, width) // SHOWN_SIDE)
        self._waiting = np.empty((0, width, 3), np.uint8)
        self._done: list[NDArray[np.uint8]] = []

    def add(self, band: NDArray[np.uint8]) -> None:
        """Take the next rows (h, W, 3) from the top."""
        rows = np.concatenate([self._waiting, band])
        whole = len(rows) // self.factor * self.factor
        if whole:
            self._done.append(_means(rows[:whole], self.factor))
        self._waiting = rows[whole:].copy()

    def result(self) -> NDArray[np.uint8]:
        """Pixels (H', W', 3), once every row was added; the last squares may be cut off."""
        rest = [_means(self._waiting, self.factor)] if len(self._waiting) else []
        return np.concatenate([*self._done, *rest])


def _means(rows: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor == 1:
        return rows
    for axis in (0, 1):
        starts = np.arange(0, rows.shape[axis], factor)
        counts = np.diff(starts, append=rows.shape[axis])
        sums = np.add.reduceat(rows, starts, axis=axis, dtype=np.float32)
        rows = sums / np.expand_dims(counts, [i for i in range(3) if i != axis])
    return np.rint(rows).astype(np.uint8)


def reduce_picture(picture: Picture) -> tuple[NDArray[np.uint8], int]:
    """Pixels (H', W', 3) to show an image by, and the factor of its reduction.

    Raises:
        ImageError: the image cannot be read.
    """
    reduced = Reduced(picture.height, picture.width)
    if isinstance(picture, WholePicture) and reduced.factor == 1:
        return picture.pixels, 1
    for band in picture.bands():
        reduced.add(band)
    return reduced.result(), reduced.factor

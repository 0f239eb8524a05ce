"""The patches of an image of any size, cut as its pixels come from top to bottom."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.picture import Picture
from pipeline.extraction.patches import grid
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.views import view_of

Watcher = Callable[[NDArray[np.uint8]], object]
"""Sees each band of pixels (h, W, 3), once, from the top."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """Which pixels of an image each of its n patches needs.

    Attributes:
        coords: (n, 2) x and y of each patch's top-left pixel in its view, view after view, equally
            many each.
        boxes: (n, 4) left, top, right and bottom of the pixels in the image.
        skipped: (n, 2) x and y of the top-left pixel among these, seen as the view.
        beyond: (n, 2) how far the patch reaches beyond the right and lower edge.
        options: how the image is cut.
    """

    coords: NDArray[np.int32]
    boxes: NDArray[np.int64]
    skipped: NDArray[np.int64]
    beyond: NDArray[np.int64]
    options: PatchOptions

    def patch(self, number: int, window: NDArray[np.uint8], top: int) -> NDArray[np.uint8]:
        """The pixels (patch_size, patch_size, 3) of a patch, from rows of the image from `top`."""
        options = self.options
        view = options.views[number * len(options.views) // len(self.coords)]
        x0, y0, x1, y1 = self.boxes[number].tolist()
        piece = view_of(window[y0 - top : y1 - top, x0:x1], view)
        right, below = self.beyond[number].tolist()
        if right or below:
            x, y = self.skipped[number].tolist()
            whole = np.pad(piece, ((0, below), (0, right), (0, 0)), mode="symmetric")
            piece = whole[y : y + options.patch_size, x : x + options.patch_size]
        return piece


def lay_cuts(width: int, height: int, options: PatchOptions) -> Cuts:
    """Lay the grid of patches over each view of an image.

    A patch that reaches beyond an edge shows there what is mirrored at the edge.

    Raises:
        ImageError: the image is too small for a patch, or has too many.
    """
    views = [_lay_view(width, height, view, options) for view in options.views]
    coords, boxes, skipped, beyond = (np.concatenate(parts) for parts in zip(*views, strict=True))
    return Cuts(coords.astype(np.int32), boxes, skipped, beyond, options)


def _lay_view(
    width: int, height: int, view: str, options: PatchOptions
) -> Sequence[NDArray[np.int64]]:
    """What `Cuts` needs of one view, of its m patches."""
    # Which row and column of the image each pixel of the view is: strides of 0, no memory.
    rows = view_of(np.broadcast_to(np.arange(height)[:, None], (height, width)), view)
    columns = view_of(np.broadcast_to(np.arange(width), (height, width)), view)
    size = np.array(rows.shape[::-1])  # width and height of the view
    wide, tall = size.tolist()
    coords = grid(wide, tall, options.patch_size, options.stride, options.edge).astype(np.int64)
    ends = coords + options.patch_size
    beyond = np.maximum(ends - size, 0)  # (m, 2)
    # What is mirrored may lie above and left of the patch.
    first = np.where(beyond > 0, np.clip(size - np.maximum(beyond, size - coords), 0, None), coords)
    last = np.minimum(ends, size) - 1
    corners = [(corner[:, 1], corner[:, 0]) for corner in (first, last)]
    x, y = ([index[corner] for corner in corners] for index in (columns, rows))
    left, top = np.minimum(*x), np.minimum(*y)
    right, bottom = np.maximum(*x) + 1, np.maximum(*y) + 1
    boxes = np.stack([left, top, right, bottom], axis=1)  # (m, 4)
    return coords, boxes, coords - first, beyond


def cut_patches(
    picture: Picture, cuts: Cuts, watchers: Sequence[Watcher] = ()
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Cut patches as soon as their last row is there, and hold only rows that are still needed.

    Args:
        picture: the image.
        cuts: its patches.
        watchers: that are shown every band of its pixels.

    Yields:
        The number of each patch, and its pixels (patch_size, patch_size, 3).

    Raises:
        ImageError: the image cannot be read to its end.
    """
    order = np.argsort(cuts.boxes[:, 3], kind="stable")
    tops, bottoms = cuts.boxes[order, 1], cuts.boxes[order, 3]
    needed = np.minimum.accumulate(tops[::-1])[::-1]  # (n,) first row, from here on
    window, top, done = np.empty((0, picture.width, 3), np.uint8), 0, 0
    for band in picture.bands():
        for watch in watchers:
            watch(band)
        window = np.concatenate([window, band]) if len(window) else band
        ready = int(np.searchsorted(bottoms, top + len(window), side="right"))
        for number in order[done:ready].tolist():
            yield number, cuts.patch(number, window, top)
        done = ready
        end = top + len(window)
        keep = min(int(needed[done]), end) if done < len(order) else end
        window, top = window[max(keep - top, 0) :], max(keep, top)

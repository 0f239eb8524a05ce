"""Where the patches of an image are, in which order."""

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.images import ImageError

MAX_PATCHES = 1_000_000
"""Of an image: memory grows with them, 8 KB each."""

EDGE_POLICIES = ("drop", "pad")
"""What happens to pixels right and below that do not fill a patch: left out, or covered by
patches whose missing part mirrors the image."""


def grid(width: int, height: int, patch_size: int, stride: int, edge: str) -> NDArray[np.int32]:
    """Lay a grid of square patches over an image.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        patch_size: side of a patch, in pixels.
        stride: distance between neighbouring patches, in pixels.
        edge: one of `EDGE_POLICIES`.

    Returns:
        (n, 2) x and y of each patch's top-left pixel, row after row from the top, each from the
        left (raster order).

    Raises:
        ImageError: the image is smaller than a patch, and `edge` is `drop`; or it has more than
            `MAX_PATCHES`.
    """
    columns = _starts(width, patch_size, stride, edge)
    rows = _starts(height, patch_size, stride, edge)
    if columns.size == 0 or rows.size == 0:
        raise ImageError(
            f"{width}×{height} pixels, smaller than a patch of {patch_size}: "
            "choose smaller patches, or edge policy `pad`"
        )
    if columns.size * rows.size > MAX_PATCHES:
        raise ImageError(
            f"{width}×{height} pixels have {columns.size * rows.size:,} patches, expected at most "
            f"{MAX_PATCHES:,}: choose a larger stride"
        )
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int32)


def _starts(length: int, patch_size: int, stride: int, edge: str) -> NDArray[np.int64]:
    whole = (length - patch_size) // stride + 1 if length >= patch_size else 0
    covered = (whole - 1) * stride + patch_size if whole else 0
    if edge == "pad" and covered < length and whole * stride < length:
        whole += 1
    return np.arange(whole) * stride

"""An image to an ordered grid of patches."""

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.images import ImageError

SCAN_ORDER = "raster"
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
        ImageError: the image is smaller than a patch, and `edge` is `drop`.
    """
    columns = _starts(width, patch_size, stride, edge)
    rows = _starts(height, patch_size, stride, edge)
    if columns.size == 0 or rows.size == 0:
        raise ImageError(
            f"{width}×{height} pixels, smaller than a patch of {patch_size}: "
            "choose smaller patches, or edge policy `pad`"
        )
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int32)


def _starts(length: int, patch_size: int, stride: int, edge: str) -> NDArray[np.int64]:
    whole = (length - patch_size) // stride + 1 if length >= patch_size else 0
    covered = (whole - 1) * stride + patch_size if whole else 0
    if edge == "pad" and covered < length and whole * stride < length:
        whole += 1
    return np.arange(whole) * stride


def extend(
    image: NDArray[np.uint8], coords: NDArray[np.int32], patch_size: int
) -> NDArray[np.uint8]:
    """Mirror an image beyond its right and lower edge as far as its patches reach.

    Args:
        image: (H, W, 3).
        coords: (n, 2) x and y of each patch's top-left pixel.
        patch_size: side of a patch, in pixels.

    Returns:
        The image itself if its patches lie inside it, else (H', W', 3).
    """
    height, width = image.shape[:2]
    right, below = np.maximum(coords.max(axis=0) + patch_size - (width, height), 0).tolist()
    if not right and not below:
        return image
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")


def cut(image: NDArray[np.uint8], corner: NDArray[np.int32], patch_size: int) -> NDArray[np.uint8]:
    """The patch (patch_size, patch_size, 3) at a top-left pixel (x, y), a view of the image."""
    x, y = corner.tolist()
    return image[y : y + patch_size, x : x + patch_size]

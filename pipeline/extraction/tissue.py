"""Which patches show tissue: a rule of their pixels alone."""

import re

import numpy as np
from numpy.typing import NDArray

MOST_GREEN = 220
"""Both stains take up green light: a pixel with more green is glass."""

LEAST_CHROMA = 16
"""Ink, dust and shadow are grey: their largest and smallest of R, G and B differ by less."""

_ORDER = re.compile(r"raster, tissue >= (0(?:\.[0-9]{1,4})|1\.0)")


def tissue_share(patch: NDArray[np.uint8]) -> float:
    """The share of a patch's pixels (H, W, 3) that are neither glass nor grey."""
    red, green, blue = patch[..., 0], patch[..., 1], patch[..., 2]
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    is_tissue = (green <= MOST_GREEN) & (most - least >= LEAST_CHROMA)
    return float(np.count_nonzero(is_tissue)) / is_tissue.size


def scan_order(min_tissue: float) -> str:
    """The name in a recipe of the patches that are encoded, and of their order."""
    return f"raster, tissue >= {min_tissue}" if min_tissue else "raster"


def min_tissue_of(order: str) -> float:
    """The least share by which patches of a recipe were chosen; 0 if all were."""
    found = _ORDER.fullmatch(order)
    return float(found[1]) if found else 0.0

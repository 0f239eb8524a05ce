"""Coordinates as lengths."""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

MAX_MPP = 1e6
"""Micrometres a pixel; a pixel of a metre is taken for a slip."""


def check_mpp(mpp: float | None) -> None:
    """Check what a user states as the size of a pixel.

    Raises:
        UsageError: it is not a size.
    """
    if mpp is not None and not 0 < mpp < MAX_MPP:
        raise UsageError(f"--mpp {mpp}: expected micrometres a pixel, such as 0.5")


def to_micrometres(coords: NDArray[np.integer], mpp: float) -> NDArray[np.float32]:
    """Pixels (n, 2) as micrometres, `mpp` a pixel."""
    return (coords * np.float64(mpp)).astype(np.float32)


def to_pixels(lengths: NDArray[np.floating], mpp: float) -> NDArray[np.float64]:
    """Micrometres (n, 2) as the nearest whole pixels; what `to_micrometres` was given."""
    return np.rint(lengths.astype(np.float64) / mpp)

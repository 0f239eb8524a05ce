"""Versions of a whole image: turned and mirrored, as tissue has no upright."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_VIEWS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "identity": lambda image: image,
    "flip_x": lambda image: image[:, ::-1],
    "flip_y": lambda image: image[::-1],
    "rot180": lambda image: image[::-1, ::-1],
    "transpose": lambda image: image.swapaxes(0, 1),
    "rot90": lambda image: image.swapaxes(0, 1)[::-1],
    "rot270": lambda image: image[::-1].swapaxes(0, 1),
    "antitranspose": lambda image: image[::-1, ::-1].swapaxes(0, 1),
}

VIEWS = tuple(_VIEWS)
"""As it is; left and right exchanged; top and bottom; both; mirrored at the diagonal from the top
left; a quarter turn against the clock; a quarter turn with it; mirrored at the other diagonal."""


def view_of(image: NDArray[np.uint8], view: str) -> NDArray[np.uint8]:
    """An image (H, W, 3) as one of `VIEWS`: (H, W, 3), or (W, H, 3) for the last four; no copy."""
    return _VIEWS[view](image)


_INVERSE = {"rot90": "rot270", "rot270": "rot90"}


def unview(values: NDArray[np.float64], view: str, *, back: bool = False) -> NDArray[np.float64]:
    """A map (H, W) of an image as one of `VIEWS`, or a map of that view `back` to the image."""
    chosen = _INVERSE.get(view, view) if back else view
    return _VIEWS[chosen](values)  # type: ignore[arg-type,return-value]

"""What the files of each tool say about how their features were made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.exchange.foreign_file import ForeignFileError, number_attribute, text_attribute
from pipeline.exchange.layouts import LAYOUTS
from pipeline.exchange.micrometres import to_pixels


@dataclass(frozen=True)
class Described:
    """How features were made, as far as it is known.

    Attributes:
        encoder: the network's name.
        patch_size: side of a patch, in pixels of the image.
        stride: distance between neighbouring patches, in pixels of the image.
    """

    encoder: str | None = None
    patch_size: int | None = None
    stride: int | None = None


def describe(file: h5py.File, tool: str, mpp: float | None) -> Described:
    """Read what a file says.

    Args:
        file: a file of the tool.
        tool: one of `LAYOUTS`.
        mpp: micrometres a pixel; given for STAMP.

    Raises:
        ForeignFileError: an attribute is not what the tool writes.
    """
    return _DESCRIBE[tool](file, mpp or 1.0)


def _trident(file: h5py.File, mpp: float) -> Described:
    del mpp
    coords = file[LAYOUTS["trident"].coords]
    encoder = text_attribute(file[LAYOUTS["trident"].features], "encoder")
    if encoder in (None, "None"):  # releases before the attribute, and encoders without a name
        folder = Path(file.filename).parent.name
        encoder = folder.removeprefix("features_") if folder.startswith("features_") else None
    size, side = (number_attribute(coords, f"patch_size{end}") for end in ("", "_level0"))
    if side is None or size is None:
        return Described(encoder)
    # The overlap is in pixels of the patch as it was encoded, the rest in those of the image.
    scale = side / size if size else 0.0
    overlap = (number_attribute(coords, "overlap") or 0.0) * scale
    return Described(encoder, _pixels(side, "patch_size_level0"), _pixels(side - overlap, "stride"))


def _clam(file: h5py.File, mpp: float) -> Described:
    del file, mpp
    return Described()


def _stamp(file: h5py.File, mpp: float) -> Described:
    unit = text_attribute(file, "unit")
    if unit != "um":
        raise ForeignFileError(f"attribute unit is {unit!r}, expected 'um': use STAMP 2 or later")
    side = number_attribute(file, "tile_size_um") or number_attribute(file, "tile_size")
    patch_size = None if side is None else _pixels(side / mpp, "tile_size_um")
    return Described(text_attribute(file, "extractor"), patch_size)


_DESCRIBE: dict[str, Callable[[h5py.File, float], Described]] = {
    "trident": _trident,
    "clam": _clam,
    "stamp": _stamp,
}


def _pixels(number: float, what: str) -> int:
    found = round(number)
    if not 1 <= found < 2**31:
        raise ForeignFileError(f"{what} is {number:g} pixels, expected at least 1")
    return found


def as_pixels(coords: NDArray[np.generic], mpp: float | None) -> NDArray[np.int32]:
    """Coordinates as pixels.

    Args:
        coords: (n, 2), whole pixels if `mpp` is None, else micrometres.
        mpp: micrometres a pixel.

    Raises:
        ForeignFileError: one is not finite, not whole or out of range.
    """
    with np.errstate(invalid="ignore"):
        found = coords.astype(np.float64) if mpp is None else to_pixels(coords, mpp)  # type: ignore[arg-type]
        inside = (found >= 0) & (found < 2**31) & (found == np.rint(found))
    if not inside.all():
        wrong = found[~inside.all(axis=1)][0]
        raise ForeignFileError(
            f"a patch lies at ({wrong[0]:g}, {wrong[1]:g}), expected whole pixels from 0 on"
        )
    return found.astype(np.int32)

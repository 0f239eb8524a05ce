"""Open an image file, or say why it cannot be used."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.errors import PipelineError

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused from their header, before anything is decoded."""

MIN_SIDE = 32
"""The least width and height: VGG16 halves its input five times, so less leaves no position."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""File name endings of images, in lower case."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

# What Pillow's readers raise on damaged files, besides `UnidentifiedImageError`.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError),
    struct.error,
)

# Pillow's own limit only warns up to twice its value; `_check_header` is stricter and per file.
Image.MAX_IMAGE_PIXELS = None


class ImageError(PipelineError):
    """One image cannot be used; the message is the reason, without the file's name."""


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file.

    Args:
        data: the content of a PNG, JPEG, TIFF or BMP file.

    Returns:
        Pixels (H, W, 3), RGB, 0 to 255. Embedded colour profiles and orientations are ignored.

    Raises:
        ImageError: the file is empty, damaged, too large or too small, or not 8-bit RGB.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes): copy it again")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_header(image)
            return np.asarray(image)
    except UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG, TIFF or BMP image, whatever its name says") from None
    except _DAMAGE as error:
        raise ImageError(f"damaged image ({error}): copy it again") from error


def _check_header(image: ImageFile.ImageFile) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width}×{height} pixels, expected at most {MAX_PIXELS:,}: cut it into smaller images"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}×{height} pixels, expected at least {MIN_SIDE} a side")
    pages = getattr(image, "n_frames", 1)
    if pages != 1:
        raise ImageError(f"{pages} pages or frames, expected one image: save each in its own file")
    found = _pixel_type(image)
    if found != "RGB":
        raise ImageError(
            f"pixels are {_TYPE_NAMES.get(found, found)}, expected 8-bit RGB: "
            "convert the image, so that its colours are your choice"
        )


def _pixel_type(image: ImageFile.ImageFile) -> str:
    """Pillow's mode, except that 16 bits a channel, which it halves silently, are told apart."""
    if image.mode == "RGB" and any(";16" in str(tile.args) for tile in image.tile):
        return "RGB;16"
    return image.mode


_TYPE_NAMES = {
    "1": "black and white",
    "L": "8-bit grey",
    "LA": "grey with transparency",
    "P": "indexed in a palette",
    "RGB;16": "16-bit RGB",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
    "I": "32-bit grey",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "F": "floating-point grey",
}

"""Decode an image file whole, or say why it cannot be used."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.ahead import Budget
from pipeline.dataset.bare import bare
from pipeline.dataset.image_error import ImageError as ImageError  # one place to import it from
from pipeline.user_file import file_problem

MAX_BYTES = 1 << 27
"""Larger files are not read whole."""

MAX_PIXELS = 100_000_000
"""Images with more pixels are not decoded whole, which is known from their header."""

MIN_SIDE = 32
"""The least width and height: VGG16 halves its input five times, so less leaves no position."""

MAX_PIXELS_A_BYTE = 1000
"""No compression gives more, unless the pixels are blank and the method made for such."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""File name endings of images, in lower case."""

_PART_PIXELS = 1 << 22

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

# What Pillow's readers raise on damaged files, besides `UnidentifiedImageError`.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError),
    struct.error,
)

# Pillow's own limit only warns up to twice its value; `check_dimensions` is stricter and per file.
Image.MAX_IMAGE_PIXELS = None


# Of all threads together, so that memory does not grow with their number: a decoder needs up to
# 10 bytes a pixel for a moment.
_content = Budget(MAX_BYTES)
_decoding = Budget(MAX_PIXELS)


class TooLargeError(ImageError):
    """The image is too large to be decoded whole."""


@contextmanager
def image_content(file: Path) -> Iterator[bytes]:
    """The bytes of an image file, for as long as the block lasts.

    Raises:
        ImageError: it is not a file, too large, or cannot be read.
    """
    check_image_file(file, MAX_BYTES)
    try:
        with file.open("rb") as opened:
            size = min(os.fstat(opened.fileno()).st_size, MAX_BYTES)
            with _content.reserve(size):
                yield opened.read(size)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error


def check_image_file(file: Path, most: int) -> None:
    """Refuse what is not a file of at most `most` bytes, without opening it.

    Raises:
        ImageError: it is not.
    """
    problem = file_problem(file, most)
    if problem:
        advice = "cut it into images" if "expected at most" in problem else "correct the path"
        raise ImageError(f"{problem}: {advice}, or copy the file again")


def decode(
    data: bytes, size: tuple[int, int] | None = None, most: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode an image file.

    Args:
        data: the content of a PNG, JPEG, TIFF or BMP file.
        size: width and height that it is said to have.
        most: pixels that it may have, at most `MAX_PIXELS`.

    Returns:
        Pixels (H, W, 3), RGB, 0 to 255. Embedded colour profiles and orientations are ignored.

    Raises:
        TooLargeError: it has more pixels.
        ImageError: the file is empty, damaged, too small, of another size than it is said to be,
            of several pages, or not 8-bit RGB.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes): copy it again")
    try:
        with Image.open(io.BytesIO(bare(data)), formats=_FORMATS) as image:
            check_dimensions(image.size, len(data), min(most, MAX_PIXELS))
            check_type(_pixel_type(image))
            check_size(image.size, size)
            with _decoding.reserve(image.width * image.height):
                return _pixels(image)
    except UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG, TIFF or BMP image, whatever its name says") from None
    except _DAMAGE as error:
        raise ImageError(f"damaged image ({error}): copy it again") from error


def _pixels(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """Decode, with one copy of a part at a time; Pillow alone would make three of the whole."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _PART_PIXELS // width)
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = np.asarray(part)
    return pixels


def check_digest(found: str, said: str) -> None:
    """Refuse a file that is not the one it is said to be, if that is said.

    Raises:
        ImageError: it is another one.
    """
    if said not in ("", found):
        raise ImageError(
            f"content changed since it was indexed (SHA-256 {found[:12]}…, "
            f"manifest {said[:12]}…): index the data set again"
        )


def check_size(found: tuple[int, int], said: tuple[int, int] | None) -> None:
    """Refuse an image of another width and height than it is said to have, if that is said.

    Raises:
        ImageError: it is of another.
    """
    if said is not None and found != said:
        raise ImageError(
            f"{found[0]}×{found[1]} pixels, but {said[0]}×{said[1]} in the manifest: "
            "index the data set again"
        )


def check_dimensions(size: tuple[int, int], file_bytes: int, most: int) -> None:
    """Refuse an image of too many pixels, in all, or for the bytes of its file, or too few.

    Raises:
        TooLargeError: it has more than `most` pixels.
        ImageError: its sides are too short, or the file cannot hold so many pixels.
    """
    width, height = size
    if width * height > most:
        raise TooLargeError(
            f"{width}×{height} pixels, expected at most {most:,}: cut it into smaller images"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}×{height} pixels, expected at least {MIN_SIDE} a side")
    if width * height > MAX_PIXELS_A_BYTE * file_bytes:
        raise ImageError(
            f"{width}×{height} pixels in {file_bytes:,} bytes: cut short, or made to fill the "
            "memory: copy it again"
        )


def check_type(found: str) -> None:
    """Refuse pixels that are not 8-bit RGB, which is called `RGB`.

    Raises:
        ImageError: they are not.
    """
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

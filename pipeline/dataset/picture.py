"""Open an image of any size: whole where it is small enough, else to be read band by band."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.images import (
    MAX_BYTES,
    MAX_PIXELS,
    TooLargeError,
    check_digest,
    decode,
    image_content,
)
from pipeline.dataset.large_images import open_large

Size = tuple[int, int]


class Picture(Protocol):
    """The pixels of an image, however they are held."""

    @property
    def sha256(self) -> str:
        """SHA-256 of its file."""

    @property
    def width(self) -> int:
        """Of the image, in pixels."""

    @property
    def height(self) -> int:
        """Of the image, in pixels."""

    def bands(self) -> Iterator[NDArray[np.uint8]]:
        """The pixels from top to bottom, (h, W, 3) each, RGB, 0 to 255.

        Raises:
            ImageError: they cannot be read.
        """


class WholePicture:
    """An image that was decoded: pixels (H, W, 3)."""

    def __init__(self, pixels: NDArray[np.uint8], sha256: str) -> None:
        self.pixels, self.sha256 = pixels, sha256
        self.height, self.width = pixels.shape[:2]

    def bands(self) -> Iterator[NDArray[np.uint8]]:
        """All pixels at once."""
        yield self.pixels


def open_picture(path: Path, sha256: str = "", said: Size | None = None) -> Picture:
    """Open an image file.

    Args:
        path: the file.
        sha256: that it is said to have; empty if nothing is said.
        said: width and height that it is said to have.

    Raises:
        ImageError: it cannot be used, or is another file.
    """
    if not is_large(path, said):
        with suppress(TooLargeError):
            return whole_picture(path, sha256, said)
    return open_large(path, sha256, said)


def is_large(path: Path, said: Size | None) -> bool:
    """Whether an image is not even tried to be decoded whole."""
    if said is not None and said[0] * said[1] > MAX_PIXELS:
        return True
    try:
        return path.stat().st_size > MAX_BYTES
    except (OSError, ValueError):
        return False  # who opens it says why


def whole_picture(path: Path, sha256: str = "", said: Size | None = None) -> WholePicture:
    """Decode an image file whole; see `open_picture`.

    Raises:
        TooLargeError: it has more pixels than are decoded whole.
        ImageError: it cannot be used, or is another file.
    """
    with image_content(path) as data:
        return decoded_picture(data, sha256=sha256, said=said)


def decoded_picture(
    data: bytes, most: int = MAX_PIXELS, sha256: str = "", said: Size | None = None
) -> WholePicture:
    """Decode the bytes of an image file of at most `most` pixels; see `open_picture`.

    Raises:
        TooLargeError: it has more pixels.
        ImageError: it cannot be used, or is another file.
    """
    found = hashlib.sha256(data).hexdigest()
    check_digest(found, sha256)
    return WholePicture(decode(data, said, most), found)

"""Read an image that is too large to be decoded whole, band by band, with libvips."""

import hashlib
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.bare import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    START_OF_SCAN,
    TIFF_SIGNATURES,
    check_tiff,
    jpeg_segments,
    png_chunks,
)
from pipeline.dataset.images import (
    ImageError,
    check_digest,
    check_dimensions,
    check_image_file,
    check_size,
    check_type,
)
from pipeline.user_file import printable

MAX_LARGE_BYTES = 1 << 32
"""Larger files are refused: 400 megapixels have 1.2 GB, and their pyramid a third more."""

MAX_LARGE_PIXELS = 400_000_000
"""Images with more pixels are refused: 20,000 × 20,000."""

_BAND_BYTES = 1 << 24

_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_SEQUENTIAL = frozenset({0xC0, 0xC1})
_PNG_RGB = struct.pack(">BBBBB", 8, 2, 0, 0, 0)
_PHOTOMETRIC, _RGB, _YCBCR = 262, 2, 6
_COMPRESSION, _JPEG = 259, 7


@dataclass(frozen=True)
class LargeImage:
    """An image whose pixels are read anew each time they are asked for.

    Attributes:
        path: of the file.
        loader: the name of libvips's function that reads it.
        sha256: of the file.
        width: in pixels.
        height: in pixels.
        state: what tells that the file is still the one that the digest is of.
    """

    path: Path
    loader: str
    sha256: str
    width: int
    height: int
    state: tuple[int, ...]

    def bands(self) -> Iterator[NDArray[np.uint8]]:
        """The pixels from top to bottom, (h, W, 3) each.

        Raises:
            ImageError: the file is damaged, or was changed since it was opened.
        """
        rows = max(1, _BAND_BYTES // (3 * self.width))
        with _named_damage():
            region = _vips().Region.new(_load(self.path, self.loader))
            for top in range(0, self.height, rows):
                height = min(rows, self.height - top)
                content = region.fetch(0, top, self.width, height)
                yield np.frombuffer(content, np.uint8).reshape(height, self.width, 3)
            if _state(self.path) != self.state:
                raise ImageError("the file changed while it was read: run again")


def open_large(path: Path, sha256: str = "", said: tuple[int, int] | None = None) -> LargeImage:
    """Open an image of any size up to `MAX_LARGE_PIXELS`, without decoding it.

    Args:
        path: a PNG or JPEG file that can be read from top to bottom, or a TIFF file.
        sha256: that the file is said to have; empty if nothing is said.
        said: width and height that it is said to have.

    Raises:
        ImageError: it cannot be used, or is another file.
    """
    check_image_file(path, MAX_LARGE_BYTES)
    with _named_damage(), path.open("rb") as file:
        state = _state(path)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        check_digest(digest, sha256)
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            loader = _check_structure(content)
            size = len(content)
        header = _load(path, loader)
        check_dimensions((header.width, header.height), size, MAX_LARGE_PIXELS)
        check_type("RGB" if header.bands == 3 and header.format == "uchar" else _type(header))
        check_size((header.width, header.height), said)
        return LargeImage(path, loader, digest, header.width, header.height, state)


def _check_structure(content: mmap) -> str:
    """Check what libvips would take but must not; the name of the function that reads it."""
    for signatures, check, loader in _FORMATS:
        if content[:8].startswith(signatures):
            check(content)
            return loader
    raise ImageError("not a PNG, JPEG or TIFF image, which images as large as this must be")


def _check_png(content: mmap) -> None:
    for _ in png_chunks(content):
        pass
    if content[24:29] != _PNG_RGB:
        if content[28] == 1:
            raise ImageError(f"an interlaced PNG of such a size {_WHOLE_ONLY}")
        raise ImageError("pixels are not 8-bit RGB: convert the image")


def _check_jpeg(content: mmap) -> None:
    components = 0
    for code, _, segment in jpeg_segments(content):
        if code in _JPEG_FRAMES:
            components = segment[7]
            if code not in _JPEG_SEQUENTIAL:
                raise ImageError(f"a progressive JPEG of such a size {_WHOLE_ONLY}")
        if code == START_OF_SCAN and segment[2] != components:
            raise ImageError(f"a JPEG of several scans and such a size {_WHOLE_ONLY}")


def _check_tiff(content: mmap) -> None:
    _, directory = check_tiff(content)
    colours, compression = (
        directory[tag].first if tag in directory else 0 for tag in (_PHOTOMETRIC, _COMPRESSION)
    )
    # JPEG's own decoder gives RGB; of others, libvips would take YCbCr as it is.
    if colours != _RGB and (colours, compression) != (_YCBCR, _JPEG):
        raise ImageError(
            f"TIFF with photometric interpretation {colours} and compression {compression}, "
            "expected RGB: convert the image, so that its colours are your choice"
        )


_WHOLE_ONLY = "can only be decoded whole: save it as a tiled TIFF"

_FORMATS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[mmap], None], str], ...] = (
    (PNG_SIGNATURE, _check_png, "pngload"),
    (JPEG_SIGNATURE, _check_jpeg, "jpegload"),
    (TIFF_SIGNATURES, _check_tiff, "tiffload"),
)


def _type(header: Any) -> str:  # noqa: ANN401 - pyvips declares no types
    return f"{header.format} of {header.bands} channels"


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _load(path: Path, loader: str) -> Any:  # noqa: ANN401 - pyvips declares no types
    # Through a function of one format: libvips knows others that run other programs.
    load = getattr(_vips().Image, loader)
    return load(str(path), access="sequential", fail_on="error")


@contextmanager
def _named_damage() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error
    except (ValueError, struct.error, LookupError, OverflowError) as error:
        raise ImageError(f"damaged image ({printable(str(error))}): copy it again") from error
    except _vips().Error as error:
        reason = printable(" ".join(str(error).split()))
        raise ImageError(f"damaged image ({reason}): copy it again") from error


@cache
def _vips() -> ModuleType:
    try:
        import pyvips
    except (ImportError, OSError) as error:  # OSError: the package without its library
        reason = printable(str(error))
        raise ImageError(
            f'an image of such a size needs libvips ({reason}): pip install "pyvips[binary]"'
        ) from error
    logging.getLogger("pyvips").setLevel(logging.CRITICAL)
    pyvips.cache_set_max(0)  # a file of the same name may be another one
    found: ModuleType = pyvips
    return found

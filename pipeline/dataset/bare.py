"""Reduce an image file to what its pixels need, before a decoder sees it.

Metadata is where small files do large damage: millions of empty chunks, thumbnails within
thumbnails, directories that claim the same bytes again and again. It does not change a pixel, so
it is left out, unread. What is kept is bounded in number; its content is the decoder's to check.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from mmap import mmap
from typing import NamedTuple

from pipeline.dataset.image_error import ImageError

MAX_CHUNKS = 200_000
"""Chunks of a PNG file: 100 megapixels in pieces of 2 KiB have as many."""

MAX_SEGMENTS = 2000
"""Segments of a JPEG file before its first scan."""

MAX_SCANS = 100
"""Scans of a JPEG file: each is a pass over all pixels, however few its bytes."""

MAX_VALUES = 200_000
"""Values of one TIFF tag: strips or tiles, mostly."""

MAX_TILE_SIDE = 4096
"""Side of a TIFF tile in pixels, unless the image itself is longer."""

MAX_LEVELS = 64
"""Pages of a TIFF file: levels of a pyramid, a thumbnail, a label."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_ANCILLARY = 0x20
"""Bit of the first letter of a PNG chunk that a decoder may pass over."""

START_OF_SCAN = 0xDA

_JPEG_FILL = re.compile(rb"\xff+")
_JPEG_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
"""Codes without a length: stuffing, TEM, restarts, start of image."""
_JPEG_KEPT = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD})
"""Frame, tables, number of lines, restart interval."""
_JPEG_NAMED = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
"""The two application segments that say how colours are stored."""

_TIFF_KEPT = frozenset(
    {
        *(254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320),
        *(322, 323, 324, 325, 332, 334, 338, 339, 347),
        *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
    }
)
"""Baseline and extension tags that say how the pixels are stored; those of colour and layout."""
_TIFF_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)) | {16: 8, 17: 8, 18: 8}
_TIFF_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}
_SUBFILE, _REDUCED = 254, 1
_WIDTH, _HEIGHT, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 278, 322, 323
_STRIP_TAGS, _TILE_TAGS = (273, 279), (324, 325)
_MAX_PLANES = 6

Content = bytes | mmap
"""Of a file, read or mapped."""


def bare(data: bytes) -> bytes:
    """Give an image file without its metadata; a file of another format as it is.

    Of a pyramid, which holds one image at several resolutions, the first and largest is kept.

    Raises:
        ImageError: it has several pages or frames.
        ValueError: its structure is damaged, or beyond all bounds.
    """
    try:
        if data.startswith(PNG_SIGNATURE):
            return _bare_png(data)
        if data.startswith(JPEG_SIGNATURE):
            return _bare_jpeg(data)
        if data[:4] in TIFF_SIGNATURES:
            return _bare_tiff(data)
    except (struct.error, OverflowError) as error:
        raise ValueError("it is cut short, or points beyond its end") from error
    return data


def _several_pages() -> ImageError:
    return ImageError("several pages or frames, expected one image: save each in its own file")


def _bare_png(data: bytes) -> bytes:
    view, kept, end = memoryview(data), [memoryview(PNG_SIGNATURE)], len(PNG_SIGNATURE)
    for kind, at, end in png_chunks(data):
        if kind in _PNG_KEPT:
            kept.append(view[at:end])
        if kind == b"IEND":
            return b"".join(kept)
    return b"".join([*kept, view[end:]])


def png_chunks(data: Content) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG file: the kind of each, where it begins and where it ends.

    Raises:
        ImageError: it is animated.
        ValueError: it has too many chunks, or one that no PNG has.
    """
    at = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if len(data) - at < 8:
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in _PNG_KEPT and not kind[0] & _ANCILLARY:
            raise ValueError(f"a chunk {kind!r} that no PNG has")
        if kind == b"acTL" and data[at + 8 : at + 12] != b"\0\0\0\1":
            raise _several_pages()
        yield kind, at, at + 12 + length
        if kind == b"IEND":
            return
        at += 12 + length
    raise ValueError(f"more than {MAX_CHUNKS:,} chunks")


def _bare_jpeg(data: bytes) -> bytes:
    kept = [b"\xff\xd8"]
    for code, at, segment in jpeg_segments(data):
        if code == START_OF_SCAN:
            return b"".join([*kept, b"\xff\xda", _scans(data, at)])
        if code in _JPEG_KEPT or segment[2:].startswith(_JPEG_NAMED.get(code, b"\0none")):
            kept.append(bytes([0xFF, code]) + segment)
    raise ValueError("it ends before its pixels")


def jpeg_segments(data: Content) -> Iterator[tuple[int, int, bytes]]:
    """The segments of a JPEG file up to its first scan: code, where it begins, content.

    The content begins with its own length, in two bytes.

    Raises:
        ImageError: it holds several images.
        ValueError: it has too many segments, or ends before its pixels.
    """
    at = 2
    for _ in range(MAX_SEGMENTS):
        at = data.find(b"\xff", at)  # passes over junk, as decoders do
        fill = _JPEG_FILL.match(data, at) if at >= 0 else None
        if fill is None or fill.end() == len(data):
            raise ValueError("it ends before its pixels")
        at, code = fill.end() + 1, data[fill.end()]
        if code in _JPEG_ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        segment = data[at : at + length]
        if code == 0xE2 and segment[2:].startswith(b"MPF\0"):
            raise _several_pages()
        yield code, at, segment
        if code == START_OF_SCAN:
            return
        at += max(length, 2)
    raise ValueError(f"more than {MAX_SEGMENTS:,} segments before its pixels")


def _scans(data: bytes, start: int) -> memoryview:
    # Within coded pixels, a byte FF is followed by 00 or a marker.
    scans = 1 + data.count(b"\xff\xda", start)
    if scans > MAX_SCANS:
        raise ValueError(f"{scans} scans, expected at most {MAX_SCANS}")
    return memoryview(data)[start:]


class _Layout(NamedTuple):
    """How numbers and directories of a TIFF file are written: `struct` formats, and bytes."""

    order: str
    number: str
    entry: str
    offset: str
    offset_at: int
    inline: int


class _Entry(NamedTuple):
    """An entry of a directory as it is in the file, its number of values and the first."""

    raw: bytes
    values: int
    first: int


def _bare_tiff(data: bytes) -> bytes:
    layout, directory = check_tiff(data)
    padded = data + b"\0" * (-len(data) % 8)
    written = [
        struct.pack(layout.order + layout.number, len(directory)),
        *(entry.raw for _, entry in sorted(directory.items())),
        struct.pack(layout.order + layout.offset, 0),
    ]
    start = struct.pack(layout.order + layout.offset, len(padded))
    head, rest = padded[: layout.offset_at], memoryview(padded)[layout.offset_at + len(start) :]
    return b"".join([head, start, rest, *written])


def check_tiff(data: Content) -> tuple[_Layout, Mapping[int, _Entry]]:
    """Check the structure of a TIFF file: how it is written, and its first directory.

    Raises:
        ImageError: it has several pages that are not levels of one pyramid.
        ValueError: its structure is damaged, or beyond all bounds.
        struct.error: it points beyond its end.
    """
    order = "<" if data[:2] == b"II" else ">"
    classic = _Layout(order, "H", "HHI", "I", 4, 4)
    layout = classic if b"*" in data[:4] else _Layout(order, "Q", "HHQ", "Q", 8, 8)
    first, *others = _directories(data, layout)
    _check_tiff_layout(first)
    if not all(_is_reduced(other, first) for other in others):
        raise _several_pages()
    return layout, first


def _directories(data: Content, layout: _Layout) -> Iterator[Mapping[int, _Entry]]:
    (at,) = struct.unpack_from(layout.order + layout.offset, data, layout.offset_at)
    seen: set[int] = set()
    while not seen or at:
        if at in seen or len(seen) == MAX_LEVELS:
            raise ValueError(f"its pages are in a circle, or more than {MAX_LEVELS}")
        seen.add(at)
        entries, at = _directory(data, layout, at)
        yield dict(entries)


def _is_reduced(page: Mapping[int, _Entry], first: Mapping[int, _Entry]) -> bool:
    """Whether a page says that it is the first at a lower resolution, or has its proportions."""
    if _SUBFILE in page and page[_SUBFILE].first & _REDUCED:
        return True
    (width, height), (across, down) = _size_of(page), _size_of(first)
    # Each side of a level is rounded, or cut, to whole pixels.
    return 0 < width < across and abs(width * down - height * across) <= across + down


def _directory(data: Content, layout: _Layout, at: int) -> tuple[Iterator[tuple[int, _Entry]], int]:
    """The entries of a directory that say how pixels are stored, and where the next one is."""
    (entries,) = struct.unpack_from(layout.order + layout.number, data, at)
    at += struct.calcsize("=" + layout.number)
    size = struct.calcsize("=" + layout.entry) + layout.inline
    (following,) = struct.unpack_from(layout.order + layout.offset, data, at + entries * size)
    if entries > 0xFFFF:
        raise ValueError(f"{entries} tags")
    return _kept_entries(data, layout, range(at, at + entries * size, size)), following


def _kept_entries(data: Content, layout: _Layout, starts: range) -> Iterator[tuple[int, _Entry]]:
    """The entries that begin at `starts` and say how pixels are stored, each tag once."""
    seen: set[int] = set()
    for start in starts:
        tag, kind, count = struct.unpack_from(layout.order + layout.entry, data, start)
        if tag not in _TIFF_KEPT:
            continue
        if tag in seen:
            raise ValueError(f"tag {tag} is there twice")
        seen.add(tag)
        value_at = start + starts.step - layout.inline
        first = _first_value(data, layout, value_at, (tag, kind, count))
        yield tag, _Entry(data[start : start + starts.step], count, first)


def _first_value(data: Content, layout: _Layout, at: int, entry: tuple[int, int, int]) -> int:
    """The first value of an entry if it is a whole number, else 0; all of them must be there."""
    tag, kind, count = entry
    if kind not in _TIFF_SIZES or not 1 <= count <= MAX_VALUES:
        raise ValueError(f"tag {tag} has {count} values of type {kind}")
    if count * _TIFF_SIZES[kind] > layout.inline:
        (at,) = struct.unpack_from(layout.order + layout.offset, data, at)
    if at + count * _TIFF_SIZES[kind] > len(data):
        raise ValueError(f"tag {tag} lies beyond the end of the file")
    if kind not in _TIFF_WHOLE:
        return 0
    first: int = struct.unpack_from(layout.order + _TIFF_WHOLE[kind], data, at)[0]
    return first


def _check_tiff_layout(entries: Mapping[int, _Entry]) -> None:
    """Check that tiles are not much larger than the image, and no more than cover it."""
    width, height = _size_of(entries)
    if not width or not height:
        raise ValueError("it does not say how large it is")
    rows = _first_of(entries, _ROWS_PER_STRIP) or height
    _check_parts(entries, _STRIP_TAGS, -(-height // rows))
    if not entries.keys() & {*_TILE_TAGS, _TILE_WIDTH, _TILE_HEIGHT}:
        return
    across, down = _first_of(entries, _TILE_WIDTH), _first_of(entries, _TILE_HEIGHT)
    if not (0 < across <= max(width, MAX_TILE_SIDE) and 0 < down <= max(height, MAX_TILE_SIDE)):
        raise ValueError(f"tiles of {across}×{down} pixels in an image of {width}×{height}")
    _check_parts(entries, _TILE_TAGS, -(-width // across) * -(-height // down))


def _size_of(entries: Mapping[int, _Entry]) -> tuple[int, int]:
    return _first_of(entries, _WIDTH), _first_of(entries, _HEIGHT)


def _first_of(entries: Mapping[int, _Entry], tag: int) -> int:
    return entries[tag].first if tag in entries else 0


def _check_parts(entries: Mapping[int, _Entry], tags: tuple[int, int], expected: int) -> None:
    for tag in tags:
        if tag in entries and entries[tag].values > expected * _MAX_PLANES:
            raise ValueError(f"tag {tag} has {entries[tag].values} values, expected {expected}")

"""Image files made to cost far more than they weigh, by name: each a few megabytes at most."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

MEGABYTE = 1 << 20


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    head = struct.pack(">I", len(content)) + kind + content
    return head + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, before: bytes = b"", pixels: bytes | None = None) -> bytes:
    """A PNG file of black pixels, or of the compressed `pixels`, with chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    if pixels is None:
        pixels = chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width)), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + chunk(b"IEND")


def black_png(width: int, height: int) -> bytes:
    """A PNG file of black pixels, made without the memory for them."""
    packer, line = zlib.compressobj(9), bytes(1 + 3 * width)
    packed = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    return png(width, height, pixels=chunk(b"IDAT", packed))


def jpeg(width: int = 64, height: int = 64, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "purple").save(file, "JPEG", **options)
    return file.getvalue()


def segment(code: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def jpeg_with(before: bytes) -> bytes:
    data = jpeg()
    return data[:2] + before + data[2:]


def many_scans(count: int, side: int) -> bytes:
    """A progressive JPEG file whose last scan is there again and again."""
    data = jpeg(side, side, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


Tags = list[tuple[int, int, int, int]]


def tiff(tags: Tags, body: bytes = b"", following: int = 0) -> bytes:
    """A TIFF file: tag, type, count, and value or offset; the body starts at byte 8."""
    start = 8 + len(body)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return struct.pack("<2sHI", b"II", 42, start) + body + directory


def plain_tags(width: int, height: int, **values: int) -> Tags:
    """Tags of an RGB image in one strip that begins at byte 8, three times 8 bits before it."""
    found = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 3, 8),
        259: (3, 1, values.get("compression", 1)),
        262: (3, 1, 2),
        273: (4, 1, 14),
        277: (3, 1, 3),
        278: (4, 1, values.get("rows", height)),
        279: (4, 1, values.get("size", 3 * width * height)),
        284: (3, 1, 1),
    }
    return [(tag, *entry) for tag, entry in sorted(found.items())]


BITS = struct.pack("<3H", 8, 8, 8)


def plain_tiff(side: int = 64, extra: Tags | None = None, following: int = 0) -> bytes:
    tags = sorted(plain_tags(side, side) + (extra or []))
    return tiff(tags, BITS + bytes(3 * side * side), following)


def greedy_tags(claimed: int, first: int = 700) -> Tags:
    """Tags that each claim the same bytes from byte 8 on."""
    return [(tag, 7, claimed, 8) for tag in range(first, 65535)]


def hidden_directory(pointer: int) -> bytes:
    """A TIFF file with a second directory, not of pages, whose tags claim the same megabyte."""
    body = BITS + bytes(3 * 64 * 64) + bytes(MEGABYTE)
    tags = greedy_tags(MEGABYTE)
    inner = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    place = 8 + len(body)
    return tiff(sorted([*plain_tags(64, 64), (pointer, 4, 1, place)]), body + inner + bytes(4))


def chained_tiff(pages: int) -> bytes:
    """A TIFF file of many empty pages behind its image."""
    body = BITS + bytes(3 * 64 * 64)
    at = 8 + len(body)
    page = b"".join(
        struct.pack("<HHHIII", 1, 256, 4, 1, 64, at + 18 * (i + 1)) for i in range(pages)
    )
    return tiff(plain_tags(64, 64), body + page, at)


def strips(count: int) -> bytes:
    """A TIFF file whose strips are all the same half of an image."""
    side = 1024
    body = BITS + struct.pack(f"<{count}I", *[14] * count) + bytes(3 * side * side)
    tags = {tag[0]: tag for tag in plain_tags(side, side, rows=side // 2)}
    tags[273] = (273, 4, count, 14)
    tags[279] = (279, 4, count, 14)
    return tiff(sorted(tags.values()), body)


def tiles(width: int, height: int, packed: bytes = b"", side: int = 64) -> bytes:
    """A TIFF file of one compressed tile."""
    body = BITS + packed
    tags = [tag for tag in plain_tags(side, side, compression=8) if tag[0] not in (273, 278, 279)]
    tags += [(322, 4, 1, width), (323, 4, 1, height), (324, 4, 1, 14), (325, 4, 1, len(packed))]
    return tiff(sorted(tags), body)


def packed_tiff(side: int, compression: int) -> bytes:
    """A TIFF file of black pixels in one compressed strip."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(3 * side)) for _ in range(side)) + packer.flush()
    return tiff(plain_tags(side, side, compression=compression, size=len(packed)), BITS + packed)


def big_tiff(entries: int) -> bytes:
    return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, entries) + bytes(100_000)


def bmp(width: int, height: int, header: int = 40, colours: int = 0, bits: int = 24) -> bytes:
    start = struct.pack("<2sIHHI", b"BM", 100, 0, 0, 14 + 40)
    fields = (header, width, height, 1, bits, 0, 0, 0, 0, colours, 0)
    return start + struct.pack("<IiiHHIIiiII", *fields) + bytes(100)


def saved_tiff(**options: object) -> bytes:
    file = io.BytesIO()
    pixels = np.zeros((6000, 6000, 3), np.uint8)
    Image.fromarray(pixels).save(file, "TIFF", **options)
    return file.getvalue()


BOMB = zlib.compress(bytes(64 * MEGABYTE), 9)
EXIF = b"Exif\0\0" + tiff([(tag, 7, 60_000, 8) for tag in range(700, 5700)])[:65_000]

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "png: 100 megapixels in 100 bytes": (
        lambda: png(10_000, 10_000, pixels=chunk(b"IDAT", b"x")),
        "cut short",
    ),
    "png: four gigapixels": (lambda: png(65_536, 65_536, pixels=b""), "expected at most"),
    "png: the largest sides": (lambda: png(2**31 - 1, 2**31 - 1, pixels=b""), "expected at most"),
    "png: a strip 3 million wide": (lambda: black_png(3_000_000, 32), ""),
    "png: 90 black megapixels": (lambda: black_png(9_500, 9_500), ""),
    "png: a million comments": (
        lambda: png(64, 64, chunk(b"tEXt", b"a\0b") * 1_000_000),
        "more than 200,000 chunks",
    ),
    "png: a million private chunks": (
        lambda: png(64, 64, chunk(b"prVt") * 1_000_000),
        "more than 200,000 chunks",
    ),
    "png: unknown critical chunks": (lambda: png(64, 64, chunk(b"ABCD") * 1000), "ABCD"),
    "png: pixels in a million pieces": (
        lambda: png(64, 64, pixels=chunk(b"IDAT") * 1_000_000),
        "more than 200,000 chunks",
    ),
    "png: 60 comments that expand to 64 MB": (
        lambda: png(64, 64, chunk(b"zTXt", b"a\0\0" + BOMB) * 60),
        "",
    ),
    "png: a profile that expands to 64 MB": (
        lambda: png(64, 64, chunk(b"iCCP", b"a\0\0" + BOMB)),
        "",
    ),
    "png: pixels that expand to 64 MB": (
        lambda: png(64, 64, pixels=chunk(b"IDAT", BOMB)),
        "",
    ),
    "png: a million frames": (
        lambda: png(64, 64, chunk(b"acTL", struct.pack(">II", 1_000_000, 0))),
        "several pages",
    ),
    "png: a chunk longer than the file": (
        lambda: png(64, 64, struct.pack(">I4s", 2**31 - 1, b"tEXt")),
        "refused",
    ),
    "jpeg: a million comments": (
        lambda: jpeg_with(segment(0xFE) * 1_000_000),
        "more than 2,000 segments",
    ),
    "jpeg: a million tables": (
        lambda: jpeg_with(segment(0xDB) * 1_000_000),
        "more than 2,000 segments",
    ),
    "jpeg: restarts before the image": (
        lambda: jpeg_with(b"\xff\xd0" * 1_000_000),
        "more than 2,000 segments",
    ),
    "jpeg: filling": (lambda: jpeg_with(b"\xff" * 30_000_000), ""),
    "jpeg: junk": (lambda: jpeg_with(segment(0xFE) + b"j" * 30_000_000), ""),
    "jpeg: metadata that claims itself": (lambda: jpeg_with(segment(0xE1, EXIF) * 1500), ""),
    "jpeg: ten thousand scans": (lambda: many_scans(10_000, 512), "scans, expected at most"),
    "jpeg: a hundred scans of 16 megapixels": (lambda: many_scans(80, 4000), ""),
    "jpeg: four gigapixels in a header": (
        lambda: jpeg().replace(struct.pack(">HH", 64, 64), b"\xff\xff\xff\xff", 1),
        "expected at most",
    ),
    "jpeg: 90 megapixels in a header": (
        lambda: jpeg().replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 9500, 9500), 1),
        "cut short",
    ),
    "jpeg: no image": (lambda: b"\xff\xd8" + segment(0xE0, b"JFIF\0") * 100, "before its pixels"),
    "tiff: a page that follows itself": (
        lambda: plain_tiff(following=8 + 6 + 3 * 64 * 64),
        "in a circle, or more than 64",
    ),
    "tiff: a million pages": (lambda: chained_tiff(1_000_000), "in a circle, or more than 64"),
    "tiff: tags that claim the same megabyte": (
        lambda: tiff(
            sorted(plain_tags(64, 64) + greedy_tags(MEGABYTE)),
            BITS + bytes(3 * 64 * 64) + bytes(MEGABYTE),
        ),
        "",
    ),
    **{
        f"tiff: a directory of tag {tag} that claims the same megabyte": (
            lambda tag=tag: hidden_directory(tag),
            "",
        )
        for tag in (330, 34665, 34853, 40965)
    },
    "tiff: strips again and again": (lambda: strips(150_000), "tag 273 has 150000 values"),
    "tiff: a million strips": (lambda: strips(1_000_000), "tag 273 has 1000000 values"),
    "tiff: a tile of four gigapixels": (lambda: tiles(2**16, 2**16, BOMB), "tiles of"),
    "tiff: a tile of no width": (lambda: tiles(0, 64, BOMB), "tiles of"),
    "tiff: tiles of one pixel": (lambda: tiles(1, 1, BOMB, 7000), "refused"),
    "tiff: a tile of 16 megapixels": (lambda: tiles(4096, 4096, BOMB), ""),
    "tiff: 90 black megapixels": (lambda: packed_tiff(9_500, 8), ""),
    "tiff: 100 megapixels in a header": (lambda: tiff(plain_tags(9500, 9500), BITS), "cut short"),
    "tiff: 36 megapixels in few bytes of zstd": (lambda: saved_tiff(compression="zstd"), ""),
    "tiff: the most tags": (lambda: big_tiff(2**63), "damaged"),
    "tiff: more tags than bytes": (lambda: big_tiff(4000), ""),
    "tiff: samples without end": (
        lambda: tiff([*plain_tags(64, 64)[:6], (277, 4, 1, 2**31), *plain_tags(64, 64)[7:]], BITS),
        "refused",
    ),
    "bmp: 90 megapixels in 150 bytes": (lambda: bmp(9500, 9500), "cut short"),
    "bmp: the largest sides": (lambda: bmp(2**31 - 1, 2**31 - 1), "expected at most"),
    "bmp: the least sides": (lambda: bmp(-(2**31), -(2**31)), "expected at most"),
    "bmp: a header of four gigabytes": (lambda: bmp(64, 64, header=2**32 - 1), ""),
    "bmp: a palette of four billion colours": (
        lambda: bmp(64, 64, colours=2**32 - 1, bits=8),
        "",
    ),
}
"""Name → what makes the file, and a part of the reason that it is refused for; empty if a decoder
may take or refuse it, as long as that costs little."""


def decoding(name: str) -> Callable[[], str]:
    """What decodes a hostile file and says what came of it."""
    from pipeline.dataset.images import ImageError, decode

    data = HOSTILE[name][0]()

    def run() -> str:
        try:
            return f"decoded {decode(data).shape}"
        except ImageError as error:
            return f"refused: {error}"

    return run

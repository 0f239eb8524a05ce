import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.dataset.images import MAX_PIXELS, MIN_SIDE, ImageError, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def encoded(image=None, form="PNG", **options):
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, form, **options)
    return file.getvalue()


def png(width, height, depth, colour, data=b""):
    """A PNG file made by hand, from header fields that Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_back_the_exact_pixels(form):
    np.testing.assert_array_equal(decode(encoded(form=form)), PIXELS)


def test_jpeg_gives_pixels_of_the_right_shape_and_type():
    pixels = decode(encoded(form="JPEG"))
    assert (pixels.shape, pixels.dtype) == (PIXELS.shape, np.uint8)


@pytest.mark.parametrize("size", [0, 1])
def test_a_file_without_content_is_refused(size):
    with pytest.raises(ImageError, match=r"empty \(0 bytes\)|not a PNG"):
        decode(b"x" * size)


def test_text_is_refused_whatever_its_name_says():
    with pytest.raises(ImageError, match="not a PNG, JPEG, TIFF or BMP"):
        decode(b"image,label\n1,benign\n")


def test_a_format_outside_the_list_is_refused():
    with pytest.raises(ImageError, match="not a PNG, JPEG, TIFF or BMP"):
        decode(encoded(form="GIF"))


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_png_is_refused(kept):
    data = encoded()
    with pytest.raises(ImageError, match="damaged image"):
        decode(data[: int(len(data) * kept)])


def test_a_truncated_jpeg_is_refused():
    data = encoded(form="JPEG")
    with pytest.raises(ImageError, match="damaged image"):
        decode(data[: len(data) // 2])


def test_a_png_with_a_changed_byte_is_refused():
    data = bytearray(encoded())
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="damaged image"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "black and white"),
        ("L", "8-bit grey"),
        ("LA", "grey with transparency"),
        ("P", "indexed in a palette"),
        ("RGBA", "RGB with transparency"),
        ("I;16", "16-bit grey"),
    ],
)
def test_a_png_that_is_not_8_bit_rgb_is_refused_by_name(mode, name):
    with pytest.raises(ImageError, match=f"pixels are {name}, expected 8-bit RGB"):
        decode(encoded(Image.new(mode, (48, 40))))


def test_a_16_bit_rgb_png_is_refused_and_not_halved():
    rows = (b"\0" + bytes(range(48)) * 6) * 40
    with pytest.raises(ImageError, match="pixels are 16-bit RGB, expected 8-bit RGB"):
        decode(png(48, 40, 16, 2, rows))


@pytest.mark.parametrize(("form", "mode"), [("JPEG", "CMYK"), ("JPEG", "L"), ("TIFF", "F")])
def test_other_formats_that_are_not_rgb_are_refused(form, mode):
    with pytest.raises(ImageError, match="expected 8-bit RGB"):
        decode(encoded(Image.new(mode, (48, 40)), form))


@pytest.mark.parametrize("size", [(1, 1), (MIN_SIDE - 1, 400), (400, MIN_SIDE - 1)])
def test_an_image_that_is_too_small_is_refused_with_its_size(size):
    with pytest.raises(ImageError, match=f"{size[0]}×{size[1]} pixels, expected at least"):
        decode(encoded(Image.new("RGB", size)))


def test_the_least_size_is_accepted():
    assert decode(encoded(Image.new("RGB", (MIN_SIDE, MIN_SIDE)))).shape == (MIN_SIDE, MIN_SIDE, 3)


def test_a_huge_image_is_refused_from_its_header_without_the_memory_for_it():
    data = png(20_000, 20_000, 8, 2)
    tracemalloc.start()
    with pytest.raises(ImageError, match=f"20000×20000 pixels, expected at most {MAX_PIXELS:,}"):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([encoded(form=form) for form in ("PNG", "JPEG", "TIFF", "BMP")]),
    st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), max_size=8),
    st.none() | st.integers(0, 8000),
)
def test_any_damage_gives_an_image_or_the_one_error(data, changes, cut):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        pixels = decode(bytes(damaged[:cut]))
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2:] == (3,)


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_a_file_of_several_images_is_refused(kind):
    pages = [Image.new("RGB", (40, 40), (i, i, i)) for i in range(3)]
    buffer = io.BytesIO()
    pages[0].save(buffer, kind, save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="several pages or frames, expected one"):
        decode(buffer.getvalue())

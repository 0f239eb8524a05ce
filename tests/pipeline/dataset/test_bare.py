"""What is left out of an image file before it is decoded does not change a pixel of it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from pipeline.dataset.bare import bare
from pipeline.dataset.images import ImageError, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
PIXELS[20:50] = 200  # something for a compression to find


def saved(form, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, **options)
    return file.getvalue()


def exif(orientation=1):
    found = Image.Exif()
    found[0x010E] = "a description"
    found[0x0112] = orientation
    found.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    return found


def text():
    info = PngInfo()
    info.add_text("key", "value" * 1000, zip=True)
    info.add_itxt("other", "value" * 1000)
    return info


FILES = {
    "png": saved("PNG"),
    "png with metadata": saved("PNG", pnginfo=text(), exif=exif(), icc_profile=b"x" * 5000),
    "png uncompressed": saved("PNG", compress_level=0),
    "jpeg": saved("JPEG", quality=90),
    "jpeg with metadata": saved(
        "JPEG", exif=exif(), icc_profile=b"x" * 200_000, comment="c" * 999, dpi=(3, 3)
    ),
    "jpeg, progressive": saved("JPEG", progressive=True, quality=70),
    "jpeg, 4:4:4": saved("JPEG", subsampling=0),
    "jpeg, RGB inside": saved("JPEG", keep_rgb=True),
    "jpeg with restarts": saved("JPEG", restart_marker_blocks=3),
    "bmp": saved("BMP"),
    "tiff": saved("TIFF"),
    "tiff, big": saved("TIFF", big_tiff=True),
    "tiff with metadata": saved("TIFF", exif=exif(), icc_profile=b"x" * 5000, dpi=(3, 3)),
    "tiff in strips": saved("TIFF", strip_size=1000),
    **{
        f"tiff, {name}": saved("TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    },
    "tiff, predicted": saved("TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
}


def plainly_decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", FILES)
def test_the_pixels_are_those_of_the_whole_file(name):
    np.testing.assert_array_equal(decode(FILES[name]), plainly_decoded(FILES[name]))


@pytest.mark.parametrize("name", [name for name in FILES if "metadata" in name])
def test_metadata_is_gone(name):
    with Image.open(io.BytesIO(bare(FILES[name]))) as image:
        image.load()
        assert not {"exif", "icc_profile", "comment", "key", "other"} & set(image.info)
        assert not dict(image.getexif()).keys() & {0x010E, 0x0112, 0x8769}


def test_the_order_of_bytes_is_kept():
    little = FILES["tiff, tiff_lzw"]
    file = io.BytesIO()
    options = TiffImagePlugin.ImageFileDirectory_v2(b"MM\0*\0\0\0\0")
    Image.fromarray(PIXELS).save(file, "TIFF", tiffinfo=options)
    assert bare(little)[:2] == b"II"
    assert bare(file.getvalue())[:2] == file.getvalue()[:2]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_pixels_are_as_they_are_stored_whatever_the_orientation_says(form, orientation):
    data = saved(form, exif=exif(orientation))
    assert decode(data).shape == PIXELS.shape
    if form != "JPEG":
        np.testing.assert_array_equal(decode(data), PIXELS)


def test_a_jpeg_for_several_pictures_is_refused():
    file = io.BytesIO()
    pages = [Image.fromarray(PIXELS)] * 2
    pages[0].save(file, "MPO", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="several pages or frames"):
        decode(file.getvalue())


def test_junk_and_filling_between_segments_are_passed_over():
    data = FILES["jpeg"]
    stuffed = data[:20] + b"junk" + b"\xff" * 1000 + data[21:]  # behind the JFIF segment
    np.testing.assert_array_equal(decode(stuffed), decode(data))


def test_a_tiff_without_a_second_page_but_with_thumbnails_is_one_image():
    data = FILES["tiff with metadata"]
    np.testing.assert_array_equal(decode(data), PIXELS)


def test_a_chunk_that_a_decoder_must_know_and_nobody_knows_is_refused():
    chunk = struct.pack(">I4s", 0, b"ABCD") + struct.pack(">I", zlib.crc32(b"ABCD"))
    data = FILES["png"]
    with pytest.raises(ImageError, match=r"damaged image .*ABCD"):
        decode(data[:33] + chunk + data[33:])

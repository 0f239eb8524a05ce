"""Images that are too large to be decoded whole are read band by band: the same pixels."""

import hashlib
import os
import struct
import sys

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.dataset import large_images
from pipeline.dataset.images import ImageError
from pipeline.dataset.large_images import open_large
from pipeline.dataset.picture import WholePicture, open_picture
from pipeline.dataset.reduce import SHOWN_SIDE, Reduced, reduce_picture
from pipeline.dataset.statistics import RunningStatistics, image_statistics

SIZE = (323, 217)


def smooth(size=SIZE):
    """Colours that vary slowly, so that JPEG keeps them, with some noise."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(60, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
    return np.clip(pixels + rng.integers(-9, 9, pixels.shape), 0, 255).astype(np.uint8)


def save(path, **options):
    pyvips.Image.new_from_array(smooth()).tiffsave(str(path), **options)


WRITERS = {
    "a.png": lambda p: Image.fromarray(smooth()).save(p),
    "a.jpg": lambda p: Image.fromarray(smooth()).save(p, quality=90),
    "full colour.jpg": lambda p: Image.fromarray(smooth()).save(p, subsampling=0),
    "strips.tif": lambda p: Image.fromarray(smooth()).save(p, compression="tiff_lzw"),
    "plain.tif": lambda p: Image.fromarray(smooth()).save(p),
    "tiles.tif": lambda p: save(p, tile=True, tile_width=64, tile_height=48),
    "big.tif": lambda p: save(p, tile=True, bigtiff=True, compression="deflate"),
    "jpeg pyramid.tif": lambda p: save(p, tile=True, pyramid=True, compression="jpeg"),
    "sub pyramid.tif": lambda p: save(p, tile=True, pyramid=True, subifd=True),
}


@pytest.fixture(params=WRITERS)
def file(request, tmp_path, monkeypatch):
    monkeypatch.setattr(large_images, "_BAND_BYTES", 20 * 3 * SIZE[0])
    path = tmp_path / request.param
    WRITERS[request.param](path)
    return path


def test_bands_are_the_pixels_of_the_image_decoded_whole(file):
    whole = open_picture(file)
    assert isinstance(whole, WholePicture)
    large = open_large(file)
    bands = list(large.bands())
    assert len(bands) == 11
    np.testing.assert_array_equal(np.concatenate(bands), whole.pixels)
    assert large.sha256 == whole.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (large.width, large.height) == SIZE


def test_statistics_are_those_of_the_image_decoded_whole(file):
    running = RunningStatistics(SIZE[1], SIZE[0])
    for band in open_large(file).bands():
        running.add(band)
    found, expected = running.result(), image_statistics(_pixels(file))
    assert found.colour.tobytes() == expected.colour.tobytes()
    assert found.perceptual_hash.tobytes() == expected.perceptual_hash.tobytes()
    assert found.pixels_sha256 == expected.pixels_sha256


def _pixels(file):
    picture = open_picture(file)
    assert isinstance(picture, WholePicture)
    return picture.pixels


@pytest.mark.parametrize("limit", ["MAX_PIXELS", "MAX_BYTES"])
def test_a_picture_beyond_a_limit_is_not_decoded_whole(tmp_path, monkeypatch, limit):
    WRITERS["tiles.tif"](tmp_path / "a.tif")
    monkeypatch.setattr(f"pipeline.dataset.picture.{limit}", 1000)
    said = SIZE if limit == "MAX_PIXELS" else None
    picture = open_picture(tmp_path / "a.tif", said=said)
    np.testing.assert_array_equal(np.concatenate(list(picture.bands())), smooth())
    assert not isinstance(picture, WholePicture)


def test_a_size_that_only_the_header_tells_is_found_out(tmp_path, monkeypatch):
    WRITERS["a.png"](tmp_path / "a.png")
    monkeypatch.setattr("pipeline.dataset.images.MAX_PIXELS", 1000)
    assert not isinstance(open_picture(tmp_path / "a.png"), WholePicture)


REFUSED = {
    "progressive.jpg": (
        lambda p: Image.fromarray(smooth()).save(p, progressive=True),
        "progressive JPEG.*save it as a tiled TIFF",
    ),
    "interlaced.png": (
        lambda p: pyvips.Image.new_from_array(smooth()).pngsave(str(p), interlace=True),
        "interlaced PNG.*save it as a tiled TIFF",
    ),
    "palette.png": (lambda p: Image.fromarray(smooth()).quantize(16).save(p), "not 8-bit RGB"),
    "deep.png": (
        lambda p: pyvips.Image.new_from_array(smooth().astype(np.uint16)).pngsave(str(p)),
        "not 8-bit RGB",
    ),
    "grey.jpg": (lambda p: Image.fromarray(smooth()[..., 0]).save(p), "uchar of 1 channels"),
    "cmyk.jpg": (lambda p: Image.fromarray(smooth()).convert("CMYK").save(p), "4 channels"),
    "palette.tif": (
        lambda p: Image.fromarray(smooth()).quantize(16).save(p),
        "photometric interpretation 3 and compression 1, expected RGB",
    ),
    "luma and chroma.tif": (
        lambda p: Image.fromarray(smooth()).convert("YCbCr").save(p),
        "photometric interpretation 6 and compression 1, expected RGB",
    ),
    "deep.tif": (
        lambda p: pyvips.Image.new_from_array(smooth().astype(np.uint16)).tiffsave(str(p)),
        "ushort of 3 channels, expected 8-bit RGB",
    ),
    "pages.tif": (
        lambda p: Image.fromarray(smooth()).save(
            p, save_all=True, append_images=[Image.fromarray(smooth())]
        ),
        "several pages",
    ),
    "a.bmp": (lambda p: Image.fromarray(smooth()).save(p), "not a PNG, JPEG or TIFF"),
    "program.svg": (lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "not a P"),
    "empty.tif": (lambda p: p.write_bytes(b""), "damaged|empty"),
    "small.png": (lambda p: Image.new("RGB", (31, 500), (9, 99, 9)).save(p), "at least 32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_band_by_band_is_refused_with_its_reason(tmp_path, name):
    write, reason = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ImageError, match=reason):
        open_large(tmp_path / name)


def test_what_has_more_pixels_than_any_image_may_is_refused(tmp_path, monkeypatch):
    WRITERS["tiles.tif"](tmp_path / "a.tif")
    monkeypatch.setattr(large_images, "MAX_LARGE_PIXELS", 70_000)
    with pytest.raises(ImageError, match=r"323×217 pixels, expected at most 70,000"):
        open_large(tmp_path / "a.tif")


def test_another_file_than_the_manifest_says_is_told_before_its_header_is_believed(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 nothing")
    with pytest.raises(ImageError, match="content changed since it was indexed"):
        open_large(tmp_path / "a.tif", "f" * 64)


def test_without_libvips_it_is_said_what_to_install(tmp_path, monkeypatch):
    WRITERS["tiles.tif"](tmp_path / "a.tif")
    large_images._vips.cache_clear()
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(ImageError, match=r'needs libvips .*: pip install "pyvips\[binary\]"'):
        open_large(tmp_path / "a.tif")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    path = tmp_path / "a.tif"
    WRITERS["plain.tif"](path)
    picture = open_large(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(ImageError, match="changed while it was read"):
        list(picture.bands())


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "strips.tif", "jpeg pyramid.tif"])
def test_a_file_cut_short_is_damaged_and_gives_no_pixels_of_its_own_making(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageError):
            list(open_large(path).bands())


@given(st.data())
def test_no_damage_does_more_than_raise_an_image_error(tmp_path_factory, data):
    name = data.draw(st.sampled_from(["a.png", "a.jpg", "tiles.tif", "jpeg pyramid.tif"]))
    path = tmp_path_factory.getbasetemp() / f"large {name}"
    if not path.exists():
        WRITERS[name](path)
    content = bytearray(path.read_bytes())
    places = st.integers(0, min(len(content), 3000) - 1) | st.integers(0, len(content) - 1)
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)
    ):
        content[place] = value
    damaged = path.with_name(f"damaged {name}")
    damaged.write_bytes(content)
    try:
        for band in open_large(damaged).bands():
            assert band.shape[2] == 3
    except ImageError as error:
        assert str(error).isprintable()


def test_pages_in_a_circle_end(tmp_path):
    save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<I", content, start + 2 + 12 * entries, start)
    (tmp_path / "a.tif").write_bytes(content)
    for opened in (open_large, open_picture):
        with pytest.raises(ImageError, match="in a circle"):
            opened(tmp_path / "a.tif")


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 9), st.integers(1, 50))
def test_a_reduced_image_is_the_mean_of_squares(width, height, factor, rows):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    reduced = Reduced(height, width)
    reduced.factor = factor
    for top in range(0, height, rows):
        reduced.add(pixels[top : top + rows])
    found = reduced.result()
    assert found.shape == (-(-height // factor), -(-width // factor), 3)
    for y, x in [(0, 0), (len(found) - 1, found.shape[1] - 1)]:
        square = pixels[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        np.testing.assert_allclose(found[y, x], square.mean(axis=(0, 1)), atol=0.51)


def test_only_an_image_that_is_much_larger_than_shown_is_reduced():
    small = WholePicture(np.zeros((40, 2 * SHOWN_SIDE - 1, 3), np.uint8), "")
    assert reduce_picture(small)[1] == 1
    assert reduce_picture(small)[0] is small.pixels
    large = WholePicture(np.zeros((40, 2 * SHOWN_SIDE, 3), np.uint8), "")
    pixels, factor = reduce_picture(large)
    assert (pixels.shape, factor) == ((20, SHOWN_SIDE, 3), 2)

"""Statistics of an image: right, the same on every machine, and blind to how a file was coded."""

import hashlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.dataset import statistics as module
from pipeline.dataset.images import decode
from pipeline.dataset.statistics import COLOUR_NAMES, NEAR_BITS, image_statistics

pixels_of = arrays(
    np.uint8, st.tuples(st.integers(17, 40), st.integers(17, 40), st.just(3)), fill=st.just(255)
)


def smooth(seed: int, height: int = 460, width: int = 700) -> np.ndarray:
    """An image with structure, as unlike those of other seeds as another field of view."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def textbook(pixels: np.ndarray) -> np.ndarray:
    density = -np.log((pixels.reshape(-1, 3) + 1.0) / 256)  # (n, 3)
    correlations = np.corrcoef(density.T)[[0, 0, 1], [1, 2, 2]]
    percentiles = np.percentile(density.mean(axis=1), [5, 50, 95], method="inverted_cdf")
    return np.concatenate([density.mean(axis=0), density.std(axis=0), correlations, percentiles])


@pytest.mark.parametrize("seed", range(3))
def test_colour_is_what_the_formula_says(seed):
    found = image_statistics(smooth(seed)).colour
    assert (found.shape, found.dtype, len(COLOUR_NAMES)) == ((12,), np.float32, 12)
    np.testing.assert_allclose(found, textbook(smooth(seed)), atol=5e-4)


@settings(max_examples=40)
@given(pixels_of, st.integers(1, 300))
def test_any_division_into_parts_gives_the_same_bits(pixels, part):
    whole = image_statistics(pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PART_PIXELS", part)
        divided = image_statistics(pixels)
    assert np.isfinite(whole.colour).all()
    assert divided.colour.tobytes() == whole.colour.tobytes()


def test_the_order_of_pixels_does_not_change_a_bit_of_the_colour():
    pixels = smooth(0)
    shuffled = np.random.default_rng(0).permutation(pixels.reshape(-1, 3)).reshape(pixels.shape)
    assert image_statistics(shuffled).colour.tobytes() == image_statistics(pixels).colour.tobytes()


def test_no_rounding_of_a_logarithm_can_change_the_table():
    """The table is rounded from logarithms whose last bit differs between machines."""
    exact = [-math.log((v + 1) / 256) * module._SCALE for v in range(256)]
    assert min(abs(value % 1 - 0.5) for value in exact) > 1e-6
    products = module._DENSITY.max() ** 2 * module._PART_PIXELS
    assert products < 2**53, "sums are no longer exact"


def test_known_pixels_give_known_bits():
    found = image_statistics((np.arange(64 * 70 * 3) % 251).astype(np.uint8).reshape(64, 70, 3))
    content = found.colour.tobytes() + found.perceptual_hash.tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "302e54c82e440a79"


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_image_of_one_colour_has_finite_statistics(value):
    found = image_statistics(np.full((32, 32, 3), value, np.uint8)).colour
    density = -math.log((value + 1) / 256)
    np.testing.assert_allclose(found, [density] * 3 + [0] * 6 + [density] * 3, atol=5e-4)


def test_the_content_digest_is_that_of_shape_and_pixels():
    pixels = smooth(1, 40, 50)
    expected = hashlib.sha256(b"40 50 3\n" + pixels.tobytes()).hexdigest()
    assert image_statistics(pixels).pixels_sha256 == expected
    turned = image_statistics(pixels.reshape(50, 40, 3)).pixels_sha256
    assert turned != expected, "the shape does not count"


def encoded(pixels: np.ndarray, form: str, **options) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return decode(file.getvalue())


def test_the_same_pixels_agree_in_every_lossless_format():
    pixels = smooth(2, 64, 70)
    found = {image_statistics(encoded(pixels, form)).pixels_sha256 for form in ("PNG", "TIFF")}
    assert found == {image_statistics(pixels).pixels_sha256}


def test_pixels_may_lie_in_memory_in_any_way():
    pixels = smooth(3)
    for view in (pixels[::-1, ::-1], pixels.transpose(1, 0, 2)):
        found, expected = image_statistics(view), image_statistics(view.copy())
        assert found.colour.tobytes() == expected.colour.tobytes()
        assert found[1:][1] == expected[1:][1]
        assert hamming(found.perceptual_hash, expected.perceptual_hash) == 0


def copies(pixels: np.ndarray) -> dict[str, np.ndarray]:
    height, width = pixels.shape[:2]
    half = Image.fromarray(pixels).resize((width // 2, height // 2))
    return {
        "recompressed": encoded(pixels, "JPEG", quality=75),
        "half": np.asarray(half),
        "brighter": np.clip(pixels * 1.05, 0, 255).astype(np.uint8),
        "darker": (pixels * 0.95).astype(np.uint8),
    }


def hamming(hashes, others):
    """Bits in which hashes (..., 32) differ."""
    return np.bitwise_count(hashes ^ others).sum(axis=-1, dtype=np.int64)


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(hamming(image_statistics(a).perceptual_hash, image_statistics(b).perceptual_hash))


@pytest.mark.parametrize("copy", ["recompressed", "half", "brighter", "darker"])
def test_a_copy_is_near_its_image(copy):
    for seed in range(3):
        assert distance(smooth(seed), copies(smooth(seed))[copy]) <= NEAR_BITS


def test_different_images_are_far_from_each_other():
    hashes = np.stack([image_statistics(smooth(seed)).perceptual_hash for seed in range(8)])
    assert hashes.shape == (8, 32)
    distances = hamming(hashes[:, None], hashes[None])  # (8, 8)
    assert distances[~np.eye(8, dtype=bool)].min() > NEAR_BITS


def test_real_copies_are_near_and_real_fields_of_view_are_far(shared):
    files = sorted((shared / "data/BreaKHis_v1").rglob("SOB_M_DC-14-13412-100-*.png"))[:6]
    images = [decode(file.read_bytes()) for file in files]
    for image in images[:2]:
        assert max(distance(image, copy) for copy in copies(image).values()) <= NEAR_BITS
    hashes = np.stack([image_statistics(image).perceptual_hash for image in images])
    distances = hamming(hashes[:, None], hashes[None])
    assert distances[~np.eye(len(files), dtype=bool)].min() > NEAR_BITS

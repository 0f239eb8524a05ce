"""Images go through the stream in order, each with its own features, in bounded memory."""

import hashlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cache import Failure, ImageRow
from pipeline.ahead import Budget, ahead
from pipeline.dataset.large_images import MAX_LARGE_BYTES
from pipeline.dataset.picture import WholePicture
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.stream import ImageFeatures, encode_image, encode_stream, load_image

SIDE = 32


class MeanEncoder:
    """Features of a patch: its mean; counts the patches of each batch, and those in flight."""

    engine, device_name, side_by_side = "none", "none", False

    def __init__(self, batch_size: int, in_flight: int = 1) -> None:
        self.batch_size, self.in_flight = batch_size, in_flight
        self.batches: list[int] = []
        self.taken = 0

    def submit(self, patches):
        assert len(self.batches) - self.taken < self.in_flight
        number = len(self.batches)
        self.batches.append(len(patches))
        features = patches.mean(axis=(1, 2, 3), keepdims=True).reshape(-1, 1).astype(np.float32)

        def result():
            assert number == self.taken, "a batch was taken out of order"
            self.taken += 1
            return features

        return result


def row(name: str, sha256: str = "0" * 64) -> ImageRow:
    return ImageRow(name, f"{name}.png", "benign", "", "s", "c", 100, 64, 64, sha256)


def image_of(number: int, patches: int) -> ImageFeatures:
    """An image `patches` wide, whose k-th patch is full of the value number + k."""
    pixels = np.repeat(np.arange(number, number + patches, dtype=np.uint8), SIDE)
    picture = WholePicture(np.tile(pixels[None, :, None], (SIDE, 1, 3)), "")
    return ImageFeatures(row(str(number)), picture, PatchOptions(SIDE, SIDE))


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 5), st.integers(1, 4))
def test_order_and_features_survive_any_batching(lengths, batch_size, in_flight):
    items = [image_of(10 * i, n) if n else Failure(str(i), "p", "r") for i, n in enumerate(lengths)]
    encoder = MeanEncoder(batch_size, in_flight)
    results = list(encode_stream(iter(items), encoder))
    assert all(given is got for given, got in zip(items, results, strict=True))
    for i, result in enumerate(results):
        if isinstance(result, ImageFeatures):
            assert result.features[:, 0].tolist() == [10 * i + k for k in range(lengths[i])]
    assert sum(encoder.batches) == sum(lengths)
    assert all(size == batch_size for size in encoder.batches[:-1]), "a batch was not filled"


class ThreadedEncoder(MeanEncoder):
    side_by_side = True

    def submit(self, patches):
        features = MeanEncoder(self.batch_size).submit(patches)()
        return lambda: features


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 3]))
@pytest.mark.parametrize("kind", [MeanEncoder, ThreadedEncoder])
def test_an_image_alone_has_the_same_features(kind, length, batch_size, threads):
    image = image_of(3, length)
    encode_image(image, kind(batch_size), threads)
    assert image.features[:, 0].tolist() == list(range(3, 3 + length))
    assert not list(image.patches()), "pixels are kept, although nothing needs them"


def test_an_image_is_given_on_as_soon_as_it_is_complete():
    taken = []

    def items():
        for i in range(3):
            taken.append(i)
            yield image_of(i, 2)

    stream = encode_stream(items(), MeanEncoder(2))
    next(stream)
    assert taken == [0]


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 30))
def test_mapping_ahead_keeps_order_and_stays_within_its_window(workers, window, count):
    lock, started = threading.Lock(), 0

    def work(number):
        nonlocal started
        with lock:
            started += 1
        return number * number

    for done, result in enumerate(ahead(work, range(count), workers, window)):
        assert result == done * done
        with lock:
            assert started <= done + window + 1


def test_an_error_in_a_thread_reaches_the_consumer():
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda n: 1 // n, [1, 0, 1], 2, 2))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 12), max_size=20), st.integers(1, 10))
def test_results_ahead_stay_within_the_budget_unless_one_alone_exceeds_it(costs, budget):
    lock, held = threading.Lock(), []

    def work(cost):
        with lock:
            held.append(cost)
            assert sum(held) <= budget or len([c for c in held if c]) == 1
        return cost

    for cost, result in zip(costs, ahead(work, costs, 4, 8, lambda c: c, budget), strict=True):
        assert result == cost
        with lock:
            held.remove(cost)


def test_a_budget_is_never_overdrawn_and_given_back():
    budget, lock, held = Budget(10), threading.Lock(), [0]

    def work(amount):
        with budget.reserve(amount):
            with lock:
                held[0] += min(amount, 10)
                assert held[0] <= 10
            time.sleep(0.0001)
            with lock:
                held[0] -= min(amount, 10)
        return amount

    assert list(ahead(work, [3, 9, 50, 1, 10, 7] * 20, 6, 12)) == [3, 9, 50, 1, 10, 7] * 20


def write_image(path: Path, width: int = 64, height: int = 64) -> str:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_loaded_image_has_its_grid_and_pixels(tmp_path):
    digest = write_image(tmp_path / "a.png", 70, 40)
    sized = row("a", digest)._replace(width=70, height=40)
    loaded = load_image(tmp_path / "a.png", sized, PatchOptions(32, 32))
    assert isinstance(loaded, ImageFeatures)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    found = dict(loaded.patches())
    assert found.keys() == {0, 1}
    np.testing.assert_array_equal(found[0], pixels[:32, :32])
    np.testing.assert_array_equal(found[1], pixels[:32, 32:64])


def test_an_image_that_cannot_be_used_costs_itself_only(tmp_path):
    digest = write_image(tmp_path / "a.png")
    cases = [
        (tmp_path / "a.png", "f" * 64, PatchOptions(32, 32), "content changed"),
        (tmp_path / "none.png", digest, PatchOptions(32, 32), "cannot be read"),
        (tmp_path / "a.png", digest, PatchOptions(), "smaller than a patch"),
    ]
    for path, sha256, options, reason in cases:
        failure = load_image(path, row("a", sha256), options)
        assert isinstance(failure, Failure)
        assert reason in failure.reason


def test_an_image_of_another_size_than_its_row_says_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch
):
    digest = write_image(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "tobytes", None)  # what decoding ends with
    for width, height in ((65, 64), (64, 63), (2**31 - 1, 2**31 - 1)):
        forged = row("a", digest)._replace(width=width, height=height)
        failure = load_image(tmp_path / "a.png", forged, PatchOptions(32, 32))
        assert isinstance(failure, Failure)
        assert f"64×64 pixels, but {width}×{height} in the manifest" in failure.reason


def test_changed_content_is_told_before_anything_of_it_is_believed(tmp_path):
    write_image(tmp_path / "a.png", 70, 70)
    failure = load_image(tmp_path / "a.png", row("a", "f" * 64), PatchOptions(32, 32))
    assert isinstance(failure, Failure)
    assert "content changed since it was indexed" in failure.reason


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "a.png")
    failure = load_image(tmp_path / "a.png", row("a"), PatchOptions(32, 32))
    assert isinstance(failure, Failure)
    assert "cannot be read" in failure.reason


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_LARGE_BYTES + 1)
    failure = load_image(tmp_path / "a.png", row("a"), PatchOptions(32, 32))
    assert isinstance(failure, Failure)
    assert "expected at most 4,294,967,296" in failure.reason

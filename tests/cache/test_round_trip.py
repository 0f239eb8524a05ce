"""What is written is what is read."""

import string
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_caches import DIM, coords_of, features_of, make_recipe, make_row, write

from cache import Failure, FeatureCache, ImageRow, UnknownImageError, verify, write_cache

text = st.text(string.ascii_letters + " éµ汉-_./", max_size=20)
numbers = st.integers(0, 2**31 - 1)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
rows = st.builds(
    ImageRow,
    image_id=text.filter(lambda name: name not in ("", ".", "..") and "/" not in name),
    path=text.filter(bool),
    label=text.filter(bool),
    subtype=text,
    slide=text,
    case=text,
    magnification=numbers,
    width=numbers,
    height=numbers,
    sha256=digests,
)
values = st.floats(-60000, 60000, width=32)
images = st.lists(
    st.tuples(
        rows, arrays(np.float32, st.tuples(st.integers(1, 5), st.just(DIM)), elements=values)
    ),
    max_size=8,
    unique_by=lambda image: image[0].image_id,
)


@settings(max_examples=60)
@given(images=images, dtype=st.sampled_from(["float16", "float32"]))
def test_any_images_come_back_as_they_were_written(images, dtype):
    recipe = make_recipe(dtype=dtype)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "f.h5"
        with write_cache(path, recipe, {}) as writer:
            for row, features in images:
                writer.append(row, features, coords_of(len(features)))
        assert verify(path) == []
        with FeatureCache(path) as cache:
            assert cache.images.rows() == [row for row, _ in images]
            assert cache.recipe == recipe
            for i, (row, features) in enumerate(images):
                for key in (i, row.image_id):
                    np.testing.assert_array_equal(cache.sequence(key), features.astype(dtype))
                    np.testing.assert_array_equal(cache.coords(key), coords_of(len(features)))


def test_failures_and_provenance_come_back(tmp_path, recipe):
    failures = [Failure("bad", "b/ad.png", "empty"), Failure("wörse", "w.png", "x" * 100_000)]
    with write_cache(tmp_path / "f.h5", recipe, {"host": "höst"}) as writer:
        for failure in failures:
            writer.fail(failure)
    with FeatureCache(tmp_path / "f.h5") as cache:
        assert (cache.failures, cache.provenance) == (failures, {"host": "höst"})
        assert (len(cache), cache.patches) == (0, 0)


def test_blocks_larger_than_the_buffer_keep_their_order(tmp_path):
    recipe = make_recipe(feature_dim=2048, dtype="float32")
    blocks = [np.full((100, 2048), i, np.float32) for i in range(10)]
    with write_cache(tmp_path / "f.h5", recipe, {}) as writer:
        for i, block in enumerate(blocks):
            writer.append(make_row(f"image{i}"), block, coords_of(100))
    with FeatureCache(tmp_path / "f.h5") as cache:
        np.testing.assert_array_equal(cache.load(), np.concatenate(blocks))
    assert verify(tmp_path / "f.h5") == []


def test_equal_content_gives_equal_bytes(tmp_path, recipe):
    first = write(tmp_path / "a.h5", recipe, [2, 3])
    second = write(tmp_path / "b.h5", recipe, [2, 3])
    assert first.read_bytes() == second.read_bytes()


def test_an_unknown_image_is_named(tmp_path, recipe):
    with FeatureCache(write(tmp_path / "f.h5", recipe, [2])) as cache:
        with pytest.raises(UnknownImageError, match="nobody"):
            cache.sequence("nobody")
        with pytest.raises(UnknownImageError, match="no image 1"):
            cache.sequence(1)


def test_the_image_table_finds_columns_and_positions(tmp_path, recipe):
    with FeatureCache(write(tmp_path / "f.h5", recipe, [1, 2])) as cache:
        assert cache.images["image_id"].tolist() == ["image0", "image1"]
        assert cache.images["width"].tolist() == [700, 700]
        assert cache.images.index("image1") == 1
        assert features_of(1, 2).astype(np.float16).tolist() == cache.sequence("image1").tolist()

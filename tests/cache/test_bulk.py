"""All features are read at once, and given only if every image's digest proves them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_caches import coords_of, make_recipe, make_row

from cache import CacheDamagedError, FeatureCache, write_cache
from cache import reader as module
from cache.bulk import digests_fit, read_unchecked
from cache.layout import CHUNK_BYTES


def write(path, dim, lengths):
    rng = np.random.default_rng(0)
    with write_cache(path, make_recipe(feature_dim=dim), {}) as writer:
        for number, length in enumerate(lengths):
            features = rng.normal(size=(length, dim)).astype(np.float32)
            writer.append(make_row(f"i{number}"), features, coords_of(length))
    return path


@settings(max_examples=25)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.sampled_from([1, 7, 512]))
def test_what_is_read_past_the_filters_is_what_hdf5_gives(tmp_path_factory, lengths, dim):
    path = write(tmp_path_factory.mktemp("bulk") / "f.h5", dim, lengths)
    with FeatureCache(path) as cache:
        for name in ("features", "coords"):
            raw = read_unchecked(path, cache._datasets[name])
            np.testing.assert_array_equal(raw, cache.dataset(name))
        assert digests_fit(raw_features(cache), cache.all_coords(), cache.offsets, cache.digests)
        np.testing.assert_array_equal(cache.load(), cache.features())


def raw_features(cache):
    return read_unchecked(cache.path, cache._datasets["features"])


@pytest.fixture
def path(tmp_path):
    """Of several chunks."""
    path = write(tmp_path / "f.h5", 512, [300, 1, 299])
    assert path.stat().st_size > 2 * CHUNK_BYTES
    return path


def test_loading_goes_past_the_filters(path, monkeypatch):
    monkeypatch.setattr(FeatureCache, "features", None)
    with FeatureCache(path) as cache:
        assert len(cache.load()) == 600


@pytest.mark.parametrize("image", [0, 1, 2])
@pytest.mark.parametrize("name", ["features", "coords"])
def test_one_changed_value_of_any_image_does_not_fit_its_digest(path, image, name):
    with FeatureCache(path) as cache:
        arrays = {"features": cache.features(), "coords": cache.all_coords()}
        assert digests_fit(*arrays.values(), cache.offsets, cache.digests)
        arrays[name][cache.offsets[image], 0] += 1
        assert not digests_fit(*arrays.values(), cache.offsets, cache.digests)


def test_a_file_that_does_not_lie_as_expected_is_read_by_hdf5(path, monkeypatch):
    monkeypatch.setattr(module, "read_unchecked", lambda path, dataset: None)
    with FeatureCache(path) as cache:
        np.testing.assert_array_equal(cache.load(), cache.features())


def test_what_no_digest_proves_is_named_by_the_slower_way(path, monkeypatch):
    monkeypatch.setattr(module, "read_unchecked", lambda path, dataset: dataset[:] + 1)
    with FeatureCache(path) as cache:
        np.testing.assert_array_equal(cache.load(), cache.features())
        cache.attributes["features_sha256"] = "0" * 64
        with pytest.raises(CacheDamagedError, match="features_sha256 does not agree"):
            cache.load()

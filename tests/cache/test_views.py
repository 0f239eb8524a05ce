"""Several views of an image: their rows are told apart, and one view is as it always was."""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_caches import coords_of, features_of, make_recipe, make_row, write

from cache import (
    CacheDamagedError,
    CacheError,
    FeatureCache,
    RecipeError,
    UnknownImageError,
    verify,
    write_cache,
)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 4), max_size=5), st.integers(1, 8))
def test_each_view_of_each_image_has_its_rows(lengths, views):
    recipe = make_recipe(views=tuple(f"v{i}" for i in range(views)), dtype="float32")
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / "f.h5", recipe, [n * views for n in lengths])
        assert verify(path) == []
        with FeatureCache(path) as cache:
            expected = [v for n in lengths for v in range(views) for _ in range(n)]
            assert cache.all_views().tolist() == expected
            assert cache.all_views().dtype == np.uint8
            for i, n in enumerate(lengths):
                whole, places = features_of(i, n * views), coords_of(n * views)
                for view in range(views):
                    rows = slice(view * n, (view + 1) * n)
                    np.testing.assert_array_equal(cache.sequence(i, view), whole[rows])
                    np.testing.assert_array_equal(cache.coords(i, view), places[rows])


def test_a_sequence_is_that_of_the_first_view_unless_another_is_asked_for(tmp_path):
    path = write(tmp_path / "f.h5", make_recipe(views=("identity", "flip_x")), [4])
    with FeatureCache(path) as cache:
        np.testing.assert_array_equal(cache.sequence("image0"), cache.features(0, 2))
        with pytest.raises(UnknownImageError, match="view 2"):
            cache.sequence(0, 2)


def test_patches_that_cannot_be_those_of_all_views_are_refused(tmp_path):
    recipe = make_recipe(views=("identity", "flip_x"))
    with (
        pytest.raises(CacheError, match="3 patches, expected 2 views"),
        write_cache(tmp_path / "f.h5", recipe, {}) as writer,
    ):
        writer.append(make_row("image0"), features_of(0), coords_of(3))
    path = write(tmp_path / "g.h5", recipe, [2, 4])
    with h5py.File(path, "r+") as file:
        file["offsets"][1] = 3
    with pytest.raises(CacheDamagedError, match="of 2 views"), FeatureCache(path) as cache:
        _ = cache.offsets


def test_more_views_than_a_byte_can_number_are_refused():
    make_recipe(views=tuple(map(str, range(255))))
    with pytest.raises(RecipeError, match="256 views"):
        make_recipe(views=tuple(map(str, range(256))))

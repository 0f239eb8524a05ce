"""What the writer refuses, and what it leaves behind when it does."""

import numpy as np
import pytest
from small_caches import coords_of, features_of, make_recipe, make_row, write

from cache import CacheError, Failure, FeatureCache, PublishError, write_cache


def append(path, recipe, row=None, features=None, coords=None):
    features = features_of(0) if features is None else features
    coords = coords_of(len(features)) if coords is None else coords
    with write_cache(path, recipe, {}) as writer:
        writer.append(row or make_row("image0"), features, coords)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": np.zeros((0, 4), np.float32)}, "features"),
        ({"features": np.zeros((2, 5), np.float32)}, "features"),
        ({"features": np.zeros(4, np.float32), "coords": coords_of(1)}, "features"),
        ({"coords": coords_of(2)}, "coords"),
        ({"features": np.full((1, 4), np.nan, np.float32)}, "not finite"),
        ({"features": np.full((1, 4), 70_000, np.float32)}, "float16.*70000"),
        ({"row": make_row("x", label="")}, "label is empty"),
        ({"row": make_row("a\nb")}, "character"),
        ({"row": make_row("x", sha256="short")}, "sha256"),
        ({"row": make_row("x", width=-1)}, "width"),
    ],
)
def test_what_breaks_the_format_is_refused_and_nothing_is_published(
    tmp_path, recipe, arguments, message
):
    with pytest.raises(CacheError, match=message):
        append(tmp_path / "f.h5", recipe, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_id_is_taken_once_by_images_and_failures_together(tmp_path, recipe):
    with pytest.raises(CacheError, match="image0"), write_cache(tmp_path / "f", recipe, {}) as w:
        w.fail(Failure("image0", "p", "r"))
        w.append(make_row("image0"), features_of(0), coords_of(3))


def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(tmp_path, recipe):
    path = write(tmp_path / "f.h5", recipe, [2])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), write_cache(path, recipe, {}) as writer:
        writer.append(make_row("image0"), features_of(0), coords_of(3))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path, recipe):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match=r"file/f\.h5.*cannot be written"):
        append(tmp_path / "file" / "f.h5", recipe)


def test_a_folder_in_place_of_the_output_is_refused(tmp_path, recipe):
    with pytest.raises(PublishError, match="is a folder"):
        append(tmp_path, recipe)


def test_float32_keeps_every_bit(tmp_path):
    append(tmp_path / "f.h5", make_recipe(dtype="float32"), features=features_of(3))
    with FeatureCache(tmp_path / "f.h5") as cache:
        np.testing.assert_array_equal(cache.load(), features_of(3))


def test_reads_need_no_write_permission_and_leave_no_trace(tmp_path, recipe):
    path = write(tmp_path / "f.h5", recipe, [2])
    before = path.read_bytes()
    with FeatureCache(path) as cache:
        cache.load()
    assert path.read_bytes() == before

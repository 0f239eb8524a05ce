"""A comparison names every difference between two caches, and nothing else."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_caches import coords_of, features_of, make_recipe, make_row, write

from cache import (
    CacheError,
    Failure,
    FeatureDifference,
    ImageRow,
    ShardPlace,
    compare,
    write_cache,
)

LENGTHS = [3, 1, 2, 4, 2]
ARCHIVES = Path(__file__).parents[1] / "data/archives/1.0"


def images(lengths=LENGTHS, dim=4):
    """Image i of `lengths[i]` patches: its row, features and coordinates."""
    return [
        [
            make_row(f"image{i}"),
            np.random.default_rng(i).normal(size=(n, dim)).astype(np.float16),
            coords_of(n),
        ]
        for i, n in enumerate(lengths)
    ]


def save(path, images, recipe=None, provenance=None, shard=None, failures=()):
    with write_cache(path, recipe or make_recipe(), provenance or {}, shard) as writer:
        for image in images:
            writer.append(*image)
        for failure in failures:
            writer.fail(failure)
    return path


@pytest.fixture(scope="module")
def a(tmp_path_factory):
    return save(tmp_path_factory.mktemp("a") / "a.h5", images())


def compare_with(a, tmp_path, *args, **options):
    return compare(a, save(tmp_path / "b.h5", *args, **options))


@pytest.mark.parametrize("name", ["whole", "shard"])
def test_a_cache_does_not_differ_from_itself(name):
    found = compare(ARCHIVES / f"{name}.h5", ARCHIVES / f"{name}.h5")
    assert found.same
    assert not found.images and not found.provenance and found.format_version is None


def test_provenance_is_shown_but_does_not_count(tmp_path):
    a = save(tmp_path / "a.h5", images(), provenance={"made": "here", "by": "x", "on": "1"})
    found = compare_with(a, tmp_path, images(), provenance={"made": "there", "by": "x", "at": "2"})
    assert found.same
    assert found.provenance == {"made": ("here", "there"), "on": ("1", None), "at": (None, "2")}


RECIPE = {
    "encoder": "vgg19",
    "weights": "imagenet",
    "weights_sha256": "1" * 64,
    "layer": "features.29",
    "pooling": "max",
    "feature_dim": 5,
    "patch_size": 128,
    "stride": 128,
    "scan_order": "spiral",
    "edge_policy": "pad",
    "colour": "bgr",
    "normalisation": "imagenet",
    "precision": "float16",
    "dtype": "float32",
    "views": ("flipped",),
}


def test_every_field_of_the_recipe_is_compared(a, tmp_path):
    found = compare_with(a, tmp_path, images(dim=5), recipe=make_recipe(**RECIPE))
    assert not found.same
    old = make_recipe()
    assert found.recipe == {name: (getattr(old, name), value) for name, value in RECIPE.items()}


@pytest.mark.parametrize("field", RECIPE)
def test_one_field_of_the_recipe_is_enough_to_differ(a, tmp_path, field):
    recipe = make_recipe(**{field: RECIPE[field]})
    found = compare_with(a, tmp_path, images(dim=recipe.feature_dim), recipe=recipe)
    assert list(found.recipe) == [field]
    assert not found.same
    assert found.images == []


def test_features_of_other_lengths_are_not_compared_but_the_rest_is(a, tmp_path):
    other = images(dim=5)
    other[1][0] = other[1][0]._replace(label="new")
    other[2][2] = other[2][2] + 1
    found = compare_with(a, tmp_path, other, recipe=make_recipe(feature_dim=5))
    assert not found.features_compared
    assert [(image.image_id, image.coords) for image in found.images] == [
        ("image1", 0),
        ("image2", 2),
    ]


def test_float16_and_float32_are_compared_by_value(a, tmp_path):
    other = [[row, features.astype(np.float32), coords] for row, features, coords in images()]
    recipe = make_recipe(dtype="float32")
    assert compare_with(a, tmp_path, other, recipe=recipe).images == []
    other[3][1][2, 1] += 2**-20
    (image,) = compare_with(a, tmp_path, other, recipe=recipe).images
    assert (image.image_id, image.features.patches) == ("image3", 1)


def test_images_of_one_side_only_are_named_in_their_order(a, tmp_path):
    extra = [[make_row(name), features_of(9, 2), coords_of(2)] for name in ("z", "y")]
    found = compare_with(a, tmp_path, [extra[0], *images()[2:4], extra[1]])
    assert found.only_a == ["image0", "image1", "image4"]
    assert found.only_b == ["z", "y"]
    assert (found.common, found.moved, found.images) == (2, [], [])
    assert not found.same


def test_images_in_another_order_are_named_with_both_positions(a, tmp_path):
    mine = images()
    found = compare_with(a, tmp_path, [mine[i] for i in (0, 3, 2, 1, 4)])
    assert found.moved == [("image1", 1, 3), ("image3", 3, 1)]
    assert found.images == []
    assert not found.same


def test_every_column_of_the_table_is_compared(a, tmp_path):
    other = images()
    new = ImageRow("image2", "n.png", "new", "n", "n", "n", 7, 8, 9, "b" * 64)
    other[2][0] = new
    (image,) = compare_with(a, tmp_path, other).images
    old = images()[2][0]
    assert image.columns == {
        name: (getattr(old, name), getattr(new, name)) for name in ImageRow._fields[1:]
    }
    assert (image.patches, image.coords, image.features) == (None, 0, None)


def test_the_largest_differences_of_features_are_those_of_numpy(a, tmp_path):
    other = images()
    generator = np.random.default_rng(0)
    for image in other[1:4]:
        image[1] = (image[1] * generator.normal(1, 0.1, image[1].shape)).astype(np.float16)
    found = compare_with(a, tmp_path, other)
    assert [image.image_id for image in found.images] == ["image1", "image2", "image3"]
    for image, mine, theirs in zip(found.images, images()[1:4], other[1:4], strict=True):
        x, y = mine[1].astype(float), theirs[1].astype(float)
        assert image.features == FeatureDifference(
            int((x != y).any(axis=1).sum()),
            np.abs(x - y).max(),
            (np.abs(x - y) / np.maximum(np.abs(x), np.abs(y))).max(),
        )


def test_a_zero_of_another_sign_is_a_difference_of_nothing(tmp_path):
    mine, other = images(), images()
    mine[2][1][1, 1], other[2][1][1, 1] = 0.0, -0.0
    (image,) = compare_with(save(tmp_path / "a.h5", mine), tmp_path, other).images
    assert image.features == FeatureDifference(1, 0.0, 0.0)


def test_other_numbers_of_patches_are_told_and_their_neighbours_compared(a, tmp_path):
    other = images([3, 1, 5, 4, 2])
    other[3][1][0, 0] += 1
    first, second = compare_with(a, tmp_path, other).images
    assert (first.image_id, first.patches, first.features) == ("image2", (2, 5), None)
    assert (second.image_id, second.patches, second.features.patches) == ("image3", None, 1)


def test_failures_are_compared_by_id(tmp_path):
    def failures(*reasons):
        return [Failure(f"f{i}", "f.png", text) for i, text in enumerate(reasons) if text]

    a = save(tmp_path / "a.h5", images(), failures=failures("x", "same", "old", None))
    found = compare_with(a, tmp_path, images(), failures=failures(None, "same", "new", "y"))
    assert {name: (x and x.reason, y and y.reason) for name, (x, y) in found.failures.items()} == {
        "f0": ("x", None),
        "f2": ("old", "new"),
        "f3": (None, "y"),
    }
    assert not found.same


def test_failures_in_another_order_differ(tmp_path):
    failures = [Failure("f0", "a", "x"), Failure("f1", "b", "y")]
    a = save(tmp_path / "a.h5", images(), failures=failures)
    found = compare_with(a, tmp_path, images(), failures=failures[::-1])
    assert found.failures_reordered
    assert not found.failures
    assert not found.same


@pytest.mark.parametrize("place", [None, ShardPlace(0, 2, "plan"), ShardPlace(1, 2, "other")])
def test_the_place_of_a_shard_is_compared(tmp_path, place):
    mine = ShardPlace(1, 2, "plan")
    a = save(tmp_path / "a.h5", images(), shard=mine)
    found = compare_with(a, tmp_path, images(), shard=place)
    assert found.shard == (mine, place)
    assert not found.same


def test_caches_without_a_common_image_or_without_any_are_compared(a, tmp_path):
    found = compare_with(a, tmp_path, [])
    assert (found.common, len(found.only_a), found.only_b) == (0, 5, [])
    assert compare(tmp_path / "b.h5", tmp_path / "b.h5").same


def test_another_format_version_does_not_count(a, tmp_path, monkeypatch):
    monkeypatch.setattr("cache.writer.FORMAT_VERSION", "1.9")
    found = compare_with(a, tmp_path, images())
    assert found.format_version[1] == "1.9"
    assert found.same


@pytest.mark.parametrize("side", [0, 1])
def test_a_damaged_cache_is_refused(tmp_path, recipe, side):
    paths = [write(tmp_path / f"{name}.h5", recipe, LENGTHS) for name in "ab"]
    with h5py.File(paths[side], "r+") as file:
        file["features"][0, 0] = 7
    with pytest.raises(CacheError, match=rf"{'ab'[side]}\.h5"):
        compare(*paths)


def test_blocks_smaller_than_an_image_find_the_same(a, tmp_path, monkeypatch):
    other = images([3, 1, 2, 5, 2])
    for image in (other[0], other[2], other[4]):
        image[1][-1] += 1
        image[2][0] += 1
    other = [other[i] for i in (1, 2, 0, 3, 4)]
    at_once = compare_with(a, tmp_path, other)
    assert len(at_once.images) == 4
    monkeypatch.setitem(compare.__globals__, "_BLOCK_VALUES", 8)
    assert compare(a, tmp_path / "b.h5") == at_once


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_single_change_is_reported_and_no_other(a, tmp_path, data):
    other = images()
    image = data.draw(st.sampled_from(other))
    image_id, patch = image[0].image_id, data.draw(st.integers(0, len(image[1]) - 1))
    kind = data.draw(st.sampled_from([*ImageRow._fields[1:], "coords", "features"]))
    if kind == "features":
        image[1].view(np.uint16)[patch, data.draw(st.integers(0, 3))] ^= 1 << data.draw(
            st.integers(0, 9)
        )
    elif kind == "coords":
        image[2][patch, data.draw(st.integers(0, 1))] ^= 1 << data.draw(st.integers(0, 30))
    elif type(getattr(image[0], kind)) is int:
        image[0] = image[0]._replace(**{kind: data.draw(st.integers(1000, 2**31 - 1))})
    else:
        image[0] = image[0]._replace(**{kind: "c" * 64})
    found = compare_with(a, tmp_path, other)
    assert not found.same
    (difference,) = found.images
    assert difference.image_id == image_id
    assert list(difference.columns) == ([kind] if kind in ImageRow._fields else [])
    assert difference.coords == (1 if kind == "coords" else 0)
    assert (difference.features.patches if difference.features else 0) == (kind == "features")
    assert (found.only_a, found.only_b, found.moved, found.recipe) == ([], [], [], {})

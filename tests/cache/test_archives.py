"""Files of released format versions stay readable; neither they nor this test are ever edited."""

import hashlib
import json
from pathlib import Path

import h5py
import pytest

from cache import Failure, FeatureCache, ImageRow, Recipe, verify

ARCHIVES = Path(__file__).parents[1] / "data" / "archives"


@pytest.mark.parametrize("name", ["whole", "shard"])
def test_format_1_0_is_read_value_for_value(name):
    path = ARCHIVES / "1.0" / f"{name}.h5"
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    with FeatureCache(path) as cache:
        assert cache.recipe == Recipe.from_json(json.dumps(expected["recipe"]))
        assert cache.fingerprint == expected["fingerprint"]
        assert cache.failures == [Failure(*failure) for failure in expected["failures"]]
        assert cache.images.rows() == [ImageRow(*image["row"]) for image in expected["images"]]
        assert cache.features().dtype == expected["recipe"]["dtype"]
        for i, image in enumerate(expected["images"]):
            assert cache.sequence(i).tolist() == image["features"]
            assert cache.coords(i).tolist() == image["coords"]
    assert verify(path) == []


def test_format_1_0_is_read_by_the_recipe_of_format_md():
    path = ARCHIVES / "1.0" / "whole.h5"
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))["images"][1]
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"patch-feature-cache"
        assert "complete" in file.attrs
        ids = file["images/image_id"].asstr()[:].tolist()
        offsets = file["offsets"][:]
        i = ids.index("SOB_M_DC-14-2523-40-010")
        sequence = file["features"][offsets[i] : offsets[i + 1]]
    assert sequence.tolist() == expected["features"]


def test_the_fixtures_are_the_frozen_ones():
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ARCHIVES / "1.0").iterdir()
    }
    assert digests == {
        "shard.h5": "3ea4d195c264b5e39963b06fbf0f2c185ba91f1d369a6e6c14d05a587f324bd5",
        "shard.json": "8ed618c8ca4d002074998457c5721eefa4b58be11c59d7359940876ee8eb396e",
        "whole.h5": "1e21aa55ee08cafe63f5d60e54b63e8fccc1b7cca823b2271111ad03a519a253",
        "whole.json": "e51c7e3d29b29f8fd90bd812087110c2a67041e94c9cc06cbf3ce05c38cadba2",
    }


@pytest.mark.parametrize("name", ["whole", "shard"])
def test_format_1_1_is_read_value_for_value(name):
    path = ARCHIVES / "1.1" / f"{name}.h5"
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    with FeatureCache(path) as cache:
        assert cache.recipe == Recipe.from_json(json.dumps(expected["recipe"]))
        assert cache.fingerprint == expected["fingerprint"]
        assert cache.failures == [Failure(*failure) for failure in expected["failures"]]
        assert cache.images.rows() == [ImageRow(*image["row"]) for image in expected["images"]]
        assert cache.features().dtype == expected["recipe"]["dtype"]
        views = len(expected["recipe"]["views"])
        for i, image in enumerate(expected["images"]):
            features = [row for view in range(views) for row in cache.sequence(i, view).tolist()]
            coords = [row for view in range(views) for row in cache.coords(i, view).tolist()]
            assert (features, coords) == (image["features"], image["coords"])
            found = cache.statistics[i]
            assert found.colour.tolist() == image["statistics"]["colour"]
            assert found.perceptual_hash.tolist() == image["statistics"]["perceptual_hash"]
            assert found.pixels_sha256 == image["statistics"]["pixels_sha256"]
    assert verify(path) == []


@pytest.mark.parametrize("name", ["whole", "shard"])
def test_format_1_0_has_no_statistics_and_one_view(name):
    with FeatureCache(ARCHIVES / "1.0" / f"{name}.h5") as cache:
        assert cache.statistics is None
        assert cache.all_views().tolist() == [0] * cache.patches


def test_the_fixtures_of_format_1_1_are_the_frozen_ones():
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ARCHIVES / "1.1").iterdir()
    }
    assert digests == {
        "shard.h5": "ba25fbc4a426adfab75b36bd55748598d4a08c9260e0a486e84c5c6f73f2ab6e",
        "shard.json": "f1823a030438994de9e47e0ae2c2a747148030ffc7ca14c8f53c0324015d6ff0",
        "whole.h5": "25be24dead9f3dd53936afd99550c90750d3638036a6d4dfef388a9b4e4bfc7c",
        "whole.json": "1518cda2da2bf3607f8362f3de976580091bbbf8711338c379b79880b433d689",
    }

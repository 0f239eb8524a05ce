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

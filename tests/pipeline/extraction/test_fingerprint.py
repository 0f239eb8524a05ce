"""Whatever the user can choose that changes a feature changes the fingerprint."""

import dataclasses

import pytest

from pipeline.extraction.extract import ExtractOptions
from pipeline.extraction.recipe import PRECISIONS, PatchOptions, vgg16_recipe

WEIGHTS = "a" * 64
OTHER = {
    "patch_size": 128,
    "stride": 112,
    "edge": "pad",
    "dtype": "float32",
    "layers": ("conv3_3",),
    "pooling": "mean",
    "views": ("identity", "flip_x"),
    "min_tissue": 0.1,
}
PLAIN = PatchOptions(layers=("pool5",), pooling="mean", views=("identity",))


def fingerprint(weights="custom", sha256=WEIGHTS, precision="float32", **patches):
    return vgg16_recipe(PatchOptions(**patches), weights, sha256, precision).fingerprint


VGG16_FIELDS = [f.name for f in dataclasses.fields(PatchOptions) if f.name != "encoder"]
"""Another encoder has another recipe altogether: see test_encoders.py."""


@pytest.mark.parametrize("field", VGG16_FIELDS)
def test_every_option_of_the_patches_does(field):
    assert fingerprint(**{field: OTHER[field]}) != fingerprint()


def test_the_recipe_of_plain_pooled_features_never_changes():
    """Or every cache of the last pooling layer would have to be made again."""
    frozen = "e23c2e661ee89b9793c2d803c81a124c738e31f288efd03977e751fb7a3d5d66"
    assert vgg16_recipe(PLAIN, "custom", WEIGHTS, "float32").fingerprint == frozen


def test_weights_and_precision_do():
    variants = [fingerprint(precision=precision) for precision in PRECISIONS]
    variants += [fingerprint(sha256="b" * 64), fingerprint(weights="imagenet")]
    assert len(set(variants)) == len(variants)


def test_no_option_of_an_extraction_is_forgotten():
    """A new option is sorted here: into the recipe, or among those that change no feature."""
    in_recipe = {"patches", "precision"}
    changes_nothing = {
        "device",
        "engine",
        "threads",
        "allow_failures",
        "overwrite",
        "images_per_shard",
        "part",
    }
    names = {field.name for field in dataclasses.fields(ExtractOptions)}
    assert names == in_recipe | changes_nothing

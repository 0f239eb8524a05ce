"""Whatever the user can choose that changes a feature changes the fingerprint."""

import dataclasses

import pytest

from pipeline.extraction.extract import ExtractOptions
from pipeline.extraction.recipe import PRECISIONS, PatchOptions, vgg16_recipe

WEIGHTS = "a" * 64
OTHER = {"patch_size": 128, "stride": 112, "edge": "pad", "dtype": "float32"}


def fingerprint(weights="custom", sha256=WEIGHTS, precision="float32", **patches):
    return vgg16_recipe(PatchOptions(**patches), weights, sha256, precision).fingerprint


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PatchOptions)])
def test_every_option_of_the_patches_does(field):
    assert fingerprint(**{field: OTHER[field]}) != fingerprint()


def test_weights_and_precision_do():
    variants = [fingerprint(precision=precision) for precision in PRECISIONS]
    variants += [fingerprint(sha256="b" * 64), fingerprint(weights="imagenet")]
    assert len(set(variants)) == len(variants)


def test_no_option_of_an_extraction_is_forgotten():
    """A new option is sorted here: into the recipe, or among those that change no feature."""
    in_recipe = {"patches", "precision"}
    changes_nothing = {"device", "threads", "allow_failures", "overwrite", "images_per_shard"}
    names = {field.name for field in dataclasses.fields(ExtractOptions)}
    assert names == in_recipe | changes_nothing

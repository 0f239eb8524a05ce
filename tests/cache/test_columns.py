"""The columns of the features are told apart by the recipe alone."""

import pytest
from small_caches import make_recipe

from cache import RecipeError
from cache.columns import columns_of


def test_the_columns_are_means_then_deviations_in_the_order_of_the_layers():
    recipe = make_recipe(layer="features.15,features.30", pooling="mean+sd", feature_dim=1536)
    assert [(part.layer, part.pooled, part.columns) for part in columns_of(recipe)] == [
        ("features.15", "mean", slice(0, 256)),
        ("features.30", "mean", slice(256, 768)),
        ("features.15", "sd", slice(768, 1024)),
        ("features.30", "sd", slice(1024, 1536)),
    ]


def test_the_plain_recipe_has_one_part():
    (part,) = columns_of(make_recipe(feature_dim=512))
    assert part == ("features.30", "mean", slice(0, 512))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": "resnet50"},
        {"layer": "features.2"},
        {"layer": "features.30,"},
        {"pooling": "max"},
        {"feature_dim": 511},
    ],
)
def test_columns_that_are_not_known_are_not_guessed(changes):
    with pytest.raises(RecipeError):
        columns_of(make_recipe(**{"feature_dim": 512, **changes}))

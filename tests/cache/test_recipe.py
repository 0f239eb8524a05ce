"""The recipe, its canonical form and its fingerprint."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_caches import make_recipe

from cache import Recipe, RecipeError


def other_value(value):
    if isinstance(value, int):
        return value + 1
    return ("identity", "flip") if isinstance(value, tuple) else "float32"


def changed(field: dataclasses.Field) -> Recipe:
    value = getattr(make_recipe(), field.name)
    new = "float16" if value == "float32" else other_value(value)
    return make_recipe(**{field.name: new})


@pytest.mark.parametrize("field", dataclasses.fields(Recipe), ids=lambda field: field.name)
def test_every_field_changes_the_fingerprint(field):
    assert changed(field).fingerprint != make_recipe().fingerprint
    assert [line.split(":")[0] for line in make_recipe().differences(changed(field))] == [
        field.name
    ]


def test_the_fingerprint_is_the_digest_of_the_canonical_json():
    text = make_recipe().to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert make_recipe().fingerprint == hashlib.sha256(text.encode()).hexdigest()


@given(st.text(min_size=1), st.integers(1, 2**31 - 1))
def test_a_recipe_survives_its_json(name, number):
    recipe = make_recipe(encoder=name, stride=number)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 0},
        {"stride": True},
        {"stride": 1.5},
        {"encoder": ""},
        {"encoder": None},
        {"views": ["identity"]},
        {"views": ()},
        {"dtype": "int8"},
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(change):
    with pytest.raises(RecipeError, match=next(iter(change))):
        make_recipe(**change)


def test_missing_and_unexpected_fields_are_named():
    values = json.loads(make_recipe().to_json())
    del values["stride"]
    values["strid"] = 1
    with pytest.raises(RecipeError, match=r"missing \['stride'\], unexpected \['strid'\]"):
        Recipe.from_json(json.dumps(values))


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_other_text_is_refused_with_the_own_error(text):
    with pytest.raises(RecipeError):
        Recipe.from_json(text)

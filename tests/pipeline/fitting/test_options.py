"""Choices are checked, and tries are read as what they say."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.fitting.options import FitOptions, layer_names


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("hidden", 0), ("hidden", True), ("hidden", 2.0), ("hidden", "3"), ("lstm_layers", 17)),
        *(("members", 0), ("steps", -1), ("checks", 0), ("batch_size", 0), ("components", -1)),
        *(("seed", -1), ("seed", 2**32), ("train_magnification", -1), ("projection", 8193)),
        *(("dropout", 1.0), ("dropout", float("nan")), ("learning_rate", 0.0)),
        *(("learning_rate", float("inf")), ("weight_decay", -1.0), ("weight_decay", float("nan"))),
        *(("target", "case"), ("pooled", "max"), ("compression", "square"), ("compression", None)),
    ],
)
def test_a_choice_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"{name} is "):
        FitOptions(**{name: value})


def test_tries_change_what_they_name_and_keep_the_rest():
    tries = (
        "components=64 hidden=16",
        "layers=conv2_2,pool5 pooled=sd bidirectional=false",
        "learning_rate=1e-2 dropout=0",
    )
    options = FitOptions(hidden=8, seed=3, tries=tries)
    first, *others = options.alternatives()
    assert first is options
    expected = [
        {"components": 64, "hidden": 16},
        {"layers": ("conv2_2", "pool5"), "pooled": "sd", "bidirectional": False},
        {"learning_rate": 0.01, "dropout": 0.0},
    ]
    assert others == [dataclasses.replace(options, **change) for change in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a try is empty"),
        ("hidden", "'' is no hidden"),
        ("hidden=x", "'x' is no hidden"),
        ("hidden=0", "hidden is 0"),
        ("seed=1", "'seed' cannot be tried"),
        ("bidirectional=maybe", "'maybe' is no bidirectional"),
        ("pooled=max", "pooled is 'max'"),
        ("dropout=nan", "dropout is nan"),
    ],
)
def test_a_wrong_try_is_refused_by_name(text, message):
    with pytest.raises(UsageError, match=message):
        FitOptions(tries=(text,)).alternatives()


@given(st.text(max_size=30))
def test_any_try_gives_options_or_an_error(text):
    try:
        found = FitOptions(tries=(text,)).alternatives()
    except UsageError:
        return
    assert len(found) == 2


def test_names_of_layers_are_told_apart_by_commas():
    assert layer_names(" conv2_2, pool5 ,") == ("conv2_2", "pool5")
    assert layer_names("") == ()

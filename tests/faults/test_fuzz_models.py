"""Damaged models and fits are read or refused, never anything else, at once."""

import json
import math
import struct

import numpy as np
import pytest
import torch
from forged_models import joined, parts_of, with_metadata, with_sizes, with_values, write_model
from hypothesis import given, settings
from hypothesis import strategies as st
from small_caches import DIM

from pipeline.errors import UsageError
from pipeline.fitting.model_file import load_model
from pipeline.fitting.sequences import Sequences


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors").read_bytes()


NUMBERS = st.one_of(
    *(st.integers(), st.integers(1, 5), st.floats(), st.booleans(), st.none(), st.text(max_size=3)),
    st.sampled_from([2**31, 2**63, 10**30, -1, 0, 65536, 65537, 8192]),
)
NAMES = st.sampled_from(
    [
        *("members", "inputs", "outputs", "projection", "hidden", "layers", "bidirectional"),
        *("dropout", "more"),
    ]
)


@settings(max_examples=150)
@given(changes=st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=3))
def test_any_sizes_give_the_model_of_those_sizes_or_an_error(tmp_path_factory, sound, changes):
    path = tmp_path_factory.getbasetemp() / "model.safetensors"
    path.write_bytes(with_sizes(sound, **changes))
    try:
        model = load_model(path)
    except UsageError as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert all(getattr(model.network.sizes, name) == value for name, value in changes.items())


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 2**32, 2**62, 2**64 - 1]), max_size=4)


@settings(max_examples=150)
@given(
    name=st.sampled_from(
        ["temperature", "threshold", "limit", "classes", "target", "fold", "protocol"]
    ),
    text=st.one_of(
        NUMBERS.map(json.dumps),
        st.text(max_size=5),
        st.lists(st.text(max_size=2), max_size=4).map(json.dumps),
        st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "0.0", "-0.0", "1", "[" * 9999]),
    ),
)
def test_any_text_of_the_header_gives_a_model_that_can_answer_or_an_error(
    tmp_path_factory, sound, name, text
):
    path = tmp_path_factory.getbasetemp() / "model.safetensors"
    path.write_bytes(with_metadata(sound, **{name: text}))
    try:
        model = load_model(path)
    except UsageError as error:
        assert str(error).startswith(f"{path}: ")
        assert str(error).isprintable()
        return
    answer = model.answer(Sequences(torch.ones(2, DIM), torch.tensor([0, 1, 2])))
    assert answer.probabilities.shape == (2, 1)
    assert np.isfinite(answer.probabilities).all()
    assert (answer.distances >= 0).all()
    assert 0 <= model.threshold <= 1


@settings(max_examples=100)
@given(
    columns=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 5), min_size=3, max_size=3)
)
def test_any_columns_are_those_of_the_features_or_an_error(tmp_path_factory, sound, columns):
    path = tmp_path_factory.getbasetemp() / "model.safetensors"
    path.write_bytes(with_values(sound, "whitening.columns", struct.pack("<3q", *columns)))
    try:
        model = load_model(path)
    except UsageError as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert all(0 <= column < DIM for column in columns)
    assert model.whitening.columns.tolist() == columns


@settings(max_examples=150)
@given(
    name=st.integers(0, 30),
    dtype=st.sampled_from(["F32", "F16", "I64", "BOOL", "U8"]),
    shape=SHAPES,
    start=st.integers(0, 2**64),
    length=st.none() | st.integers(0, 2**64),
)
def test_any_description_of_an_array_is_that_of_the_model_or_an_error(
    tmp_path_factory, sound, name, dtype, shape, start, length
):
    header, arrays = parts_of(sound)
    key = sorted(header.keys() - {"__metadata__"})[name % (len(header) - 1)]
    end = start + (math.prod(shape) * 4 if length is None else length)
    was, header[key] = header[key], {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    path = tmp_path_factory.getbasetemp() / "model.safetensors"
    path.write_bytes(joined(header, arrays))
    try:
        load_model(path)
    except UsageError as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert header[key] == was

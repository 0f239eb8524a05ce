"""Damaged models and fits are read or refused, never anything else, at once."""

import math

import pytest
from forged_models import joined, parts_of, with_sizes, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.fitting.model_file import load_model


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors").read_bytes()


NUMBERS = st.one_of(
    *(st.integers(), st.integers(1, 5), st.floats(), st.booleans(), st.none(), st.text(max_size=3)),
    st.sampled_from([2**31, 2**63, 10**30, -1, 0, 65536, 65537, 8192]),
)
NAMES = st.sampled_from(
    ["feature_dim", "projection", "hidden", "layers", "bidirectional", "dropout", "more"]
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
    name=st.integers(0, 14),
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

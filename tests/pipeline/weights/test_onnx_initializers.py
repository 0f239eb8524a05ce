"""The reader of ONNX initializers, against the onnx package and against damaged bytes."""

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pipeline.weights import onnx_initializers
from pipeline.weights.onnx_initializers import OnnxError, conv_parameters

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.standard_normal((2, 3, 3, 3), dtype=np.float32)
SECOND = RANDOM.standard_normal((4, 2, 1, 1), dtype=np.float32)
BIAS = RANDOM.standard_normal(2, dtype=np.float32)


def model(nodes=None, initializers=None):
    """Two convolutions, the second without a bias, and what else a graph may hold."""
    nodes = nodes or [
        helper.make_node("Transpose", ["in"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "k1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["c1"], ["r1"], alpha=0.5),
        helper.make_node("Conv", ["r1", "k2", ""], ["out"], name="second"),
    ]
    initializers = initializers or [
        numpy_helper.from_array(SECOND, "k2"),
        numpy_helper.from_array(np.arange(3), "not used"),
        helper.make_tensor("b1", TensorProto.FLOAT, BIAS.shape, BIAS.tolist()),
        numpy_helper.from_array(FIRST, "k1"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("in", "out")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    made = helper.make_model(graph, producer_name="test")
    made.ClearField("opset_import")  # so that the graph is the last field
    return made.SerializeToString()


MODEL = model()


def test_parameters_are_those_that_the_onnx_package_reads_in_node_order():
    first, second = conv_parameters(MODEL)
    stored = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(MODEL).graph.initializer
    }
    np.testing.assert_array_equal(first.weight, stored["k1"])
    np.testing.assert_array_equal(first.bias, stored["b1"])
    np.testing.assert_array_equal(second.weight, stored["k2"])
    assert second.bias is None


def test_dimensions_may_be_packed():
    tensor = numpy_helper.from_array(BIAS, "b1").SerializeToString()
    assert tensor.startswith(b"\x08\x02")  # dims, one by one
    packed = onnx_initializers._tensor(memoryview(b"\x0a\x01\x02" + tensor[2:]))
    assert packed.shape == (2,)


def test_a_model_without_convolutions_has_no_parameters():
    assert conv_parameters(model(nodes=[helper.make_node("Relu", ["in"], ["out"])])) == []


def external():
    tensor = numpy_helper.from_array(FIRST, "k1")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def wrong_size():
    tensor = numpy_helper.from_array(FIRST, "k1")
    tensor.raw_data = tensor.raw_data[:-4]
    return tensor


def with_dims(dims):
    tensor = numpy_helper.from_array(FIRST, "k1")
    tensor.ClearField("dims")
    tensor.dims.extend(dims)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (numpy_helper.from_array(FIRST, "other"), "'k1' is not an initializer"),
        (numpy_helper.from_array(FIRST.astype(np.float64), "k1"), "has data type 11, expected 1"),
        (external(), "lies in another file"),
        (wrong_size(), r"holds 212 bytes, expected 216"),
        (with_dims([-2, 27]), "not a positive number"),
        (with_dims([0, 27]), "not a positive number"),
        (with_dims([1] * 9), "9 dimensions, at most 8"),
    ],
)
def test_an_initializer_that_cannot_be_used_is_refused(tensor, reason):
    with pytest.raises(OnnxError, match=reason):
        conv_parameters(model([helper.make_node("Conv", ["in", "k1"], ["out"])], [tensor]))


def test_a_convolution_without_a_kernel_is_refused():
    with pytest.raises(OnnxError, match="has 1 inputs"):
        conv_parameters(model([helper.make_node("Conv", ["in"], ["out"])]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 graphs"),
        (b"\x3a\x00\x3a\x00", "2 graphs"),
        (b"\x38\x01", "a number stands where bytes"),
        (b"\x3a\x05\x00", "5 bytes announced, 1 there"),
        (b"\x3a" + b"\xff" * 10, "a number does not end"),
        (b"\x3a\x80", "a number does not end"),
        (b"\x00\x00", "number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x3a\x06\x0a\x04\x22\x02\xff\xfe", "not UTF-8"),
        (b"\x08\x00" * 100_001, "more than 100,000 fields"),
    ],
)
def test_malformed_bytes_are_refused_with_the_reason(content, reason):
    with pytest.raises(OnnxError, match=reason):
        conv_parameters(content)


@given(st.binary(max_size=200))
def test_any_bytes_give_parameters_or_the_projects_error(content):
    with suppress(OnnxError):
        conv_parameters(content)


@given(cut=st.integers(0, len(MODEL) - 1))
def test_a_model_cut_anywhere_never_gives_its_parameters(cut):
    with pytest.raises(OnnxError):
        conv_parameters(MODEL[:cut])


@settings(max_examples=300)
@given(changes=st.dictionaries(st.integers(0, len(MODEL) - 1), st.integers(0, 255), max_size=4))
def test_a_damaged_model_gives_parameters_or_the_projects_error(changes):
    damaged = bytearray(MODEL)
    for at, value in changes.items():
        damaged[at] = value
    with suppress(OnnxError):
        conv_parameters(bytes(damaged))

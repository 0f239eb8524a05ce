"""Read the convolution parameters out of an ONNX model, without the onnx package.

A reader of the protobuf wire format for the few messages that are needed. Field numbers are
those of onnx.proto: ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.input 1,
op_type 4; TensorProto.dims 1, data_type 2, float_data 4, name 8, raw_data 9, data_location 14.
Every length is checked against the bytes that are there, and nothing recurses.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

MAX_FIELDS = 100_000
"""Fields in one message; more is taken for bytes that are not a model."""

MAX_DIMS = 8
"""Dimensions of one tensor."""

_FLOAT = 1
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}


class OnnxError(UsageError):
    """The bytes are not a model that can be used; the message does not name the file."""


class ConvParameters(NamedTuple):
    """Parameters of one `Conv` node: kernel (O, I, kh, kw), and bias (O,) where it has one."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    data_type: int
    data: memoryview
    external: bool


def conv_parameters(model: bytes) -> list[ConvParameters]:
    """Read the parameters of the `Conv` nodes of a model's graph.

    Args:
        model: the content of an ONNX file.

    Returns:
        One entry for each `Conv` node, in node order. The arrays are read-only views of `model`.

    Raises:
        OnnxError: the bytes are malformed, or a `Conv` node's parameters are not float32
            initializers that the file holds.
    """
    nodes: list[list[str]] = []
    tensors: dict[str, _Tensor] = {}
    for number, value in _fields(_graph(memoryview(model))):
        if number == 1:
            op_type, inputs = _node(_message(value))
            if op_type == "Conv":
                nodes.append(inputs)
        elif number == 5:
            tensor = _tensor(_message(value))
            tensors[tensor.name] = tensor
    return [_parameters(inputs, tensors) for inputs in nodes]


def _parameters(inputs: list[str], tensors: dict[str, _Tensor]) -> ConvParameters:
    if len(inputs) not in (2, 3):
        raise OnnxError(f"a Conv node has {len(inputs)} inputs, expected 2 or 3")
    weight = _array(inputs[1], tensors)
    # An optional input that is left out has an empty name.
    bias = _array(inputs[2], tensors) if len(inputs) == 3 and inputs[2] else None
    return ConvParameters(weight, bias)


def _array(name: str, tensors: dict[str, _Tensor]) -> NDArray[np.float32]:
    if name not in tensors:
        raise OnnxError(f"the Conv input {name!r} is not an initializer of the graph")
    tensor = tensors[name]
    if tensor.external:
        raise OnnxError(f"initializer {name!r} lies in another file, expected it inside the model")
    if tensor.data_type != _FLOAT:
        raise OnnxError(
            f"initializer {name!r} has data type {tensor.data_type}, expected 1 (float)"
        )
    expected = 4 * math.prod(tensor.shape)
    if len(tensor.data) != expected:
        raise OnnxError(
            f"initializer {name!r} of shape {tensor.shape} holds {len(tensor.data)} bytes, "
            f"expected {expected}"
        )
    return np.frombuffer(tensor.data, dtype="<f4").reshape(tensor.shape)


def _graph(model: memoryview) -> memoryview:
    graphs = [_message(value) for number, value in _fields(model) if number == 7]
    if len(graphs) != 1:
        raise OnnxError(f"not an ONNX model: {len(graphs)} graphs, expected 1")
    return graphs[0]


def _node(message: memoryview) -> tuple[str, list[str]]:
    """Operator and names of the inputs."""
    op_type, inputs = "", []
    for number, value in _fields(message):
        if number == 1:
            inputs.append(_text(value))
        elif number == 4:
            op_type = _text(value)
    return op_type, inputs


def _tensor(message: memoryview) -> _Tensor:
    name, data_type, data, external = "", 0, memoryview(b""), False
    shape: list[int] = []
    for number, value in _fields(message):
        if number == 1:
            shape += _dims(value)
        elif number == 2:
            data_type = _number(value)
        elif number in (4, 9):
            # Packed floats and raw bytes are the same bytes on the wire.
            data = _message(value)
        elif number == 8:
            name = _text(value)
        elif number == 14:
            external = _number(value) != 0
    if len(shape) > MAX_DIMS:
        raise OnnxError(f"initializer {name!r} has {len(shape)} dimensions, at most {MAX_DIMS}")
    return _Tensor(name, tuple(shape), data_type, data, external)


def _dims(value: int | memoryview) -> list[int]:
    """One dimension, or packed ones."""
    if isinstance(value, int):
        dims = [value]
    else:
        dims, at = [], 0
        while at < len(value) and len(dims) <= MAX_DIMS:
            dim, at = _varint(value, at)
            dims.append(dim)
    if not all(0 < dim < 2**31 for dim in dims):
        raise OnnxError("an initializer has a dimension that is not a positive number")
    return dims


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number, and an int (varint) or the bytes (every other kind)."""
    at = 0
    for _ in range(MAX_FIELDS):
        if at == len(message):
            return
        key, at = _varint(message, at)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise OnnxError("not an ONNX model: a field has the number 0")
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = _size(message, at, wire_type)
        if size > len(message) - at:
            raise OnnxError(
                f"damaged or truncated: {size} bytes announced, {len(message) - at} there"
            )
        yield number, message[at : at + size]
        at += size
    if at != len(message):
        raise OnnxError(f"not an ONNX model: more than {MAX_FIELDS:,} fields in one message")


def _size(message: memoryview, at: int, wire_type: int) -> tuple[int, int]:
    """Length of a field's bytes, and where they start."""
    if wire_type == _LENGTH:
        return _varint(message, at)
    if wire_type in _FIXED_SIZE:
        return _FIXED_SIZE[wire_type], at
    raise OnnxError(f"not an ONNX model: a field has the wire type {wire_type}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in base 128, least significant first, and where it ends."""
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise OnnxError("damaged or truncated: a number does not end")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise OnnxError("not an ONNX model: a number stands where bytes were expected")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise OnnxError("not an ONNX model: bytes stand where a number was expected")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return str(_message(value), "utf-8")
    except UnicodeDecodeError as error:
        raise OnnxError("not an ONNX model: a name is not UTF-8") from error

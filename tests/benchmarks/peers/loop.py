"""The loop around a library that a researcher would write: files in, features out.

    python loop.py LIBRARY WEIGHTS LIST OUT

LIBRARY is torch, onnxruntime or openvino; LIST names image files, one a line; OUT is an array
(images, patches, 512) of the means over VGG16's last pooling. Every library uses all CPUs, in the
way that its own documentation shows first.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

SIDE = 224
MEAN = np.array([123.68, 116.779, 103.939], np.float32)
POOLED_AFTER = (1, 3, 6, 9, 12)  # convolutions, counted from 0

Network = Callable[[np.ndarray], np.ndarray]
"""Pixels (n, 3, 224, 224), centred, to maps (n, 512, 7, 7)."""


def main() -> None:
    library, weights, files, out = sys.argv[1:]
    network = NETWORKS[library](load_file(weights))
    features = []
    for file in Path(files).read_text().splitlines():
        pixels = np.asarray(Image.open(file).convert("RGB"), np.float32) - MEAN
        rows, columns = (length // SIDE for length in pixels.shape[:2])
        patches = np.stack(
            [
                pixels[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE].transpose(2, 0, 1)
                for y in range(rows)
                for x in range(columns)
            ]
        )
        features.append(network(np.ascontiguousarray(patches)).mean(axis=(2, 3)))
    np.save(out, np.stack(features))


def torch_network(weights: dict[str, np.ndarray]) -> Network:
    """torchvision's own network, channels first."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for number, (kernel, bias) in enumerate(convolutions(weights)):
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        layer.weight.data, layer.bias.data = torch.from_numpy(kernel), torch.from_numpy(bias)
        layers += [layer, nn.ReLU(inplace=True)]
        if number in POOLED_AFTER:
            layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(*layers).eval()

    def run(patches: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(patches)).numpy()

    return run


def convolutions(weights: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    names = sorted({name.rpartition(".")[0] for name in weights}, key=lambda n: int(n[9:]))
    return [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names]


def onnx_model(weights: dict[str, np.ndarray]) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, arrays, last = [], [], "pixels"
    for number, (kernel, bias) in enumerate(convolutions(weights)):
        arrays += [numpy_helper.from_array(kernel, f"w{number}")]
        arrays += [numpy_helper.from_array(bias, f"b{number}")]
        inputs = [last, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
        if number in POOLED_AFTER:
            sizes = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [last], [f"p{number}"], **sizes))
            last = f"p{number}"
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    maps = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 512, 7, 7])
    graph = helper.make_graph(nodes, "vgg16", [pixels], [maps], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def onnxruntime_network(weights: dict[str, np.ndarray]) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_model(weights))
    return lambda patches: session.run(None, {"pixels": patches})[0]


def openvino_network(weights: dict[str, np.ndarray]) -> Network:
    import openvino

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16, on CPUs that have it
    compiled = core.compile_model(core.read_model(onnx_model(weights)), "CPU", exact)
    return lambda patches: compiled(patches)[0]


NETWORKS: dict[str, Callable[[dict[str, np.ndarray]], Network]] = {
    "torch": torch_network,
    "onnxruntime": onnxruntime_network,
    "openvino": openvino_network,
}

if __name__ == "__main__":
    main()

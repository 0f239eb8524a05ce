"""The encoder on ncnn, whose Winograd convolutions are the fastest on CPUs.

A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016. Features
differ from those of torch by about 1e-6 of the largest.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.extraction.engines.encoder import Pending
from pipeline.extraction.engines.pool import pool
from pipeline.extraction.recipe import RGB_MEAN, PatchOptions
from pipeline.weights.weights_file import Weights

_PARAM_MAGIC = 7767517
_RAW_FLOAT32 = b"\0\0\0\0"
_INPUT = "patch"


def ncnn_version() -> str | None:
    """The version of ncnn, or None if it cannot be imported."""
    try:
        import ncnn
    except ImportError:
        return None
    return str(ncnn.__version__)


class NcnnEncoder:
    """VGG16 and the mean (and spread) over some layers' maps; attributes as `Encoder` has them.

    Each call computes on the thread that calls, so that several encode at once, with one set of
    weights, and features do not depend on how many they are.

    Args:
        weights: of the network.
        options: name the layers and their pooling.
        threads: that will call, to be told.
    """

    batch_size = 1
    in_flight = 1
    side_by_side = True

    def __init__(self, weights: Weights, options: PatchOptions, threads: int) -> None:
        self.engine = f"ncnn {ncnn_version()}"
        self.device_name = f"cpu, {threads} threads"
        self._mean = np.array(RGB_MEAN, np.float32)  # (3,)
        self._ends = options.recipe_layers
        self._with_spread = options.pooling == "mean+sd"
        # ncnn refers to these bytes, it does not copy them.
        self._model = b"".join(_model(weights.arrays, _layers(weights.arrays, self._ends)))
        self._net = _load(weights.arrays, self._ends, self._model)

    def submit(self, patches: NDArray[np.uint8]) -> Pending:
        """See `Encoder.submit`; the work is done when this returns."""
        features = self.encode(patches)
        return lambda: features

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode patches (B, H, W, 3), RGB: (B, D), means of all layers, then deviations.

        Raises:
            PipelineError: ncnn fails.
        """
        return np.stack([self._encode_one(patch) for patch in patches])

    def _encode_one(self, patch: NDArray[np.uint8]) -> NDArray[np.float32]:
        pooled = pool(self._maps(patch), self._with_spread)
        features: NDArray[np.float32] = pooled.numpy()  # (D,)
        return features

    def _maps(self, patch: NDArray[np.uint8]) -> list[torch.Tensor]:
        """The outputs (C, H', W') of the layers that are pooled, of a patch (H, W, 3)."""
        import ncnn

        centred = np.ascontiguousarray((patch - self._mean).transpose(2, 0, 1))  # (3, H, W)
        extractor = self._net.create_extractor()
        extractor.input(_INPUT, ncnn.Mat(centred))
        maps = []
        for end in self._ends:
            code, mat = extractor.extract(end)
            if code != 0:
                raise PipelineError(f"ncnn fails at {end} (code {code}): use --engine torch")
            maps.append(torch.from_numpy(np.array(mat, copy=False)))
        return maps


def _load(arrays: Mapping[str, NDArray[np.float32]], ends: Sequence[str], model: bytes) -> Any:  # noqa: ANN401 - ncnn has no types
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    # Half precision would be used where the CPU has it.
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    layers = _layers(arrays, ends)
    lines = [str(_PARAM_MAGIC), f"{len(layers) + 1} {len(layers) + 1}", f"Input in 0 1 {_INPUT}"]
    names = [_INPUT, *layers]
    for below, name in pairwise(names):
        lines.append(_param_line(below, name, arrays.get(f"{layers[name]}.weight")))
    if net.load_param_mem("\n".join([*lines, ""])) != 0:
        raise PipelineError("ncnn does not take the network: use --engine torch")
    net.load_model_mem(model)
    return net


def _param_line(below: str, name: str, kernel: NDArray[np.float32] | None) -> str:
    """A convolution of 3×3 with padding 1 and ReLU, or pooling of 2×2 that drops odd edges."""
    if kernel is None:
        return f"Pooling {name} 1 1 {below} {name} 0=0 1=2 2=2 5=1"
    sizes = f"0={kernel.shape[0]} 1=3 4=1 5=1 6={kernel.size} 9=1"
    return f"Convolution {name} 1 1 {below} {name} {sizes}"


def _layers(arrays: Mapping[str, NDArray[np.float32]], ends: Sequence[str]) -> dict[str, str]:
    """Layers up to the last of `ends`, by the name of their output, ReLUs with what they follow.

    The value is the name of the arrays of a convolution, empty for pooling.
    """
    last = int(ends[-1].removeprefix("features."))
    layers, number = {}, 0
    while number <= last:
        convolution = f"features.{number}"
        if f"{convolution}.weight" in arrays:
            layers[f"features.{number + 1}"] = convolution
            number += 2
        else:
            layers[convolution] = ""
            number += 1
    return layers


def _model(arrays: Mapping[str, NDArray[np.float32]], layers: Mapping[str, str]) -> Iterator[bytes]:
    """The weights as ncnn reads them: kernels (O, I, 3, 3), each behind a tag, and biases."""
    for convolution in filter(None, layers.values()):
        yield _RAW_FLOAT32
        yield np.ascontiguousarray(arrays[f"{convolution}.weight"], np.float32).tobytes()
        yield np.ascontiguousarray(arrays[f"{convolution}.bias"], np.float32).tobytes()

"""The encoder on torch: on CUDA, and on a CPU where nothing faster is there."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.extraction.engines.encoder import Pending
from pipeline.extraction.engines.pool import pool
from pipeline.extraction.recipe import RGB_MEAN, PatchOptions
from pipeline.torchvision_shim import import_torchvision
from pipeline.weights.weights_file import Weights

CPU_BATCH = 2
"""Patches a batch on the CPU: the activations of few patches stay near its caches."""

CUDA_BATCH = 128

_CUDA_IN_FLIGHT = 3

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchEncoder:
    """VGG16 and the mean (and spread) over some layers' maps; attributes as `Encoder` has them.

    Layers after the last one that is asked for are not computed.

    Args:
        weights: of the network.
        device: where it computes.
        precision: one of `PRECISIONS`; means and deviations are of float32 in any.
        options: name the layers and their pooling.
    """

    side_by_side = False

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        precision: str = "float32",
        options: PatchOptions | None = None,
    ) -> None:
        options = options or PatchOptions()
        self._prepare(device, precision, RGB_MEAN)
        stages = _stages(weights, options.recipe_layers)
        self._stages = [stage.to(device, self._dtype) for stage in stages]
        self._with_spread = options.pooling == "mean+sd"

    def _prepare(self, device: torch.device, precision: str, mean: Sequence[float]) -> None:
        """All but the network; `mean` is of the channels, that is subtracted."""
        on_cuda = device.type == "cuda"
        self.engine = f"torch {torch.__version__}"
        self.batch_size = CUDA_BATCH if on_cuda else CPU_BATCH
        self.in_flight = _CUDA_IN_FLIGHT if on_cuda else 1
        self._device, self._dtype = device, _DTYPES[precision]
        self._mean = torch.tensor(mean, device=device)  # (3,)
        self._idle: deque[_Staging] = deque()

    @property
    def device_name(self) -> str:
        """The device as a person knows it."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return f"cpu, {torch.get_num_threads()} threads"

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode patches (B, H, W, 3), B at most `batch_size`, and wait: (B, D)."""
        return self.submit(patches)()

    def submit(self, patches: NDArray[np.uint8]) -> Pending:
        """See `Encoder.submit`; on CUDA, copies and kernels are only queued when this returns."""
        staging = self._staging(patches.shape[1:])
        staging.fill(patches)
        with torch.inference_mode(), _exact_float32():
            pixels = staging.pixels.to(self._device, non_blocking=True)  # (B, H, W, 3) uint8
            centred = (pixels.float() - self._mean).to(self._dtype)  # (B, H, W, 3)
            features = self._pooled(centred.permute(0, 3, 1, 2))  # (B, D)
            staging.give(features)

        def result() -> NDArray[np.float32]:
            found = staging.take(len(patches))  # (B, D)
            self._idle.append(staging)
            return found

        return result

    def _staging(self, shape: Sequence[int]) -> "_Staging":
        """One that is not in use. There are never more of them than batches in flight."""
        while self._idle:
            staging = self._idle.popleft()
            if staging.pixels.shape[1:] == torch.Size(shape):
                return staging
        return _Staging(self.batch_size, shape, self._device)

    def _pooled(self, below: torch.Tensor) -> torch.Tensor:
        maps = []
        for stage in self._stages:
            below = stage(below)  # (B, C, H', W')
            maps.append(below)
        return pool(maps, self._with_spread)  # (B, D)


class _Staging:
    """Memory between numpy and a device, that a GPU reads and writes by itself.

    Every batch has the same shape: one choice of kernels, hence the same bits.
    """

    def __init__(self, batch_size: int, shape: Sequence[int], device: torch.device) -> None:
        pinned = device.type == "cuda"
        size = (batch_size, *shape)
        self.pixels = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned)  # (B, H, W, 3)
        self._features = torch.empty(0)
        self._done = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
        self._device = device

    def fill(self, patches: NDArray[np.uint8]) -> None:
        """Put up to B patches in; what is beyond them does not matter."""
        self.pixels[: len(patches)] = torch.from_numpy(patches)

    def give(self, features: torch.Tensor) -> None:
        """Begin to bring features (B, D) back."""
        if self._done is None:
            self._features = features
            return
        if self._features.shape != features.shape:
            self._features = torch.empty(features.shape, pin_memory=True)  # (B, D)
        self._features.copy_(features, non_blocking=True)
        self._done.record(torch.cuda.current_stream(self._device))

    def take(self, count: int) -> NDArray[np.float32]:
        """Wait for the first features: (count, D)."""
        if self._done is not None:
            self._done.synchronize()
        found: NDArray[np.float32] = self._features[:count].numpy().copy()
        return found


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Without this, cuDNN rounds float32 operands to 10 bits (TF32)."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _stages(weights: Weights, ends: Sequence[str]) -> list[torch.nn.Module]:
    """The network in pieces, each of which ends with one of the layers `ends`, in their order."""
    layers = _layers(weights)
    stops = [int(name.removeprefix("features.")) + 1 for name in ends]
    return [layers[start:stop] for start, stop in pairwise([0, *stops])]


def _layers(weights: Weights) -> torch.nn.Sequential:
    models = import_torchvision().models
    with torch.device("meta"):  # nothing is allocated for the classifier, which is not used
        layers: torch.nn.Sequential = models.vgg16(weights=None).features
    state = {
        name.removeprefix("features."): _channels_last(torch.from_numpy(array))
        for name, array in weights.arrays.items()
    }
    layers.load_state_dict(state, assign=True)
    layers.eval().requires_grad_(False)
    return layers


def _channels_last(array: torch.Tensor) -> torch.Tensor:
    """A kernel (O, I, 3, 3) in the layout that convolves pixels (B, H, W, C) without copying."""
    return array.contiguous(memory_format=torch.channels_last) if array.ndim == 4 else array

"""The frozen patch encoder: VGG16's convolutional layers, pooled over the maps of some."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.extraction.recipe import PRECISIONS, RGB_MEAN, PatchOptions
from pipeline.torchvision_shim import import_torchvision
from pipeline.weights.weights_file import Weights

CPU_BATCH = 2
"""Patches a batch on the CPU: the activations of few patches stay near its caches."""

CUDA_BATCH = 128

_AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: it is none of these, or CUDA was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"device {name}: torch {torch.__version__} finds no CUDA device here: "
            "use --device cpu, or check the driver with nvidia-smi"
        )
    device = torch.device(name)
    if (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise UsageError(
            f"device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0: "
            "choose one of them"
        )
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: float32 on the CPU, mixed float16 on CUDA.

    Raises:
        UsageError: it is none of `PRECISIONS`, or mixed precision was asked for on the CPU.
    """
    if name == "auto":
        return "float16" if device.type == "cuda" else "float32"
    if name not in PRECISIONS:
        raise UsageError(f"precision {name!r}: expected auto, {', '.join(PRECISIONS)}")
    if name != "float32" and device.type == "cpu":
        raise UsageError(f"precision {name}: on the CPU only float32 is offered")
    return name


class PatchEncoder:
    """VGG16 (configuration D), and the mean (and spread) over the positions of some layers' maps.

    Layers after the last one that is asked for are not computed. A patch's features do not depend,
    to the last bit, on the patches it shares a batch with.

    Args:
        weights: of the network.
        device: where it computes.
        precision: one of `PRECISIONS`.
        options: name the layers and their pooling.

    Attributes:
        device: where it computes.
        batch_size: patches that it likes to be given at once.
    """

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        precision: str,
        options: PatchOptions | None = None,
    ) -> None:
        options = options or PatchOptions()
        self.device = device
        self.batch_size = CUDA_BATCH if device.type == "cuda" else CPU_BATCH
        self._precision = precision
        self._mean = torch.tensor(RGB_MEAN, device=device)  # (3,)
        self._stages = [stage.to(device) for stage in _stages(weights, options.recipe_layers)]
        self._with_spread = options.pooling == "mean+sd"

    @property
    def device_name(self) -> str:
        """The device as a person knows it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu, {torch.get_num_threads()} threads"

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode patches.

        Args:
            patches: (B, H, W, 3), RGB, 0 to 255, B at most `batch_size`.

        Returns:
            (B, D): the means of all layers, in the order of the network, then their standard
            deviations if they were asked for.
        """
        with torch.inference_mode(), self._arithmetic():
            pixels = self._to_device(patches)  # (B, H, W, 3) uint8
            centred = pixels.float() - self._mean  # (B, H, W, 3)
            features = self._pooled(centred.permute(0, 3, 1, 2))  # (B, D)
            return features[: len(patches)].cpu().numpy()

    def _pooled(self, maps: torch.Tensor) -> torch.Tensor:
        means, deviations = [], []
        for stage in self._stages:
            maps = stage(maps)  # (B, C, H', W')
            means.append(maps.float().mean(dim=(2, 3)))  # (B, C)
            if self._with_spread:
                deviations.append(maps.float().std(dim=(2, 3), correction=0))  # (B, C)
        return torch.cat(means + deviations, dim=1)

    def _to_device(self, patches: NDArray[np.uint8]) -> torch.Tensor:
        pixels = torch.from_numpy(patches)
        missing = self.batch_size - len(pixels)
        if missing > 0:  # one shape for all batches: one choice of kernels, hence the same bits
            pixels = torch.cat([pixels, pixels[:1].expand(missing, -1, -1, -1)])
        if self.device.type == "cuda":
            return pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with ExitStack() as stack:
            # Without this, cuDNN rounds float32 operands to 10 bits (TF32).
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            if self._precision != "float32":
                dtype = _AUTOCAST[self._precision]
                stack.enter_context(torch.autocast(self.device.type, dtype=dtype))
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

"""What an encoder is: a network, what its pixels are made of, and the name that tells it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn


def output_shape(network: nn.Module, height: int, width: int) -> tuple[int, ...]:
    """Shape of what a network on the meta device makes of one patch; nothing is computed."""
    with torch.inference_mode(), torch.device("meta"):
        found: torch.Tensor = network.eval()(torch.empty(2, 3, height, width))
    return tuple(found.shape[1:])


@dataclass(frozen=True)
class Architecture:
    """An encoder without its weights.

    Attributes:
        name: what a user calls it, such as `resnet50` or `timm:resnet18`.
        library: the package that builds it.
        layer: what its features are taken from.
        feature_dim: D, of a patch.
        input_size: side of the patches it takes, in pixels; None takes any.
        mean: of the channels, of pixels from 0 to 1, that is subtracted.
        sd: of the channels, that is divided by.
        build: makes the network, whose weights mean nothing: patches (B, 3, H, W) to (B, D).
    """

    name: str
    library: str
    layer: str
    feature_dim: int
    input_size: int | None
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    build: Callable[[], nn.Module]

    @property
    def identifier(self) -> str:
        """Name, library, release, and a digest of shapes and transform: of any change, another."""
        shapes = {name: list(tensor.shape) for name, tensor in self.state().items()}
        described = [shapes, self.layer, self.input_size, self.mean, self.sd]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return f"{self.name}, {self.library} {version(self.library)}, {digest[:12]}"

    @property
    def normalisation(self) -> str:
        """What is done to pixels, in words."""
        return f"0-1 minus {self.mean} by {self.sd}"

    def on_meta(self) -> nn.Module:
        """The network, with weights that take no memory."""
        with torch.device("meta"):
            return self.build()

    def loaded(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """The network with these weights, on the CPU, ready to encode."""
        network = self.on_meta()
        network.load_state_dict(dict(state), assign=True)
        if any(buffer.is_meta for buffer in network.buffers()):
            # Tables, such as of relative positions, that are computed when it is made.
            network = self.build()
            network.load_state_dict(dict(state))
        return network.eval().requires_grad_(False)

    def state(self) -> dict[str, torch.Tensor]:
        """Names, shapes and types of its weights; nothing is allocated for them."""
        return dict(self.on_meta().state_dict())

"""Encoders other than VGG16, on torch."""

import torch

from pipeline.extraction.encoders.architecture import Architecture
from pipeline.extraction.engines.torch_encoder import TorchEncoder
from pipeline.weights.model_weights import ModelWeights


class ModelEncoder(TorchEncoder):
    """A network of an `Architecture`; attributes as `Encoder` has them.

    Args:
        architecture: what is computed.
        weights: of the network.
        device: where it computes.
        precision: one of `PRECISIONS`.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: ModelWeights,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self._prepare(device, precision, [255 * value for value in architecture.mean])
        self._network = architecture.loaded(weights.state).to(device, self._dtype)
        self._sd = 255 * torch.tensor(architecture.sd, device=device)[:, None, None]  # (3, 1, 1)

    def _pooled(self, below: torch.Tensor) -> torch.Tensor:
        """Features (B, D) of patches (B, 3, H, W) less their mean."""
        features: torch.Tensor = self._network(below / self._sd.to(below.dtype))  # (B, D)
        return features.float()

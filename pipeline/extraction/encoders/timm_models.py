"""Any network of timm, up to its classifier. An optional extra."""

from types import ModuleType
from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.extraction.encoders.architecture import Architecture
from pipeline.torchvision_shim import import_torchvision

PREFIX = "timm:"


def timm_architecture(name: str) -> Architecture:
    """The architecture that timm calls `name`.

    Raises:
        UsageError: timm is not installed, or knows no such network.
    """
    timm = _import_timm()
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name[:5]}*")[:3]
        raise UsageError(f"encoder {PREFIX}{name}: timm knows no such network; {similar} are there")

    def build() -> nn.Module:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
        return network

    with torch.device("meta"):
        network: Any = build()
    config = timm.data.resolve_data_config({}, model=network)
    is_fixed = bool(network.pretrained_cfg.get("fixed_input_size", False))
    return Architecture(
        name=f"{PREFIX}{name}",
        library="timm",
        layer="forward_head, pre-logits",
        feature_dim=int(network.num_features),
        input_size=int(config["input_size"][-1]) if is_fixed else None,
        mean=tuple(config["mean"]),
        sd=tuple(config["std"]),
        build=build,
    )


def _import_timm() -> ModuleType:
    import_torchvision()
    try:
        import timm
    except ImportError as error:
        raise UsageError(
            f'encoders of timm need the package timm ({error}): pip install -e ".[timm]"'
        ) from error
    found: ModuleType = timm
    return found

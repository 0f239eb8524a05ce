"""Any network of timm, up to its classifier. An optional extra."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.extraction.encoders.architecture import Architecture, output_shape
from pipeline.extraction.encoders.timm_folder import folder_of, read_folder
from pipeline.extraction.encoders.timm_names import PREFIX, TimmName, Value, is_network, parse_name
from pipeline.torchvision_shim import import_torchvision
from pipeline.user_file import printable

_ANY_SIZE = {"dynamic_img_size": True, "use_naflex": True, "strict_img_size": False}
"""Arguments with which a network that has an input size takes others too."""


def timm_architecture(text: str) -> Architecture:
    """The architecture that timm calls `text`, or that a folder of that name describes.

    Raises:
        UsageError: timm is not installed, knows no such network, or cannot build it so.
    """
    folder = timm_folder(f"{PREFIX}{text}")
    name = parse_name(text) if folder is None else read_folder(folder)
    if not _is_known(name.network):
        similar = _import_timm().list_models(f"*{name.network[:5]}*")[:3]
        raise UsageError(
            f"encoder {PREFIX}{printable(text)}: timm knows no network {name.network!r}; "
            f"{similar} are there"
        )
    return _architecture(parse_name(str(_shortest(name))))


def timm_folder(encoder: str) -> Path | None:
    """The folder that an encoder is read from: names that timm knows come before folders."""
    is_name = _is_known(encoder.removeprefix(PREFIX).partition("?")[0])
    return None if is_name else folder_of(encoder)


def _is_known(network: str) -> bool:
    return is_network(network) and bool(_import_timm().is_model(network))


def _shortest(name: TimmName) -> TimmName:
    """The name without what timm's own configuration of the network says anyway."""
    own = _import_timm().get_pretrained_cfg(name.network, allow_unregistered=True)
    known = {key: _plain(getattr(own, key, None)) for key in name.input}
    if _takes_any_size(name):
        known["fixed_input_size"] = name.input.get("fixed_input_size")
    kept = {k: v for k, v in name.settings.items() if k not in known or known[k] != v}
    return TimmName(name.network, kept)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _takes_any_size(name: TimmName) -> bool:
    return any(name.arguments.get(key) is value for key, value in _ANY_SIZE.items())


def _architecture(name: TimmName) -> Architecture:
    with torch.device("meta"):
        network: Any = _build(name)
    config = _import_timm().data.resolve_data_config({}, model=network)
    height, width = config["input_size"][-2:]
    is_fixed = bool(network.pretrained_cfg.get("fixed_input_size", False))
    if is_fixed and height != width:
        raise UsageError(f"encoder {PREFIX}{name}: takes {height}×{width} pixels, not squares")
    return Architecture(
        name=f"{PREFIX}{name}",
        library="timm",
        layer="forward_head, pre-logits",
        feature_dim=_feature_dim(name, network, int(height), int(width)),
        input_size=int(width) if is_fixed else None,
        mean=tuple(config["mean"]),
        sd=tuple(config["std"]),
        build=lambda: _build(name),
    )


def _build(name: TimmName) -> nn.Module:
    try:
        network: nn.Module = _import_timm().create_model(
            name.network,
            pretrained=False,
            num_classes=0,
            pretrained_cfg_overlay=_overlay(name),
            **name.arguments,
        )
    except Exception as error:
        raise UsageError(
            f"encoder {PREFIX}{name}: timm cannot build it so "
            f"({type(error).__name__}: {printable(str(error))}): change its settings"
        ) from error
    return network


def _overlay(name: TimmName) -> dict[str, Value]:
    """What the network's configuration has in place of timm's own."""
    overlay = name.input
    if _takes_any_size(name):
        overlay["fixed_input_size"] = False
    size = name.arguments.get("img_size")
    if size is not None:
        overlay["input_size"] = [3, *(size if isinstance(size, list) else [size, size])]
    return overlay


def _feature_dim(name: TimmName, network: nn.Module, height: int, width: int) -> int:
    try:
        shape = output_shape(network, height, width)
    except Exception as error:
        raise UsageError(
            f"encoder {PREFIX}{name}: cannot encode {height}×{width} pixels "
            f"({type(error).__name__}: {printable(str(error))}): change its settings"
        ) from error
    if len(shape) != 1:
        raise UsageError(
            f"encoder {PREFIX}{name}: makes {list(shape)} numbers of a patch, expected one "
            'vector: choose a global_pool in model_args, such as "token" or "avg"'
        )
    return shape[0]


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

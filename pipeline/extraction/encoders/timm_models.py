"""Any network of timm, up to its classifier. An optional extra."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.extraction.encoders.architecture import Architecture
from pipeline.extraction.encoders.timm_names import TimmName
from pipeline.torchvision_shim import import_torchvision
from pipeline.user_file import printable

PREFIX = "timm:"


def timm_folder(name: str) -> Path | None:
    """The folder that an encoder's name gives, if it gives one."""
    folder = Path(name.removeprefix(PREFIX))
    return folder if name.startswith(PREFIX) and folder.is_dir() else None


def timm_architecture(encoder: str) -> Architecture:
    """The network of `timm:` and a name of timm, a name with arguments, or a folder that it saved.

    The architecture's own name says all that building it takes; a folder is not in it.

    Raises:
        UsageError: timm is not installed, or knows no such network.
    """
    timm = _import_timm()
    folder = timm_folder(encoder)
    name = TimmName.of_folder(folder) if folder else TimmName.parse(encoder.removeprefix(PREFIX))
    if not timm.is_model(name.architecture):
        similar = timm.list_models(f"*{name.architecture[:5]}*")[:3]
        known = f"timm knows no such network; {similar} are there"
        raise UsageError(f"encoder {PREFIX}{name.architecture}: {known}")

    def build() -> nn.Module:
        network: nn.Module = timm.create_model(
            name.architecture, pretrained=False, num_classes=0, **name.arguments
        )
        return network

    return _describe(timm, name, _on_meta(name, build), build)


def _on_meta(name: TimmName, build: Any) -> Any:  # noqa: ANN401 - a network of timm
    try:
        with torch.device("meta"):
            return build()
    except Exception as error:
        reason = printable(str(error))
        raise UsageError(f"encoder {PREFIX}{name}: timm cannot build it ({reason})") from error


def _describe(timm: ModuleType, name: TimmName, network: Any, build: Any) -> Architecture:  # noqa: ANN401
    own = timm.data.resolve_data_config({}, model=network)
    usual = {
        "mean": list(own["mean"]),
        "std": list(own["std"]),
        "input_size": name.arguments.get("img_size") or int(own["input_size"][-1]),
    }
    changed = {key: value for key, value in name.transform.items() if value != usual[key]}
    transform = {**usual, **changed}
    is_fixed = bool(network.pretrained_cfg.get("fixed_input_size", False))
    return Architecture(
        name=f"{PREFIX}{TimmName(name.architecture, name.arguments, changed)}",
        library="timm",
        layer="forward_head, pre-logits",
        feature_dim=int(network.num_features),
        input_size=transform["input_size"] if is_fixed else None,
        mean=tuple(transform["mean"]),
        sd=tuple(transform["std"]),
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

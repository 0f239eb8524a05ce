"""A folder in which timm saved a network: config.json and its weights."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.extraction.encoders.timm_names import (
    INPUT,
    PREFIX,
    TimmName,
    check_settings,
    is_network,
)
from pipeline.user_file import printable, read_file

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files with weights, the one to take first."""

_MAX_BYTES = 1 << 22


def folder_of(encoder: str) -> Path | None:
    """The folder that an encoder's name gives in place of a network's, if there is one."""
    text = encoder.removeprefix(PREFIX)
    is_folder = text not in (encoder, "") and os.path.isdir(text)  # noqa: PTH112 - never raises
    return Path(text) if is_folder else None


def read_folder(folder: Path) -> TimmName:
    """What config.json says of the network. Nothing of it is executed, read or fetched.

    Raises:
        UsageError: it cannot be read, or asks for what an encoder is not to have.
    """
    path = folder / CONFIG
    config = _read_object(path)
    network = config.get("architecture")
    if not isinstance(network, str) or not is_network(network):
        found = printable(json.dumps(network), 60)
        raise UsageError(f"{path}: architecture is {found}, expected the name of a timm network")
    arguments = _arguments(config, path)
    pixels = _object(config, "pretrained_cfg", path) if "pretrained_cfg" in config else config
    taken = {key: pixels[key] for key in INPUT if pixels.get(key) is not None}
    check_settings(arguments, f"{path}: model_args")
    check_settings(taken, str(path))
    return TimmName(network, {**arguments, **taken})


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_file(path, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({printable(str(error))}): save it again") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds no object, expected that of a network that timm saved")
    return found


def _arguments(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Arguments of the network, without its classifier, channels if three, and absent ones."""
    given = dict(_object(config, "model_args", path)) if "model_args" in config else {}
    if "pretrained_cfg" not in config and "global_pool" in config:  # as older files have it
        given.setdefault("global_pool", config["global_pool"])
    given.pop("num_classes", None)
    if given.get("in_chans") == 3:
        del given["in_chans"]
    strays = sorted(given.keys() & set(INPUT))
    if strays:
        raise UsageError(f"{path}: model_args: {strays[0]} belongs into pretrained_cfg: move it")
    return {key: value for key, value in given.items() if value is not None}


def _object(config: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    found = config[key]
    if not isinstance(found, dict):
        raise UsageError(f"{path}: {key} is {type(found).__name__}, expected an object")
    return found


def weights_in(folder: Path) -> Path:
    """The file of a folder that holds the weights.

    Raises:
        UsageError: there is none.
    """
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise UsageError(f"{folder}: no weights: expected {' or '.join(WEIGHTS)}, or give --from")

"""What a network of timm is called: its architecture, and what of it is not timm's default.

Such as `vit_tiny_patch16_224?act_layer="relu"&cfg.mean=[0.5,0.5,0.5]`, with what URLs do not allow
escaped: a name that says all that building the network takes, wherever it was described.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pipeline.errors import UsageError
from pipeline.user_file import printable, read_file

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of a folder that timm saved; the first of the weights that is there is taken."""

MOST_CHARACTERS = 1000

_MAX_BYTES = 1 << 20
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TRANSFORM = ("mean", "std", "input_size")
_PREFIX = "cfg."

_LEFT_OUT = frozenset({"num_classes"})
_REFUSED = frozenset(
    {
        *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict"),
        *("pretrained_filter_fn", "pretrained_custom_load", "checkpoint_path", "cache_dir"),
        *("features_only", "out_indices", "scriptable", "exportable", "no_jit", "model_name"),
    }
)
"""Arguments that fetch or read something, or change what the network gives."""


@dataclass(frozen=True)
class TimmName:
    """A network of timm.

    Attributes:
        architecture: that timm knows.
        arguments: for its constructor; text, numbers, truth values and lists of numbers.
        transform: `mean` and `std` of three channels, and `input_size` in pixels, where these are
            not those of the architecture.

    Raises:
        UsageError: one of them is not allowed.
    """

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    transform: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ARCHITECTURE.fullmatch(self.architecture):
            raise UsageError(
                f"encoder timm:{printable(self.architecture, 80)}: not the name of a network, and "
                f"no folder with {CONFIG}"
            )
        for key, value in self.arguments.items():
            if not _ARGUMENT.fullmatch(key) or key in _REFUSED or not _is_plain(value):
                raise UsageError(
                    f"encoder timm:{self.architecture}: argument {printable(key, 80)!r} with value "
                    f"{printable(repr(value), 80)} is not allowed: expected text, numbers, truth "
                    "values or lists of numbers, and nothing that loads a file"
                )
        for key, value in self.transform.items():
            if not _is_transform(key, value):
                raise UsageError(
                    f"encoder timm:{self.architecture}: {printable(key, 80)} is "
                    f"{printable(repr(value), 80)}, expected mean and std of three positive "
                    "numbers, input_size in pixels"
                )

    def __str__(self) -> str:
        values = dict(self.arguments)
        values |= {_PREFIX + key: value for key, value in self.transform.items()}
        words = [
            f"{key}={quote(_json(value), safe='[]:')}" for key, value in sorted(values.items())
        ]
        return self.architecture + ("?" + "&".join(words) if words else "")

    @classmethod
    def parse(cls, text: str) -> "TimmName":
        """Read a name as `str` writes it.

        Raises:
            UsageError: it is not one.
        """
        architecture, _, query = text.partition("?")
        arguments: dict[str, Any] = {}
        transform: dict[str, Any] = {}
        for word in filter(None, query[:MOST_CHARACTERS].split("&")):
            key, _, value = word.partition("=")
            place = transform if key.startswith(_PREFIX) else arguments
            place[key.removeprefix(_PREFIX)] = _value(text, unquote(value))
        name = cls(architecture, arguments, transform)
        if str(name) != text:
            raise UsageError(
                f"encoder timm:{printable(text, 80)}: expected its parts in order and at most "
                f"{MOST_CHARACTERS} characters: {printable(str(name), MOST_CHARACTERS)}"
            )
        return name

    @classmethod
    def of_folder(cls, folder: Path) -> "TimmName":
        """Read the description of a network from a folder that timm saved.

        Raises:
            UsageError: there is none, or it is not allowed.
        """
        file = folder / CONFIG
        found = _read_object(file)
        described = found.get("pretrained_cfg", found)
        arguments = found.get("model_args") or {}
        architecture = found.get("architecture")
        parts = (described, arguments)
        if not isinstance(architecture, str) or not all(isinstance(part, dict) for part in parts):
            raise UsageError(f"{file}: no description of a network of timm: no `architecture`")
        transform = {key: described[key] for key in _TRANSFORM if described.get(key) is not None}
        if isinstance(transform.get("input_size"), list):  # channels, height, width
            transform["input_size"] = transform["input_size"][-1]
        kept = {k: v for k, v in arguments.items() if k not in _LEFT_OUT and v is not None}
        return cls(architecture, kept, transform)


def weights_in(folder: Path) -> Path:
    """The file of a folder that holds its weights.

    Raises:
        UsageError: there is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{folder}: holds none of {', '.join(WEIGHTS)}: give --from")


def _read_object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_file(file, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not valid JSON ({printable(str(error))})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file}: not a JSON object")
    return found


def _value(text: str, value: str) -> Any:  # noqa: ANN401 - checked by who asks
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"encoder timm:{printable(text, 80)}: {printable(value, 40)!r} is no JSON value, such "
            'as 1, true or "gelu"'
        ) from error


def _json(value: Any) -> str:  # noqa: ANN401 - checked before
    return json.dumps(value, separators=(",", ":"))


def _is_plain(value: Any) -> bool:  # noqa: ANN401 - of a stranger's JSON
    if isinstance(value, list):
        return len(value) <= 64 and all(map(_is_number, value))
    if isinstance(value, str):
        return len(value) <= 100 and value.isprintable()
    return isinstance(value, bool) or _is_number(value)


def _is_number(value: Any) -> bool:  # noqa: ANN401 - of a stranger's JSON
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e12


def _is_transform(key: str, value: Any) -> bool:  # noqa: ANN401 - of a stranger's JSON
    if key == "input_size":
        return type(value) is int and 32 <= value <= 2048
    if key not in _TRANSFORM or not isinstance(value, list) or len(value) != 3:
        return False
    return all(map(_is_number, value)) and (key == "mean" or min(value) > 0)

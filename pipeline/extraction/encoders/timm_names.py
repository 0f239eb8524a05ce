"""Names of timm's networks that say all by which one is built: `vit_tiny?depth=6&img_size=64`.

Settings come from files of strangers, so they are few, small and plain: numbers, truth values,
short words and lists of numbers, never a path or an address.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from pipeline.errors import UsageError
from pipeline.user_file import printable

PREFIX = "timm:"

Number = int | float
Value = bool | Number | str | list[Number]

INPUT = ("fixed_input_size", "input_size", "mean", "std")
"""Settings of the pixels that a network takes; the others are arguments of timm's network."""

_MOST_CHARACTERS, _MOST_SETTINGS, _MOST_NUMBERS, _LARGEST = 1000, 32, 64, 8192
_NETWORK = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_-]{1,100})?")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9_+-]{0,64}")
# What would read or fetch a file, choose another device, or make no encoder.
_REFUSED = re.compile(
    r"pretrained.*|checkpoint.*|cache_dir|features_only|feature_.*|out_indices|model_.*|cfg|variant"
    r"|kwargs.*|scriptable|exportable|no_jit|pruned|device|dtype|num_classes|in_chans"
)


@dataclass(frozen=True)
class TimmName:
    """A network of timm and its settings.

    Attributes:
        network: as timm calls it.
        settings: what differs from timm's own of that network.
    """

    network: str
    settings: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        """The one way to write it, with neither comma nor space."""
        parts = (f"{key}={_written(self.settings[key])}" for key in sorted(self.settings))
        return self.network + ("?" if self.settings else "") + "&".join(parts)

    @property
    def arguments(self) -> dict[str, Value]:
        """What timm builds the network with."""
        return {key: value for key, value in self.settings.items() if key not in INPUT}

    @property
    def input(self) -> dict[str, Value]:
        """What is said of the pixels."""
        return {key: value for key, value in self.settings.items() if key in INPUT}


def is_network(text: str) -> bool:
    """Whether it looks like a name of timm's own, and not like a path."""
    return _NETWORK.fullmatch(text) is not None


def parse_name(text: str) -> TimmName:
    """Read a name as `str` writes it.

    Raises:
        UsageError: it is written otherwise, or has a setting that is refused.
    """
    where = f"encoder {PREFIX}{printable(text)}"
    network, asked, query = text.partition("?")
    if len(text) > _MOST_CHARACTERS or not is_network(network):
        raise UsageError(
            f"{where}: neither a folder that exists nor a name: expected {PREFIX}FOLDER, or "
            f"{PREFIX}NAME or {PREFIX}NAME?KEY=VALUE&… of at most {_MOST_CHARACTERS} characters"
        )
    pairs = [part.partition("=") for part in query.split("&")] if asked else []
    settings = {key: _read(where, key, value) for key, _, value in pairs}
    name = TimmName(network, settings)
    check_settings(settings, where)
    if str(name) != text:
        raise UsageError(f"{where}: not as it is to be written: expected {PREFIX}{name}")
    return name


def check_settings(settings: Mapping[str, object], where: str) -> None:
    """Refuse settings that an encoder is not to have.

    Raises:
        UsageError: one of them is; it begins with `where`.
    """
    if len(settings) > _MOST_SETTINGS:
        raise UsageError(f"{where}: {len(settings)} settings, expected at most {_MOST_SETTINGS}")
    for key, value in settings.items():
        if not _KEY.fullmatch(key) or _REFUSED.fullmatch(key):
            raise UsageError(
                f"{where}: {printable(key)!r} is not a setting of an encoder: take it out"
            )
        problem = _input_problem(key, value) if key in INPUT else _problem(value)
        if problem:
            found = printable(json.dumps(value, default=str), 60)
            raise UsageError(f"{where}: {key} is {found}, expected {problem}")


def _problem(value: object) -> str:
    """What is expected in place of a value; empty if it will do."""
    if isinstance(value, str):
        return "" if _WORD.fullmatch(value) else "a word of at most 64 letters, digits, _, + and -"
    if isinstance(value, list):
        fits = len(value) <= _MOST_NUMBERS and all(map(_is_number, value))
        return "" if fits else f"at most {_MOST_NUMBERS} numbers of {_LARGEST} at most"
    if isinstance(value, bool) or _is_number(value):
        return ""
    return f"a number of {_LARGEST} at most, true, false, a word or a list"


def _input_problem(key: str, value: object) -> str:
    if key == "fixed_input_size":
        return "" if isinstance(value, bool) else "true or false"
    three = value if isinstance(value, list) and len(value) == 3 else [None]
    if not all(map(_is_number, three)):
        return "a list of three numbers"
    if key == "input_size":
        fits = all(isinstance(n, int) for n in three) and three[0] == 3 and min(three[1:]) >= 1
        return "" if fits else "[3, height, width] in pixels: patches have three channels"
    return "" if key == "mean" or min(three) > 0 else "numbers above 0"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _written(value: Value) -> str:
    return quote(json.dumps(value, separators=(",", ":")), safe='[]"')


def _read(where: str, key: str, text: str) -> Any:  # noqa: ANN401 - whatever is in JSON
    try:
        return json.loads(unquote(text, errors="strict"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where}: {printable(key)!r} is {printable(text, 60)!r}, expected a value as in JSON, "
            f"with %2C for each comma: a word in double quotes, a number, true, false or a list"
        ) from error

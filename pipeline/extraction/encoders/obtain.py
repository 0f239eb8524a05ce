"""Bring the weights of an encoder into the form that extraction takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.encoders.timm_folder import weights_in
from pipeline.extraction.encoders.timm_models import timm_folder
from pipeline.extraction.encoders.timm_names import PREFIX
from pipeline.safetensors_file import check_safetensors
from pipeline.user_file import check_file, printable
from pipeline.weights.model_weights import (
    FORMAT,
    MAX_BYTES,
    ModelWeights,
    State,
    load_model_weights,
    publish_model_weights,
    random_model_weights,
    state_sha256,
)

_CLASSIFIERS = ("fc.", "heads.", "head.", "head_dist.", "classifier.")


def obtain(encoder: str, from_file: Path | None, seed: int | None, out: Path) -> str:
    """Publish weights from a file or the encoder's folder, or random ones; what they are.

    Raises:
        UsageError: none are given, or the file does not hold the weights of this encoder.
        PublishError: the output cannot be written.
    """
    architecture = find_architecture(encoder)
    expected = architecture.state()
    if seed is not None:
        found = random_model_weights(expected, seed)
    else:
        found = _from_file(from_file or _file_of(encoder), expected)
    publish_model_weights(found, out)
    return (
        f"{found.name} weights of {architecture.name}, arrays {found.sha256[:12]}…, "
        f"from {found.source}"
    )


def _file_of(encoder: str) -> Path:
    """The file in the folder that the encoder is read from."""
    folder = timm_folder(encoder) if encoder.startswith(PREFIX) else None
    if folder is None:
        raise UsageError(
            f"encoder {encoder}: its weights are not fetched: give --from with a file of its "
            f"library, .safetensors or .pth, or as encoder {PREFIX}FOLDER with config.json and them"
        )
    return weights_in(folder)


def _from_file(path: Path, expected: State) -> ModelWeights:
    if path.suffix != ".safetensors":
        return _chosen(path, _read_torch(path), expected)
    state = _read_safetensors(path)
    if state is None:
        return load_model_weights(path, expected)
    return _chosen(path, state, expected)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor] | None:
    """Names and arrays, or None of a file that this software wrote."""
    check_safetensors(path, MAX_BYTES)
    try:
        with safe_open(path, framework="pt") as opened:
            file: Any = opened  # the package declares no types for its methods
            if (file.metadata() or {}).get("format") == FORMAT:
                return None
            return {name: file.get_tensor(name) for name in list(file.keys())}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read ({printable(str(error))})") from error


def _read_torch(path: Path) -> Mapping[object, object]:
    """Names and arrays in a file of `torch.save`, of which nothing is executed."""
    check_file(path, MAX_BYTES)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = printable(str(error))
        raise UsageError(f"{path}: cannot be read as weights ({reason})") from error
    if not isinstance(state, dict):
        raise UsageError(f"{path}: holds {type(state).__name__}, expected names and arrays")
    return state


def _chosen(path: Path, state: Mapping[Any, object], expected: State) -> ModelWeights:
    """The weights that are expected; others are those of the classifier, or it is refused."""
    typed: dict[str, torch.Tensor] = {}
    extra = [n for n in map(str, state) if n not in expected and not n.startswith(_CLASSIFIERS)]
    for name, like in expected.items():
        found = state.get(name)
        if isinstance(found, torch.Tensor) and found.shape == like.shape:
            typed[name] = found.to(like.dtype)
    wrong = sorted({*extra, *(expected.keys() - typed.keys())})
    if wrong:
        raise UsageError(
            f"{path}: not the weights of this encoder; first differing: {printable(wrong[0])}"
        )
    return ModelWeights(typed, "custom", state_sha256(typed), f"file {path.name}")

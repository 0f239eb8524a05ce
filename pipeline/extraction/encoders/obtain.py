"""Bring the weights of an encoder into the form that extraction takes."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.errors import UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.encoders.timm_models import timm_folder
from pipeline.extraction.encoders.timm_names import weights_in
from pipeline.safetensors_file import check_safetensors
from pipeline.user_file import check_file, printable
from pipeline.weights.model_weights import (
    ModelWeights,
    State,
    is_published,
    load_model_weights,
    publish_model_weights,
    random_model_weights,
    state_sha256,
)

_MAX_BYTES = 1 << 33
_CLASSIFIERS = ("fc.", "heads.", "head.", "classifier.")


def obtain(encoder: str, from_file: Path | None, seed: int | None, out: Path) -> str:
    """Publish weights from a file, or random ones; one line that says what they are.

    Raises:
        UsageError: neither is given, or the file does not hold the weights of this encoder.
        PublishError: the output cannot be written.
    """
    expected = find_architecture(encoder).state()
    folder = timm_folder(encoder)
    if seed is not None:
        found = random_model_weights(expected, seed)
    elif from_file is not None or folder is not None:
        found = _from_file(from_file or weights_in(folder or Path()), expected)
    else:
        raise UsageError(
            f"encoder {encoder}: its weights are not fetched: give --from with a file of its "
            "library, .safetensors or .pth"
        )
    publish_model_weights(found, out)
    return f"{found.name} weights of {encoder}, arrays {found.sha256[:12]}…, from {found.source}"


def _from_file(path: Path, expected: State) -> ModelWeights:
    if path.suffix != ".safetensors":
        return _without_classifier(path, _read_torch(path), expected)
    if is_published(path):
        return load_model_weights(path, expected)
    return _without_classifier(path, _read_safetensors(path), expected)


def _read_safetensors(path: Path) -> State:
    check_safetensors(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read ({printable(str(error))})") from error


def _read_torch(path: Path) -> State:
    """The arrays of a file of `torch.save`, of which nothing is executed."""
    check_file(path, _MAX_BYTES)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = printable(str(error))
        raise UsageError(f"{path}: cannot be read as weights ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise UsageError(f"{path}: holds {type(state).__name__}, expected names and arrays")
    return state


def _without_classifier(path: Path, state: State, expected: State) -> ModelWeights:
    kept = {n: t for n, t in state.items() if not str(n).startswith(_CLASSIFIERS) or n in expected}
    wrong = sorted(map(str, kept.keys() ^ expected.keys()))
    wrong += [n for n in expected if n in kept and kept[n].shape != expected[n].shape]
    if wrong:
        raise UsageError(f"{path}: not the weights of this encoder; first differing: {wrong[0]}")
    typed = {name: kept[name].to(like.dtype) for name, like in expected.items()}
    broken = [n for n, t in typed.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if broken:
        raise UsageError(f"{path}: {broken[0]} holds values that are not finite: obtain it again")
    return ModelWeights(typed, "custom", state_sha256(typed), f"file {path.name}")

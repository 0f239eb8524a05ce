"""Bring the weights of an encoder into the form that extraction takes."""

from pathlib import Path

import torch

from pipeline.errors import UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.user_file import check_file, printable
from pipeline.weights.model_weights import (
    ModelWeights,
    State,
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
    if seed is not None:
        found = random_model_weights(expected, seed)
    elif from_file is None:
        raise UsageError(
            f"encoder {encoder}: its weights are not fetched: give --from with a file of its "
            "library, .safetensors or .pth"
        )
    elif from_file.suffix == ".safetensors":
        found = load_model_weights(from_file, expected)
    else:
        found = _from_torch(from_file, expected)
    publish_model_weights(found, out)
    return f"{found.name} weights of {encoder}, arrays {found.sha256[:12]}…, from {found.source}"


def _from_torch(path: Path, expected: State) -> ModelWeights:
    """From a file of `torch.save`, of which nothing is executed."""
    check_file(path, _MAX_BYTES)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = printable(str(error))
        raise UsageError(f"{path}: cannot be read as weights ({reason})") from error
    if not isinstance(state, dict):
        raise UsageError(f"{path}: holds {type(state).__name__}, expected names and arrays")
    kept = {n: t for n, t in state.items() if not str(n).startswith(_CLASSIFIERS)}
    wrong = sorted(map(str, kept.keys() ^ expected.keys()))
    wrong += [n for n in expected if n in kept and kept[n].shape != expected[n].shape]
    if wrong:
        raise UsageError(f"{path}: not the weights of this encoder; first differing: {wrong[0]}")
    typed = {name: kept[name].to(like.dtype) for name, like in expected.items()}
    return ModelWeights(typed, "custom", state_sha256(typed), f"file {path.name}")

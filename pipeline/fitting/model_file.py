"""A fitted model as one safetensors file, with all that prediction needs in its header."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cache import Recipe, RecipeError
from pipeline.errors import UsageError
from pipeline.fitting.classifier import ClassifierSizes, LstmClassifier
from pipeline.safetensors_file import check_safetensors, write_safetensors
from pipeline.user_file import printable

FORMAT = "lstm-patch-classifier 1"

_FOLD = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Model:
    """A fitted classifier and what it belongs to.

    Attributes:
        network: the classifier; its buffers hold the normalisation.
        recipe: of the features it was fitted to.
        labels: the negative and the positive label.
        fold: which fold it was fitted for.
        protocol: how training and test images were kept apart.
    """

    network: LstmClassifier
    recipe: Recipe
    labels: tuple[str, str]
    fold: int
    protocol: str


def save_model(path: Path, model: Model) -> None:
    """Publish a model.

    Raises:
        PublishError: the file cannot be written.
    """
    header = {
        "format": FORMAT,
        "sizes": json.dumps(dataclasses.asdict(model.network.sizes)),
        "recipe": model.recipe.to_json(),
        "fingerprint": model.recipe.fingerprint,
        "labels": json.dumps(model.labels),
        "fold": str(model.fold),
        "protocol": model.protocol,
    }
    arrays = {name: tensor.numpy() for name, tensor in model.network.state_dict().items()}
    write_safetensors(path, arrays, header)


def load_model(path: Path) -> Model:
    """Read a model. Nothing is allocated for it before its header was found to fit the file.

    Raises:
        UsageError: the file is not such a model, or is damaged.
    """
    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as opened:
            file: Any = opened  # the package declares no types for its methods
            header = file.metadata() or {}
            _check_format(path, header)
            return _assemble(header, file)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read as a model ({printable(str(error))})") from error
    except (KeyError, ValueError, TypeError, RuntimeError, RecipeError, _SizesError) as error:
        raise UsageError(
            f"{path}: its header and its arrays disagree ({printable(str(error))})"
        ) from error


class _SizesError(Exception):
    """The sizes in the header are none that a classifier can have."""


def _check_format(path: Path, header: dict[str, str]) -> None:
    if header.get("format") != FORMAT:
        raise UsageError(
            f"{path}: format is {header.get('format', '')[:40]!r}, expected {FORMAT!r}: "
            "give a model that `pipeline fit-lstm` wrote"
        )


def _assemble(header: dict[str, str], file: Any) -> Model:  # noqa: ANN401 - has no declared type
    recipe = Recipe.from_json(header["recipe"])
    if recipe.fingerprint != header["fingerprint"]:
        raise ValueError("fingerprint is not that of the recipe")
    sizes = _sizes(header["sizes"])
    if sizes.feature_dim != recipe.feature_dim:
        raise ValueError(f"feature_dim is {sizes.feature_dim}, {recipe.feature_dim} in the recipe")
    labels = _labels(header["labels"])
    fold = int(header["fold"]) if _FOLD.fullmatch(header["fold"]) else -1
    if fold < 0 or not header["protocol"].isprintable():
        raise ValueError(f"fold is {header['fold'][:40]!r}, protocol {header['protocol'][:80]!r}")
    return Model(_network(sizes, file), recipe, labels, fold, header["protocol"])


def _sizes(text: str) -> ClassifierSizes:
    values = json.loads(text)
    names = {field.name for field in dataclasses.fields(ClassifierSizes)}
    if not isinstance(values, dict) or values.keys() != names:
        raise ValueError(f"sizes are {text[:80]!r}, expected {', '.join(sorted(names))}")
    try:
        return ClassifierSizes(**values)
    except UsageError as error:
        raise _SizesError(str(error)) from error


def _labels(text: str) -> tuple[str, str]:
    values = json.loads(text)
    if (
        not isinstance(values, list)
        or len(values) != 2
        or not all(isinstance(label, str) and label and label.isprintable() for label in values)
        or values[0] == values[1]
    ):
        raise ValueError(f"labels are {text[:80]!r}, expected two that differ")
    return values[0], values[1]


def _network(sizes: ClassifierSizes, file: Any) -> LstmClassifier:  # noqa: ANN401 - as above
    with torch.device("meta"):  # names and shapes without memory
        expected = {n: list(t.shape) for n, t in LstmClassifier(sizes).state_dict().items()}
    names = list(file.keys())
    found = {name: file.get_slice(name) for name in names if name in expected}
    wrong = [
        name
        for name, shape in expected.items()
        if name not in found or found[name].get_dtype() != "F32" or found[name].get_shape() != shape
    ]
    if wrong or len(names) != len(expected):
        problem = wrong[0] if wrong else f"{len(names)} arrays"
        raise ValueError(f"{problem}: expected the {len(expected)} float32 arrays of the sizes")
    state = {name: file.get_tensor(name) for name in expected}
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken or not state["scale"] > 0:
        raise ValueError(f"{(broken or ['scale'])[0]} is not finite, or not positive")
    network = LstmClassifier(sizes)
    network.load_state_dict(state)
    return network.eval()

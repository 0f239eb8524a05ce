"""A fitted model as one safetensors file, with all that prediction needs in its header."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from cache import Recipe, RecipeError
from pipeline.errors import UsageError
from pipeline.fitting.classifier import ClassifierSizes, LstmClassifier
from pipeline.safetensors_file import write_safetensors

FORMAT = "lstm-patch-classifier 1"


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
    """Read a model.

    Raises:
        UsageError: the file is not such a model, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read as a model ({error})") from error
    if header.get("format") != FORMAT:
        raise UsageError(
            f"{path}: format is {header.get('format')!r}, expected {FORMAT!r}: "
            "give a model that `pipeline fit-lstm` wrote"
        )
    try:
        return _assemble(header, state)
    except (KeyError, ValueError, TypeError, RuntimeError, RecipeError) as error:
        raise UsageError(f"{path}: its header and its arrays disagree ({error})") from error


def _assemble(header: dict[str, str], state: dict[str, torch.Tensor]) -> Model:
    network = LstmClassifier(ClassifierSizes(**json.loads(header["sizes"])))
    network.load_state_dict(state)
    recipe = Recipe.from_json(header["recipe"])
    if recipe.fingerprint != header["fingerprint"]:
        raise ValueError("fingerprint is not that of the recipe")
    negative, positive = json.loads(header["labels"])
    return Model(
        network.eval(), recipe, (negative, positive), int(header["fold"]), header["protocol"]
    )

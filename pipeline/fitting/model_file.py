"""A fitted model as one safetensors file, with all that prediction needs in its header."""

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cache import Recipe, RecipeError
from pipeline.errors import UsageError
from pipeline.fitting.calibration import apply_temperature
from pipeline.fitting.familiar import MOST_REFERENCES, Familiar
from pipeline.fitting.networks import LstmNetwork, NetworkSizes
from pipeline.fitting.options import SEQUENCE_LENGTHS, TARGETS
from pipeline.fitting.record import MAX_CLASSES
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.training import predict
from pipeline.fitting.whitening import Whitening
from pipeline.safetensors_file import check_safetensors, write_safetensors
from pipeline.user_file import printable

FORMAT = "lstm-patch-classifier 4"

_FOLD = re.compile(r"[0-9]{1,9}")
_WHITENING = "whitening."
_REFERENCES = "familiar.references"


@dataclass(frozen=True)
class Answer:
    """What a model says of N images.

    Attributes:
        logits: (M, N, C) of each member; C = 1 for two classes.
        temperature: that they are divided by.
        distances: (N,) from the images it was fitted to; beyond 1, an image is unlike them.
    """

    logits: NDArray[np.float64]
    temperature: float
    distances: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C) calibrated: of the positive class, or of each of more than two."""
        return _columns(apply_temperature(self.logits.mean(axis=0), self.temperature))

    @property
    def of_members(self) -> NDArray[np.float64]:
        """(M, N, C) the probabilities that each member alone would give."""
        return np.stack([_columns(apply_temperature(one, self.temperature)) for one in self.logits])


def _columns(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) or (N, C) to (N, C)."""
    return probabilities.reshape(len(probabilities), -1)


@dataclass(frozen=True)
class Model:
    """A fitted classifier and what it belongs to.

    Attributes:
        whitening: patch features to the network's inputs.
        network: the members.
        familiar: the images that it was fitted to.
        recipe: of the features it was fitted to.
        classes: what it tells apart; of two, the positive one is the last.
        target: `label` or `subtype`.
        fold: which fold it was fitted for.
        protocol: how training and test images were kept apart.
        temperature: that the mean of the members' logits is divided by.
        threshold: probability from which the positive class is called; None of more than two.
        sequence_length: patches that it reads in one go.
    """

    whitening: Whitening
    network: LstmNetwork
    familiar: Familiar
    recipe: Recipe
    classes: tuple[str, ...]
    target: str
    fold: int
    protocol: str
    temperature: float
    threshold: float | None
    sequence_length: int

    def inputs(self, features: Sequences) -> Sequences:
        """What the network reads of images with features as in a cache."""
        values = self.whitening.apply(features.values)
        return Sequences(values, features.offsets, self.sequence_length)

    def answer(self, features: Sequences) -> Answer:
        """What it says of images with features as in a cache."""
        return self.answer_inputs(self.inputs(features))

    def answer_inputs(self, inputs: Sequences) -> Answer:
        """What it says of images with inputs as `inputs` gives them."""
        said = predict(self.network, inputs, torch.arange(len(inputs)))  # (M, N, C)
        return Answer(
            logits=said.double().numpy(),
            temperature=self.temperature,
            distances=self.familiar.distances(inputs.means()).numpy(),
        )


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
        "classes": json.dumps(model.classes),
        "target": model.target,
        "fold": str(model.fold),
        "protocol": model.protocol,
        "temperature": json.dumps(model.temperature),
        "threshold": json.dumps(model.threshold),
        "sequence_length": json.dumps(model.sequence_length),
        "limit": json.dumps(model.familiar.limit),
    }
    whitening = {  # its whole numbers first, where they are aligned
        _WHITENING + field.name: getattr(model.whitening, field.name).numpy()
        for field in dataclasses.fields(Whitening)
    }
    network = {name: tensor.numpy() for name, tensor in model.network.state_dict().items()}
    references = {_REFERENCES: model.familiar.references.numpy()}
    write_safetensors(path, {**whitening, **references, **network}, header)


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
    classes = _classes(header["classes"])
    if sizes.outputs != (1 if len(classes) == 2 else len(classes)):
        raise ValueError(f"{sizes.outputs} outputs for {len(classes)} classes")
    fold = int(header["fold"]) if _FOLD.fullmatch(header["fold"]) else -1
    if fold < 0 or not header["protocol"].isprintable() or header["target"] not in TARGETS:
        raise ValueError(
            f"fold is {header['fold'][:40]!r}, target {header['target'][:40]!r}, "
            f"protocol {header['protocol'][:80]!r}"
        )
    temperature, threshold = _numbers(header, sizes)
    whitening = _whitening(file, sizes, recipe)
    return Model(
        whitening=whitening,
        network=_network(sizes, file),
        familiar=_familiar(header, file, sizes),
        recipe=recipe,
        classes=classes,
        target=header["target"],
        fold=fold,
        protocol=header["protocol"],
        temperature=temperature,
        threshold=threshold,
        sequence_length=_sequence_length(header["sequence_length"]),
    )


def _sequence_length(text: str) -> int:
    value, (least, most) = json.loads(text), SEQUENCE_LENGTHS
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"sequence_length is {value!r:.40}, expected {least} to {most}")
    return value


def _numbers(header: dict[str, str], sizes: NetworkSizes) -> tuple[float, float | None]:
    temperature, threshold = json.loads(header["temperature"]), json.loads(header["threshold"])
    if type(temperature) is not float or not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r:.40}, expected a positive number")
    if sizes.outputs > 1 and threshold is None:
        return temperature, None
    if sizes.outputs > 1 or type(threshold) is not float or not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r:.40}, expected 0 to 1 for two classes")
    return temperature, threshold


def _sizes(text: str) -> NetworkSizes:
    values = json.loads(text)
    names = {field.name for field in dataclasses.fields(NetworkSizes)}
    if not isinstance(values, dict) or values.keys() != names:
        raise ValueError(f"sizes are {text[:80]!r}, expected {', '.join(sorted(names))}")
    try:
        return NetworkSizes(**values)
    except UsageError as error:
        raise _SizesError(str(error)) from error


def _classes(text: str) -> tuple[str, ...]:
    values = json.loads(text)
    if (
        not isinstance(values, list)
        or not all(isinstance(name, str) and name and name.isprintable() for name in values)
        or not 2 <= len(set(values)) == len(values) <= MAX_CLASSES
    ):
        raise ValueError(f"classes are {text[:80]!r}, expected two or more that differ")
    return tuple(values)


def _whitening(file: Any, sizes: NetworkSizes, recipe: Recipe) -> Whitening:  # noqa: ANN401
    found = {
        field.name: file.get_slice(_WHITENING + field.name)
        for field in dataclasses.fields(Whitening)
    }
    shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
    used = math.prod(shapes["columns"])
    basis = ((used,), (used, sizes.inputs)) if sizes.inputs == used else ((used, sizes.inputs),)
    right = used and all(shapes[name] == (used,) for name in ("columns", "level", "mean"))
    if not right or shapes["basis"] not in basis or used > recipe.feature_dim:
        raise ValueError(f"whitening has shapes {shapes}, expected those of the sizes")
    types = {name: part.get_dtype() for name, part in found.items()}
    if types != {"columns": "I64", "level": "F32", "mean": "F32", "basis": "F32"}:
        raise ValueError(f"whitening is {types}, expected I64 columns and F32")
    whitening = Whitening(**{name: file.get_tensor(_WHITENING + name) for name in found})
    if whitening.columns.min() < 0 or whitening.columns.max() >= recipe.feature_dim:
        raise ValueError("whitening.columns lie outside of the features")
    parts = (whitening.level, whitening.mean, whitening.basis)
    if not all(torch.isfinite(part).all() for part in parts) or whitening.level.min() < 0:
        raise ValueError("whitening is not finite, or its level negative")
    if whitening.level.any() and not whitening.level.all():
        raise ValueError("whitening.level is 0 for some features only")
    return whitening


def _familiar(header: dict[str, str], file: Any, sizes: NetworkSizes) -> Familiar:  # noqa: ANN401
    limit = json.loads(header["limit"])
    if type(limit) is not float or not 0 < limit < math.inf:
        raise ValueError(f"limit is {limit!r:.40}, expected a positive number")
    part = file.get_slice(_REFERENCES)
    shape = list(part.get_shape())
    if len(shape) != 2 or not 1 <= shape[0] <= MOST_REFERENCES or shape[1] != sizes.inputs:
        raise ValueError(f"{_REFERENCES} has shape {shape}, expected rows of {sizes.inputs}")
    if part.get_dtype() != "F32":
        raise ValueError(f"{_REFERENCES} is {part.get_dtype()}, expected F32")
    references = file.get_tensor(_REFERENCES)
    if not torch.isfinite(references).all():
        raise ValueError(f"{_REFERENCES} is not finite")
    return Familiar(references, limit)


def _network(sizes: NetworkSizes, file: Any) -> LstmNetwork:  # noqa: ANN401 - as above
    with torch.device("meta"):  # names and shapes without memory
        expected = {n: list(t.shape) for n, t in LstmNetwork(sizes).state_dict().items()}
    others = {_WHITENING + field.name for field in dataclasses.fields(Whitening)} | {_REFERENCES}
    names = set(file.keys()) - others
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
    if broken:
        raise ValueError(f"{broken[0]} is not finite")
    network = LstmNetwork(sizes)
    network.load_state_dict(state)
    return network.eval()

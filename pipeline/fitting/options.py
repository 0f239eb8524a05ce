"""What a user chooses about a fit, each choice checked."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError

MAX_SEED = 2**32
TARGETS = ("label", "subtype")
COMPRESSIONS = ("log", "none")
SEQUENCE_LENGTHS = (2, 65536)


@dataclass(frozen=True)
class FitOptions:
    """What is fitted, and how. The measured effect of each choice is in the benchmark report.

    Attributes:
        layers: layers whose features are used, such as `conv2_2`; `all` takes all of the cache, and
            none the usual one, `conv2_2`, if the cache holds it, else all.
        pooled: `mean` or `sd` for one of the statistics only; None takes all of the cache.
        compression: `log` takes the logarithm of features relative to their mean; or `none`.
        components: whitened principal components that features are reduced to; 0 centres and
            scales all features in common instead.
        projection: size of a learnt layer before the LSTM; 0 leaves it out.
        hidden: length of the LSTM's state, in each direction.
        lstm_layers: LSTM layers on top of each other.
        bidirectional: whether the sequence is read from both ends.
        dropout: fraction of values dropped before the LSTM and before the logits.
        members: classifiers a fold, each with another part of the development images (training
            and validation) set aside to stop it; their logits are averaged. 1 uses the validation
            part of the splits.
        steps: of the optimiser; 0 is 100, or ten passes over the training images if those are more.
        checks: looks at the images set aside, of which the last is kept, or an earlier one whose
            loss is lower beyond doubt.
        batch_size: images a step.
        sequence_length: patches that are read in one go; of longer sequences, each step of
            training takes one of several parts, and predictions are the mean over all of them.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        seed: of everything random.
        target: what is told apart: `label` or `subtype`.
        positive: of two classes, the one whose probability is given; None takes `malignant`, else
            the last in alphabetical order.
        train_magnification: only images of this magnification train and validate; 0 takes all.
        companions: whether the baselines are fitted beside the LSTM.
        tries: other choices, each as `name=value name=value`, of which a fold takes the one of
            the least loss on the images set aside, if it is lower than that of the choices above
            by more than one standard error over cases.

    Raises:
        UsageError: a choice is out of range.
    """

    layers: tuple[str, ...] = ()
    pooled: str | None = None
    compression: str = "log"
    components: int = 32
    projection: int = 0
    hidden: int = 32
    lstm_layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.3
    members: int = 4
    steps: int = 0
    checks: int = 8
    batch_size: int = 32
    sequence_length: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    seed: int = 0
    target: str = "label"
    positive: str | None = None
    train_magnification: int = 0
    companions: bool = True
    tries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise UsageError(f"{name} is {value!r:.40}, expected {least} to {most}")
        for name, names in _NAMED.items():
            if getattr(self, name) not in names:
                shown = ", ".join(filter(None, names))
                raise UsageError(f"{name} is {getattr(self, name)!r:.40}, expected {shown}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}, expected at least 0 and less than 1")
        if not 0 < self.learning_rate <= 10:
            raise UsageError(f"learning_rate is {self.learning_rate}, expected above 0, at most 10")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay is {self.weight_decay}, expected 0 or more")

    def changed(self, **values: Any) -> "FitOptions":  # noqa: ANN401 - any of the fields
        """The same with other values for some fields."""
        return dataclasses.replace(self, **values)

    def alternatives(self) -> list["FitOptions"]:
        """These choices, then those of each of the `tries`.

        Raises:
            UsageError: one names something that cannot be tried, or a wrong value.
        """
        return [self, *(self.changed(**_parse(text)) for text in self.tries)]


def _parse(text: str) -> dict[str, Any]:
    values = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in _TRIED:
            raise UsageError(
                f"try {text[:80]!r}: {name[:40]!r} cannot be tried, expected name=value with a "
                f"name of {', '.join(_TRIED)}"
            )
        try:
            values[name] = _TRIED[name](value)
        except (ValueError, KeyError) as error:
            raise UsageError(f"try {text[:80]!r}: {value[:40]!r} is no {name}") from error
    if not values:
        raise UsageError("a try is empty, expected name=value")
    return values


def layer_names(text: str) -> tuple[str, ...]:
    """Names from a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


_TRIED: dict[str, Callable[[str], Any]] = {
    "layers": layer_names,
    "pooled": str,
    "compression": str,
    "components": int,
    "projection": int,
    "hidden": int,
    "lstm_layers": int,
    "bidirectional": {"true": True, "false": False}.__getitem__,
    "dropout": float,
    "steps": int,
    "batch_size": int,
    "learning_rate": float,
    "weight_decay": float,
}
"""What can be tried, and how its value is read."""

_WHOLE = {
    "components": (0, 8192),
    "projection": (0, 8192),
    "hidden": (1, 8192),
    "lstm_layers": (1, 16),
    "members": (1, 100),
    "steps": (0, 1_000_000),
    "checks": (1, 1000),
    "batch_size": (1, 65536),
    "sequence_length": SEQUENCE_LENGTHS,
    "seed": (0, MAX_SEED - 1),
    "train_magnification": (0, 2**31 - 1),
}

_NAMED: dict[str, tuple[str | None, ...]] = {
    "compression": COMPRESSIONS,
    "pooled": ("mean", "sd", None),
    "target": TARGETS,
}

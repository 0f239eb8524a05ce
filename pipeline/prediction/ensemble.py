"""Several models of one study as one: mean probability, threshold, spread, unlikeness."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import Recipe
from pipeline.errors import UsageError
from pipeline.fitting.model_file import Answer, Model, load_model
from pipeline.fitting.sequences import Sequences

SAME = 1e-3
"""A distance, in limits, below which an image is taken for a training image itself."""


@dataclass(frozen=True)
class Verdict:
    """What an ensemble says of one image.

    Attributes:
        probabilities: (C,) calibrated, mean over the models: of the positive class, or of each
            of more than two.
        called: the class that is called.
        threshold: probability from which the positive class is called, mean of the models'; None
            of more than two classes.
        lowest: the least probability that a member of a model gives to the class that the
            probabilities are of, or to the called one of more than two.
        highest: the largest, likewise.
        spread: their standard deviation.
        distance: from the training images, mean of the models'; beyond 1, it is unlike them.
        fitted: how many of the models were fitted to this very image, as far as they remember.
    """

    probabilities: tuple[float, ...]
    called: str
    threshold: float | None
    lowest: float
    highest: float
    spread: float
    distance: float
    fitted: int

    @property
    def warning(self) -> str:
        """What a reader of the probability must know; or nothing."""
        if self.distance > 1:
            return (
                "unlike the training images: the probability may mean nothing "
                f"(distance {self.distance:.2f} of the usual limit)"
            )
        if self.fitted:
            return f"{self.fitted} of the models were fitted to this image, and know its answer"
        return ""


@dataclass(frozen=True)
class Ensemble:
    """Models that were fitted to features of one recipe, to tell the same classes apart."""

    models: tuple[Model, ...]

    @classmethod
    def load(cls, paths: Sequence[Path]) -> "Ensemble":
        """Read models.

        Raises:
            UsageError: a file is not a model, or they do not belong together.
        """
        models = [load_model(path) for path in paths]
        first = models[0]
        for path, model in zip(paths[1:], models[1:], strict=True):
            differences = first.recipe.differences(model.recipe)
            if first.classes != model.classes:
                differences.append(f"classes: {first.classes}, {model.classes}")
            if differences:
                raise UsageError(
                    f"{path}: does not belong to {paths[0]}: {'; '.join(differences)}: give models "
                    "of one fit"
                )
        return cls(tuple(models))

    @property
    def recipe(self) -> Recipe:
        """Of the features that the models read."""
        return self.models[0].recipe

    @property
    def classes(self) -> tuple[str, ...]:
        """What they tell apart; of two, the positive one is the last."""
        return self.models[0].classes

    @property
    def protocol(self) -> str:
        """How training and test images were kept apart."""
        return self.models[0].protocol

    @property
    def threshold(self) -> float | None:
        """Mean of the models' thresholds; None of more than two classes."""
        thresholds = [model.threshold for model in self.models if model.threshold is not None]
        return float(np.mean(thresholds)) if thresholds else None

    def judge(self, features: Sequences) -> list[Verdict]:
        """What is said of N images with features as in a cache."""
        answers = [model.answer(features) for model in self.models]
        probabilities = mean_probabilities(answers)  # (N, C)
        members = np.concatenate([answer.of_members for answer in answers])  # (M, N, C)
        distances = np.stack([answer.distances for answer in answers])  # (models, N)
        called = self.call(probabilities)  # (N,)
        threshold = self.threshold
        verdicts = []
        for i, row in enumerate(probabilities):
            shown = members[:, i, 0 if threshold is not None else called[i]]  # (M,)
            verdicts.append(
                Verdict(
                    probabilities=tuple(row.tolist()),
                    called=self.classes[called[i]],
                    threshold=threshold,
                    lowest=float(shown.min()),
                    highest=float(shown.max()),
                    spread=float(shown.std()),
                    distance=float(distances[:, i].mean()),
                    fitted=int((distances[:, i] < SAME).sum()),
                )
            )
        return verdicts

    def call(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) the class that is called of (N, C) probabilities."""
        if self.threshold is None:
            return np.asarray(probabilities.argmax(axis=1))
        return (probabilities[:, 0] >= self.threshold).astype(np.int64)


def mean_probabilities(answers: Sequence[Answer]) -> NDArray[np.float64]:
    """(N, C) of what several models say."""
    return np.asarray(np.mean([answer.probabilities for answer in answers], axis=0))

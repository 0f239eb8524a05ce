"""The test predictions of one model over all folds, as aligned arrays."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.fitting.calibration import apply_temperature
from pipeline.fitting.predictions import Prediction

UNITS = ("case", "slide", "image")
"""What is resampled as one: the patient if known for all images, else the next best."""


@dataclass(frozen=True)
class Scores:
    """What a model says of n test images; an image counts once in each repeat.

    Attributes:
        classes: the classes; of two, the positive one is the last.
        unit: what `groups` are: `case`, `slide` or `image`.
        image_ids: (n,) the images.
        groups: (n,) the patient of each, or its slide, or the image itself.
        cases: (n,) the patient of each, empty where not known.
        truth: (n,) position of the right class.
        called: (n,) position of the class that is called.
        probabilities: (n, K) calibrated.
        raw: (n, K) before temperature scaling.
        repeats: (n,) the repeat.
        folds: (n,) the fold.
        magnifications: (n,) nominal.
        subtypes: (n,) finer classes.
    """

    classes: tuple[str, ...]
    unit: str
    image_ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    cases: NDArray[np.str_]
    truth: NDArray[np.int64]
    called: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    raw: NDArray[np.float64]
    repeats: NDArray[np.int64]
    folds: NDArray[np.int64]
    magnifications: NDArray[np.int64]
    subtypes: NDArray[np.str_]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], classes: tuple[str, ...]) -> Self:
        """From predictions, of which those with role `test` count.

        Raises:
            UsageError: there are none.
        """
        test = [prediction for prediction in predictions if prediction.role == "test"]
        if not test:
            raise UsageError("the predictions hold no test image: check the splits")
        unit = _unit(test)
        logits = np.array([p.logits for p in test])  # (n, C)
        said = np.array([p.probabilities for p in test])  # (n, C)
        number = {name: position for position, name in enumerate(classes)}
        return cls(
            classes=classes,
            unit=unit,
            image_ids=np.array([p.image_id for p in test]),
            groups=np.array([p.image_id if unit == "image" else getattr(p, unit) for p in test]),
            cases=np.array([p.case for p in test]),
            truth=np.array([number[p.truth] for p in test]),
            called=np.array([number[p.called] for p in test]),
            probabilities=_both(said),
            raw=_both(apply_temperature(logits, 1.0)),
            repeats=np.array([p.repeat for p in test]),
            folds=np.array([p.fold for p in test]),
            magnifications=np.array([p.magnification for p in test]),
            subtypes=np.array([p.subtype for p in test]),
        )

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Scores":
        """Those of some rows."""
        arrays = {
            name: value[chosen]
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray)
        }
        return Scores(self.classes, self.unit, **arrays)

    def by_repeat(self) -> list["Scores"]:
        """One for each repeat."""
        return [self.take(self.repeats == repeat) for repeat in np.unique(self.repeats)]

    def by_fold(self) -> list["Scores"]:
        """One for each fold."""
        return [self.take(self.folds == fold) for fold in np.unique(self.folds)]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether the class that is called is the right one."""
        return np.asarray(self.called == self.truth)

    @property
    def patients(self) -> list[Hashable | None]:
        """The patient of each row; None where not known.

        A patient whom several folds test, as the official ones do, counts once in each.
        """
        pairs = zip(self.folds.tolist(), self.cases.tolist(), strict=True)
        return [(fold, case) if case else None for fold, case in pairs]


def _unit(test: Sequence[Prediction]) -> str:
    for unit in UNITS[:-1]:
        if all(getattr(prediction, unit) for prediction in test):
            return unit
    return UNITS[-1]


def _both(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) or (n, 1) of the positive class to (n, 2); (n, K) as they are."""
    positive = probability.reshape(len(probability), -1)
    return np.hstack([1 - positive, positive]) if positive.shape[1] == 1 else positive

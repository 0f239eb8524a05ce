"""The measures of a model's scores: within each repeat, then averaged over repeats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.bootstrap import (
    Interval,
    Resampling,
    interval,
    resample,
    weighted_auc,
    weighted_balanced_accuracy,
    weighted_macro_auc,
    weighted_mean,
    weighted_patient_recognition_rate,
)
from pipeline.evaluation.metrics import ClassMetrics, Metrics, measure_binary, measure_classes
from pipeline.evaluation.scores import Scores

Measures = dict[str, float | None]

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "patient_recognition_rate": "patient recognition rate",
    "majority_vote": "patients right by majority vote",
    "recall": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "average_precision": "average precision",
    "sensitivity_at_90": "sensitivity at specificity 0.90",
    "sensitivity_at_95": "sensitivity at specificity 0.95",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
}
"""The measures in the order in which they are shown; of more than two classes, macro averages."""

HEADLINE = ("accuracy", "balanced_accuracy", "roc_auc", "patient_recognition_rate")
"""Those that have intervals."""


def measure(scores: Scores) -> Measures:
    """All measures; None where one is not defined."""
    parts = [_measure(part) for part in scores.by_repeat()]
    names = [name for name in TITLES if name in parts[0]]
    return {name: _mean([part[name] for part in parts]) for name in names}


def _measure(scores: Scores) -> Measures:
    if len(scores.classes) == 2:
        found: Metrics | ClassMetrics = measure_binary(
            scores.truth == 1, scores.probabilities[:, 1], scores.called == 1, scores.patients
        )
    else:
        found = measure_classes(scores.truth, scores.probabilities, scores.patients)
    return dict(found._asdict())


def over_folds(scores: Scores) -> tuple[list[Measures], Measures, Measures]:
    """The measures of each fold, their mean, and their standard deviation as of a sample."""
    folds = [_measure(part) for part in scores.by_fold()]
    names = [name for name in TITLES if name in folds[0]]
    return (
        [{name: fold[name] for name in names} for fold in folds],
        {name: _over(fmean, [fold[name] for fold in folds], 1) for name in names},
        {name: _over(stdev, [fold[name] for fold in folds], 2) for name in names},
    )


def _over(
    statistic: Callable[[list[float]], float], values: Sequence[float | None], least: int
) -> float | None:
    known = [value for value in values if value is not None]
    return statistic(known) if len(known) == len(values) >= least else None


def _mean(values: Sequence[float | None]) -> float | None:
    return _over(fmean, values, 1)


@dataclass(frozen=True)
class Replicates:
    """The headline measures (R,) of a model in each replicate of the drawing of patients."""

    samples: dict[str, NDArray[np.float64]]
    resampling: Resampling

    def interval(self, name: str) -> Interval | None:
        """The 95% interval of a measure; None if it says nothing."""
        return interval(self.samples[name], self.resampling.strata_sizes)


def draw(scores: Scores) -> Resampling:
    """Draw the patients of some scores: as many for all models that are tested on them."""
    _, first = np.unique(scores.image_ids, return_index=True)
    truth = [scores.classes[number] for number in scores.truth[first]]
    return resample(scores.groups[first].tolist(), truth)


def replicate(
    scores: Scores, resampling: Resampling, names: Sequence[str] = HEADLINE
) -> Replicates:
    """The headline measures in each replicate, averaged over repeats."""
    totals: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for part in scores.by_repeat():
        weights = resampling.weights(part.groups.tolist())  # (R, n)
        for name in names:
            totals[name].append(_WEIGHTED[name](part, weights))
    return Replicates({name: np.mean(parts, axis=0) for name, parts in totals.items()}, resampling)


def _accuracy(scores: Scores, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return weighted_mean(scores.right, weights)


def _balanced_accuracy(scores: Scores, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return weighted_balanced_accuracy(scores.right, scores.truth, weights)


def _auc(scores: Scores, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(scores.classes) == 2:
        return weighted_auc(scores.probabilities[:, 1], scores.truth == 1, weights)
    return weighted_macro_auc(scores.probabilities, scores.truth, weights)


def _recognition(scores: Scores, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    if None in scores.patients:
        return np.full(len(weights), np.nan)
    return weighted_patient_recognition_rate(scores.right, scores.patients, weights)


_WEIGHTED: dict[str, Callable[[Scores, NDArray[np.float64]], NDArray[np.float64]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "roc_auc": _auc,
    "patient_recognition_rate": _recognition,
}

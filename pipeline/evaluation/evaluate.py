"""Test predictions to numbers: per fold, pooled, by magnification and subtype."""

import json
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from tabulate import tabulate

from cache.files import publish
from pipeline.errors import UsageError
from pipeline.evaluation.headline import heading
from pipeline.evaluation.metrics import THRESHOLD, Metrics, measure
from pipeline.fitting.predictions import FitRecord, Prediction, check_models, read_fits

Key = TypeVar("Key", int, str)

_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall (sensitivity)",
    "specificity": "specificity",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "patient_recognition_rate": "patient recognition rate",
}


@dataclass(frozen=True)
class Evaluation:
    """The content of `metrics.json`.

    Attributes:
        note: what the user says of the run.
        protocol: how training and test images were kept apart.
        leaks: whether they were not.
        group_by: what the splits keep together.
        weights: name of the encoder's weights.
        fingerprint: of the features' recipe.
        labels: the negative and the positive label.
        threshold: probability from which an image is called positive.
        pooled: over the test images of all folds together.
        folds: of each fold's test images.
        mean: over folds.
        sd: over folds, of a sample (n - 1); None with fewer than two.
        by_magnification: pooled, of each magnification.
        by_subtype: pooled, of each subtype.
    """

    note: str
    protocol: str
    leaks: bool
    group_by: str
    weights: str
    fingerprint: str
    labels: tuple[str, str]
    threshold: float
    pooled: Metrics
    folds: list[Metrics]
    mean: dict[str, float | None]
    sd: dict[str, float | None]
    by_magnification: dict[str, Metrics]
    by_subtype: dict[str, Metrics]

    def to_json(self) -> str:
        """As JSON; a measure that is not defined is null."""
        values = asdict(self)
        values["pooled"] = self.pooled._asdict()
        values["folds"] = [metrics._asdict() for metrics in self.folds]
        for part in ("by_magnification", "by_subtype"):
            values[part] = {key: found._asdict() for key, found in getattr(self, part).items()}
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """As tables for a terminal."""
        parts = [heading(vars(self)), self._main_table()]
        for title, part in (
            ("magnification", self.by_magnification),
            ("subtype", self.by_subtype),
        ):
            if len(part) > 1:
                parts.append(_group_table(title, part))
        return "\n\n".join(parts)

    def _main_table(self) -> str:
        rows = [
            [title, _shown(getattr(self.pooled, name)), _spread(self.mean[name], self.sd[name])]
            for name, title in _TITLES.items()
        ]
        counts = f"{self.pooled.images} images"
        if self.pooled.patients is not None:
            counts += f", {self.pooled.patients} patients"
        headers = [f"{len(self.folds)} folds, {counts}", "pooled", "mean ± sd of folds"]
        return tabulate(rows, headers, colalign=("left", "right", "right"), disable_numparse=True)


def evaluate(fits: Path, out: Path, note: str = "") -> Evaluation:
    """Measure the test predictions of all folds and publish them as JSON.

    Args:
        fits: the folder that `pipeline fit-lstm` wrote.
        out: the JSON file.
        note: a line that is kept with the numbers.

    Raises:
        UsageError: the folds are incomplete, or do not belong together, or a model to its fold.
        PublishError: `out` cannot be written.
    """
    record, predictions = read_fits(fits)
    check_models(fits)
    evaluation = evaluate_predictions(record, predictions, note)
    with publish(out) as temporary:
        temporary.write_text(evaluation.to_json())
    return evaluation


def evaluate_predictions(
    record: FitRecord, predictions: Sequence[Prediction], note: str = ""
) -> Evaluation:
    """Measure predictions; only those whose role is `test` count."""
    test = [prediction for prediction in predictions if prediction.role == "test"]
    if not test:
        raise UsageError("the predictions hold no test image: check the splits")
    positive = record.labels[1]
    folds = list(_grouped(test, positive, lambda prediction: prediction.fold).values())
    names = list(_TITLES)
    return Evaluation(
        note=note,
        protocol=record.protocol,
        leaks=record.leaks,
        group_by=record.group_by,
        weights=record.weights,
        fingerprint=record.fingerprint,
        labels=record.labels,
        threshold=THRESHOLD,
        pooled=_measure(test, positive),
        folds=folds,
        mean={name: _over_folds(statistics.fmean, folds, name, 1) for name in names},
        sd={name: _over_folds(statistics.stdev, folds, name, 2) for name in names},
        by_magnification=_grouped(test, positive, _magnification),
        by_subtype=_grouped(test, positive, lambda prediction: prediction.subtype or "unknown"),
    )


def _magnification(prediction: Prediction) -> str:
    return f"{prediction.magnification}X" if prediction.magnification else "unknown"


def _measure(predictions: Sequence[Prediction], positive: str) -> Metrics:
    truth = np.array([prediction.label == positive for prediction in predictions])  # (n,)
    probability = np.array([prediction.probability for prediction in predictions])  # (n,)
    # A patient whom several folds test, as the official ones do, counts once in each.
    patients: list[Hashable | None] = [
        (prediction.fold, prediction.case) if prediction.case else None
        for prediction in predictions
    ]
    return measure(truth, probability, patients)


def _grouped(
    predictions: Sequence[Prediction], positive: str, key: Callable[[Prediction], Key]
) -> dict[Key, Metrics]:
    keys = sorted({key(prediction) for prediction in predictions})
    return {
        value: _measure([p for p in predictions if key(p) == value], positive) for value in keys
    }


def _over_folds(
    statistic: Callable[[list[float]], float], folds: Sequence[Metrics], name: str, least: int
) -> float | None:
    values = [value for fold in folds if (value := getattr(fold, name)) is not None]
    return statistic(values) if len(values) == len(folds) >= least else None


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _spread(mean: float | None, sd: float | None) -> str:
    return _shown(mean) if sd is None else f"{_shown(mean)} ± {sd:.3f}"


def _group_table(title: str, part: dict[str, Metrics]) -> str:
    names = ("accuracy", "roc_auc", "patient_recognition_rate")
    rows = [
        [key, found.images, *(_shown(getattr(found, name)) for name in names)]
        for key, found in part.items()
    ]
    headers = [title, "images", *(_TITLES[name] for name in names)]
    alignment = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, colalign=alignment, disable_numparse=True)

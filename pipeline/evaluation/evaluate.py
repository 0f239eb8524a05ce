"""Test predictions to numbers with intervals, beside baselines, published figures and an audit."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.files import publish
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.calibration import reliability
from pipeline.evaluation.companions import Result, beside, verdict
from pipeline.evaluation.measures import (
    HEADLINE,
    Measures,
    draw,
    measure,
    over_folds,
    replicate,
)
from pipeline.evaluation.published import published_beside
from pipeline.evaluation.scores import Scores
from pipeline.fitting.record import IMAGE_LEVEL, Fits, check_models, read_fits

SHORT = {
    "mean_pool_logistic": "mean-pooled logistic regression",
    "mean_pool_mlp": "the mean-pooled MLP",
    "attention": "attention pooling",
    "permuted_lstm": "the LSTM on permuted patches",
    "colour": "colour alone",
}
"""The baselines as a sentence names them."""


@dataclass(frozen=True)
class Calibration:
    """How well probabilities agree with outcomes.

    Attributes:
        brier: see `Metrics`.
        ece: see `Metrics`.
        reliability: of the positive class, or of the class that is called: `low`, `high`,
            `images`, `mean_probability` and `fraction` of each bin.
    """

    brier: float | None
    ece: float | None
    reliability: list[dict[str, float | None]]


@dataclass(frozen=True)
class Evaluation:
    """The content of `metrics.json`.

    A measure that is not defined is null. Measures are taken within each repeat over its pooled
    test images, then averaged over repeats; intervals are at 95%.

    Attributes:
        note: what the user says of the run.
        protocol: how training and test images were kept apart.
        leaks: whether they were not.
        group_by: what the splits keep together.
        repeats: how often the images were divided.
        weights: name of the encoder's weights.
        fingerprint: of the features' recipe.
        target: `label` or `subtype`.
        train_magnification: the only one that trained; 0 is all.
        labels: the classes; of two, the positive one is the last.
        thresholds: of each fold, from its images set aside; null for more than two classes.
        temperatures: of each fold, likewise.
        unit: what intervals resample: `case`, `slide` or `image`.
        units: how many there are, of each class.
        images: that are tested.
        patients: that are tested; null if they are not known.
        pooled: measure → value.
        intervals: headline measure → [low, high], or null.
        folds: of each fold, measure → value.
        mean: over folds.
        sd: over folds, of a sample (n - 1); null with fewer than two.
        calibration: `before` and `after` temperature scaling.
        by_magnification: pooled, of each.
        by_subtype: pooled, of each.
        by_class: recall of each class.
        companions: baseline → measures, intervals, and the gain of the LSTM in ROC AUC.
        verdict: which baselines are beaten beyond doubt.
        image_level: what the same LSTM scores on an image-level split, which LEAKS; or null.
        published: figures of other studies that may stand beside these.
        audit: of leakage.
        notes: what a reader must know besides.
    """

    note: str
    protocol: str
    leaks: bool
    group_by: str
    repeats: int
    weights: str
    fingerprint: str
    target: str
    train_magnification: int
    labels: tuple[str, ...]
    thresholds: list[float | None]
    temperatures: list[float]
    unit: str
    units: tuple[int, ...]
    images: int
    patients: int | None
    pooled: Measures
    intervals: dict[str, Interval | None]
    folds: list[Measures]
    mean: Measures
    sd: Measures
    calibration: dict[str, Calibration]
    by_magnification: dict[str, Measures]
    by_subtype: dict[str, Measures]
    by_class: dict[str, float]
    companions: dict[str, Result]
    verdict: str
    image_level: Measures | None
    published: list[dict[str, str]]
    audit: Mapping[str, Any]
    notes: list[str]

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """As tables for a terminal."""
        from pipeline.evaluation.tables import tables

        return tables(self)


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
    read = read_fits(fits)
    check_models(fits)
    evaluation = evaluate_fits(read, note)
    with publish(out) as temporary:
        temporary.write_text(evaluation.to_json())
    return evaluation


def evaluate_fits(fits: Fits, note: str = "") -> Evaluation:
    """Measure the test predictions of all folds."""
    record, records = fits.records[0], fits.records
    scores = Scores.of(fits.predictions, record.labels)
    resampling = draw(scores)
    own = replicate(scores, resampling)
    others = {name: Scores.of(rows, record.labels) for name, rows in fits.companions.items()}
    twin = others.pop(IMAGE_LEVEL, None)
    companions = beside(scores, own, others)
    folds, mean, sd = over_folds(scores)
    magnifications = set(scores.magnifications.tolist())
    shown = published_beside(record.labels, magnifications, record.leaks)
    notes = [note for one in records for note in one.notes]
    if 1 in resampling.strata_sizes:
        notes.append(f"a class has one {scores.unit} only: intervals say nothing of how it varies")
    return Evaluation(
        note=note,
        protocol=record.protocol,
        leaks=record.leaks,
        group_by=record.group_by,
        repeats=record.repeats,
        weights=record.weights,
        fingerprint=record.fingerprint,
        target=record.target,
        train_magnification=record.train_magnification,
        labels=record.labels,
        thresholds=[one.threshold for one in records],
        temperatures=[one.temperature for one in records],
        unit=scores.unit,
        units=resampling.strata_sizes,
        images=len(set(scores.image_ids.tolist())),
        patients=None if "" in scores.cases else len(set(scores.cases.tolist())),
        pooled=measure(scores),
        intervals={name: own.interval(name) for name in HEADLINE},
        folds=folds,
        mean=mean,
        sd=sd,
        calibration={
            "before": _calibration(scores, scores.raw),
            "after": _calibration(scores, scores.probabilities),
        },
        by_magnification=_parts(
            scores, np.array([_magnification(m) for m in scores.magnifications])
        ),
        by_subtype=_parts(scores, np.where(scores.subtypes == "", "unknown", scores.subtypes)),
        by_class={
            name: float(scores.right[scores.truth == number].mean())
            for number, name in enumerate(scores.classes)
            if (scores.truth == number).any()
        },
        companions=companions,
        verdict=verdict(companions, SHORT),
        image_level=None if twin is None else measure(twin),
        published=[one._asdict() for one in shown],
        audit=fits.audit,
        notes=list(dict.fromkeys(notes)),
    )


def _calibration(scores: Scores, probabilities: NDArray[np.float64]) -> Calibration:
    two = len(scores.classes) == 2
    top = probabilities[:, 1] if two else probabilities.max(axis=1)  # (n,)
    hit = scores.truth == 1 if two else scores.truth == probabilities.argmax(axis=1)  # (n,)
    changed = Scores(**{**vars(scores), "probabilities": probabilities})
    found = measure(changed)
    return Calibration(
        brier=found["brier"],
        ece=found["ece"],
        reliability=[one._asdict() for one in reliability(top, hit)],
    )


def _magnification(magnification: int) -> str:
    return f"{magnification}X" if magnification else "unknown"


def _parts(scores: Scores, keys: NDArray[np.str_]) -> dict[str, Measures]:
    """The measures of the images of each key (n,), with how many images there are."""
    parts = {key: scores.take(keys == key) for key in sorted(set(keys.tolist()))}
    return {
        key: {"images": len(set(part.image_ids.tolist())), **measure(part)}
        for key, part in parts.items()
    }

"""What a fit leaves for the evaluation: predictions, and a record of how they were made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import UsageError
from pipeline.tables import read_table


class Prediction(NamedTuple):
    """One image, as one fold's classifier sees it."""

    image_id: str
    slide: str
    case: str
    label: str
    subtype: str
    magnification: int
    role: str
    fold: int
    group_by: str
    probability: float


PREDICTION_COLUMNS = Prediction._fields


@dataclass(frozen=True)
class FitRecord:
    """How one fold was fitted: the content of `fit.json`.

    Attributes:
        fold: its number, of `folds`.
        folds: how many the splits have.
        labels: the negative and the positive label.
        group_by: what the splits keep together.
        protocol: how training and test images were kept apart, in words.
        leaks: whether they were not.
        weights: name of the encoder's weights.
        fingerprint: of the features' recipe.
        manifest_sha256: of the cache's image table.
        options: of the fit.
        seconds: that the fold took.
    """

    fold: int
    folds: int
    labels: tuple[str, str]
    group_by: str
    protocol: str
    leaks: bool
    weights: str
    fingerprint: str
    manifest_sha256: str
    options: Mapping[str, Any]
    seconds: float

    def same_study(self, other: "FitRecord") -> bool:
        """Whether two folds belong to one study, fitted in one way."""
        own = ("fold", "seconds")
        return all(
            getattr(self, field.name) == getattr(other, field.name)
            for field in fields(self)
            if field.name not in own
        )


def read_fits(folder: Path) -> tuple[FitRecord, list[Prediction]]:
    """Read all folds of a fit.

    Args:
        folder: what `pipeline fit-lstm --out` was given.

    Returns:
        The record of the first fold, and the predictions of all, fold after fold.

    Raises:
        UsageError: there are no folds, some are missing, or they were fitted in different ways.
    """
    found = {path.parent: _read_record(path) for path in folder.glob("fold*/fit.json")}
    if not found:
        raise UsageError(f"{folder}: no fold<K>/fit.json: run `pipeline fit-lstm --out {folder}`")
    in_order = sorted(found, key=lambda path: found[path].fold)
    first = found[in_order[0]]
    for path in in_order:
        if not first.same_study(found[path]):
            raise UsageError(
                f"{path}: fitted from other data or with other options than {in_order[0]}: "
                "fit all folds again"
            )
    missing = sorted(set(range(first.folds)) - {record.fold for record in found.values()})
    if missing:
        raise UsageError(f"{folder}: folds {missing} of {first.folds} are missing: fit them")
    tables = [_read_predictions(path / "predictions.csv", first) for path in in_order]
    return first, [prediction for table in tables for prediction in table]


def _read_record(path: Path) -> FitRecord:
    try:
        values = json.loads(path.read_text())
        return FitRecord(**{**values, "labels": tuple(values["labels"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: not the record of a fit ({error}): fit again") from error


def _read_predictions(path: Path, record: FitRecord) -> list[Prediction]:
    return [
        _prediction(f"{path}, line {line}", row, record)
        for line, row in read_table(path, PREDICTION_COLUMNS)
    ]


def _prediction(where: str, row: Mapping[str, str], record: FitRecord) -> Prediction:
    try:
        values = {name: row[name] for name in PREDICTION_COLUMNS}
        prediction = Prediction(
            **{
                **values,
                "magnification": int(row["magnification"]),
                "fold": int(row["fold"]),
                "probability": float(row["probability"]),
            }  # type: ignore[arg-type]  # the three numbers replace their text
        )
    except ValueError as error:
        raise UsageError(f"{where}: not a prediction ({error}): fit again") from error
    if prediction.label not in record.labels:
        raise UsageError(f"{where}: label {prediction.label!r}, expected {record.labels}")
    if not 0 <= prediction.probability <= 1:
        raise UsageError(f"{where}: probability {prediction.probability}, expected 0 to 1")
    return prediction

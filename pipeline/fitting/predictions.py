"""What a fit leaves for the evaluation: predictions, and a record of how they were made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset.manifest import MAX_IMAGES, parse_number
from pipeline.errors import UsageError
from pipeline.safetensors_file import read_metadata
from pipeline.splits.table import MAX_FOLDS
from pipeline.tables import read_table
from pipeline.user_file import printable, read_file

MAX_RECORD_BYTES = 1 << 20
"""Bytes of `fit.json`: it has 1 KB."""


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
        splits_sha256: of the file of splits.
        predictions_sha256: of the file `predictions.csv` beside it.
        model_sha256: of the file `model.safetensors` beside it.
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
    splits_sha256: str
    predictions_sha256: str
    model_sha256: str
    options: Mapping[str, Any]
    seconds: float

    def same_study(self, other: "FitRecord") -> bool:
        """Whether two folds belong to one study, fitted in one way."""
        own = ("fold", "predictions_sha256", "model_sha256", "seconds")
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
        UsageError: there are no folds, some are missing, were fitted in different ways, or have
            changed since.
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
    known = {record.fold for record in found.values()}
    if len(known) < first.folds:
        missing = list(islice((k for k in range(first.folds) if k not in known), 10))
        raise UsageError(f"{folder}: folds {missing} of {first.folds} are missing: fit them")
    tables = [_read_predictions(path / "predictions.csv", found[path]) for path in in_order]
    return first, [prediction for table in tables for prediction in table]


def check_models(folder: Path) -> None:
    """Check that each fold's model is the one that made its predictions.

    Raises:
        UsageError: it is not there, was fitted to features of another recipe, or was changed.
    """
    for path in sorted(folder.glob("fold*/fit.json")):
        record, model = _read_record(path), path.with_name("model.safetensors")
        found = read_metadata(model).get("fingerprint", "none")
        if found != record.fingerprint:
            raise UsageError(
                f"{model}: for features of the recipe {printable(found, 12)}, but the predictions "
                f"beside it are of {record.fingerprint[:12]}…: fit again"
            )
        if file_sha256(model) != record.model_sha256:
            raise UsageError(f"{model}: is not the model that was fitted here: fit again")


def _read_record(path: Path) -> FitRecord:
    try:
        values = json.loads(read_file(path, MAX_RECORD_BYTES))
        record = FitRecord(**{**values, "labels": tuple(values["labels"])})
        _check_types(record)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = printable(str(error))
        raise UsageError(f"{path}: not the record of a fit ({reason}): fit again") from error
    # A copy of a folder would count its images twice.
    if path.parent.name != f"fold{record.fold}":
        raise UsageError(
            f"{path}: the record of fold {record.fold}, expected in a folder fold{record.fold}: "
            "move or remove it"
        )
    return record


def _check_types(record: FitRecord) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        expected = _TYPES.get(field.name, str)
        # In Python, true and false are whole numbers too.
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise TypeError(f"{field.name} is {value!r:.40}")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{field.name} is {value[:80]!r}")
    labels = record.labels
    if len(labels) != 2 or not all(isinstance(one, str) and one.isprintable() for one in labels):
        raise ValueError(f"labels are {labels!r:.80}, expected two")
    if not 0 <= record.fold < record.folds <= MAX_FOLDS:
        raise ValueError(f"fold is {record.fold} of {record.folds}")


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "fold": int,
    "folds": int,
    "labels": tuple,
    "leaks": bool,
    "options": dict,
    "seconds": (int, float),
}
"""Types of the fields of a record that are not text."""


def _read_predictions(path: Path, record: FitRecord) -> list[Prediction]:
    predictions: list[Prediction] = []
    for line, row in read_table(path, PREDICTION_COLUMNS):
        predictions.append(_prediction(f"{path}, line {line}", row, record))
        if len(predictions) > MAX_IMAGES:
            raise UsageError(f"{path}: more than {MAX_IMAGES:,} predictions")
    if file_sha256(path) != record.predictions_sha256:
        raise UsageError(f"{path}: was changed after it was made: fit again")
    return predictions


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prediction(where: str, row: Mapping[str, str], record: FitRecord) -> Prediction:
    try:
        values = {name: row[name] for name in PREDICTION_COLUMNS}
        prediction = Prediction(
            **{
                **values,
                "magnification": parse_number(row["magnification"], "magnification", where),
                "fold": parse_number(row["fold"], "fold", where),
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

"""The record of a fit, and reading a fit's folder: all folds, of one study, unchanged since."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from pipeline.errors import UsageError
from pipeline.fitting.options import TARGETS
from pipeline.fitting.predictions import Prediction, file_sha256, read_predictions
from pipeline.safetensors_file import read_metadata
from pipeline.splits.table import MAX_FOLDS
from pipeline.user_file import printable, read_file

MAX_RECORD_BYTES = 1 << 20
"""Bytes of `fit.json`: it has a few KB."""

MAX_AUDIT_BYTES = 1 << 24

MAX_CLASSES = 1024

AUDIT = "audit.json"
PREDICTIONS = "predictions.csv"

COMPANIONS = {
    "mean_pool_logistic": "logistic regression on mean-pooled features",
    "mean_pool_mlp": "MLP on mean-pooled features",
    "attention": "gated attention over patches (ABMIL)",
    "permuted_lstm": "LSTM on patches in random order",
    "colour": "colour alone: logistic regression on 12 optical-density statistics",
    "image_level": "the LSTM on an image-level split, which LEAKS",
}
"""What may be fitted beside the LSTM, in the order in which it is shown."""

IMAGE_LEVEL = "image_level"
"""The companion that is no baseline, but shows what a leaking split would have claimed."""


@dataclass(frozen=True)
class FitRecord:
    """How one fold was fitted: the content of `fit.json`.

    Attributes:
        fold: its number, of `folds`.
        folds: how many the splits have, repeats included.
        repeat: which division of the images the fold belongs to, of `repeats`.
        repeats: how many there are.
        target: what is told apart: `label` or `subtype`.
        labels: the classes; of two, the positive one is the last.
        group_by: what the splits keep together.
        protocol: how training and test images were kept apart, in words.
        leaks: whether they were not.
        train_magnification: only images of this one trained; 0 is all.
        weights: name of the encoder's weights.
        fingerprint: of the features' recipe.
        manifest_sha256: of the cache's image table.
        splits_sha256: of the file of splits.
        audit_sha256: of the file `audit.json` in the folder above.
        predictions_sha256: of the file `predictions.csv` beside it.
        model_sha256: of the file `model.safetensors` beside it.
        temperature: that logits are divided by, from the images set aside.
        threshold: probability from which an image is called positive, from the images set aside;
            None of more than two classes.
        companions: for each, `sha256` of its table `<name>.csv`, `temperature`, `threshold`.
        options: of the fit.
        chosen: the one of the tries in `options` that the images set aside chose; or empty.
        notes: what a reader of the numbers must know, such as a class that nothing trained.
        seconds: that the fold took.
    """

    fold: int
    folds: int
    repeat: int
    repeats: int
    target: str
    labels: tuple[str, ...]
    group_by: str
    protocol: str
    leaks: bool
    train_magnification: int
    weights: str
    fingerprint: str
    manifest_sha256: str
    splits_sha256: str
    audit_sha256: str
    predictions_sha256: str
    model_sha256: str
    temperature: float
    threshold: float | None
    companions: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    chosen: str
    notes: tuple[str, ...]
    seconds: float

    def same_study(self, other: "FitRecord") -> bool:
        """Whether two folds belong to one study, fitted in one way."""
        return self.companions.keys() == other.companions.keys() and all(
            getattr(self, field.name) == getattr(other, field.name)
            for field in fields(self)
            if field.name not in _OWN
        )


_OWN = (
    "fold",
    "repeat",
    "predictions_sha256",
    "model_sha256",
    "temperature",
    "threshold",
    "companions",
    "chosen",
    "notes",
    "seconds",
)
"""What the folds of one study may differ in."""


@dataclass(frozen=True)
class Fits:
    """A fit of all folds.

    Attributes:
        folder: where it is.
        records: of each fold, in the order of their numbers.
        predictions: of the LSTM, all roles, fold after fold.
        companions: for each, its test predictions, fold after fold.
        audit: of the leakage, as its file holds it.
    """

    folder: Path
    records: list[FitRecord]
    predictions: list[Prediction]
    companions: dict[str, list[Prediction]]
    audit: Mapping[str, Any]


def read_fits(folder: Path) -> Fits:
    """Read all folds of a fit.

    Args:
        folder: what `pipeline fit-lstm --out` was given.

    Raises:
        UsageError: there are no folds, some are missing, were fitted in different ways, or have
            changed since.
    """
    found = {path.parent: _read_record(path) for path in folder.glob("fold*/fit.json")}
    if not found:
        raise UsageError(f"{folder}: no fold<K>/fit.json: run `pipeline fit-lstm --out {folder}`")
    places = sorted(found, key=lambda path: found[path].fold)
    records = [found[path] for path in places]
    for path, record in zip(places, records, strict=True):
        if not records[0].same_study(record):
            raise UsageError(
                f"{path}: fitted from other data or with other options than {places[0]}: "
                "fit all folds again"
            )
    _check_complete(folder, records)
    tables = {name: _read_all(places, records, name) for name in records[0].companions}
    return Fits(
        folder=folder,
        records=records,
        predictions=_read_all(places, records, None),
        companions={name: tables[name] for name in COMPANIONS if name in tables},
        audit=_read_audit(folder / AUDIT, records[0].audit_sha256),
    )


def _check_complete(folder: Path, records: list[FitRecord]) -> None:
    known = {record.fold for record in records}
    total = records[0].folds
    if len(known) < total:
        missing = list(islice((k for k in range(total) if k not in known), 10))
        raise UsageError(f"{folder}: folds {missing} of {total} are missing: fit them")


def _read_all(
    places: list[Path], records: list[FitRecord], companion: str | None
) -> list[Prediction]:
    rows = []
    for place, record in zip(places, records, strict=True):
        file, digest = PREDICTIONS, record.predictions_sha256
        if companion is not None:
            file, digest = f"{companion}.csv", record.companions[companion]["sha256"]
        rows += read_predictions(place / file, record.labels, digest)
    return rows


def _read_audit(path: Path, sha256: str) -> Mapping[str, Any]:
    try:
        values = json.loads(read_file(path, MAX_AUDIT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not an audit ({printable(str(error))}): fit again") from error
    if file_sha256(path) != sha256 or not isinstance(values, dict):
        raise UsageError(f"{path}: was changed after it was made: fit again")
    return values


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
        lists = {name: _texts(values[name]) for name in ("labels", "notes")}
        record = FitRecord(**{**values, **lists})
        _check_types(record)
        _check_values(record)
        _check_companions(record)
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


def _texts(values: Any) -> tuple[str, ...]:  # noqa: ANN401 - any value of a file that may be forged
    if not isinstance(values, list):
        raise TypeError(f"{values!r:.40} is no list")
    return tuple(values)


def _check_types(record: FitRecord) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        expected = _TYPES.get(field.name, str)
        # In Python, true and false are whole numbers too.
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise TypeError(f"{field.name} is {value!r:.40}")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{field.name} is {value[:80]!r}")


def _check_values(record: FitRecord) -> None:
    for name in ("labels", "notes"):
        texts = getattr(record, name)
        if not all(isinstance(one, str) and one.isprintable() for one in texts):
            raise ValueError(f"{name} are {texts!r:.80}, expected texts")
    if not 2 <= len(set(record.labels)) == len(record.labels) <= MAX_CLASSES:
        raise ValueError(f"labels are {record.labels!r:.80}, expected two or more that differ")
    if not 0 <= record.fold < record.folds <= MAX_FOLDS:
        raise ValueError(f"fold is {record.fold} of {record.folds}")
    if not 0 <= record.repeat < record.repeats <= record.folds:
        raise ValueError(f"repeat is {record.repeat} of {record.repeats}")
    if record.target not in TARGETS:
        raise ValueError(f"target is {record.target[:40]!r}, expected {' or '.join(TARGETS)}")
    if record.train_magnification < 0:
        raise ValueError(f"train_magnification is {record.train_magnification}")
    _check_locked(record.temperature, record.threshold, record.labels)


def _check_locked(temperature: object, threshold: object, labels: Sequence[str]) -> None:
    if not _is_number(temperature) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r:.40}, expected a positive number")
    if len(labels) > 2 and threshold is None:
        return
    if len(labels) > 2 or not _is_number(threshold) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r:.40}, expected 0 to 1 of two classes")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_companions(record: FitRecord) -> None:
    for name, values in record.companions.items():
        if name not in COMPANIONS or not isinstance(values, dict):
            raise ValueError(f"companion {name[:40]!r} is not known")
        if not isinstance(values.get("sha256"), str):
            raise TypeError(f"companion {name} has no sha256")
        _check_locked(values.get("temperature"), values.get("threshold"), record.labels)


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "fold": int,
    "folds": int,
    "repeat": int,
    "repeats": int,
    "train_magnification": int,
    "labels": tuple,
    "notes": tuple,
    "leaks": bool,
    "companions": dict,
    "options": dict,
    "temperature": (int, float),
    "threshold": (int, float, type(None)),
    "seconds": (int, float),
}
"""Types of the fields of a record that are not text."""

"""Stage two: a classifier for each fold, from the feature cache."""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cache import FeatureCache, ImageRow, Recipe
from cache.files import publish
from pipeline.errors import PipelineError, UsageError
from pipeline.fitting.classifier import ClassifierSizes
from pipeline.fitting.model_file import Model, save_model
from pipeline.fitting.predictions import (
    PREDICTION_COLUMNS,
    FitRecord,
    Prediction,
    file_sha256,
)
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.training import (
    Epoch,
    Examples,
    TrainOptions,
    predict_logits,
    repeatable,
    train,
)
from pipeline.progress import Progress, silent
from pipeline.splits.table import Splits, read_splits
from pipeline.tables import write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """What is fitted, and how.

    Attributes:
        train: how each classifier is trained.
        projection: see `ClassifierSizes`, as for the next four.
        hidden: length of the LSTM's state.
        layers: LSTM layers.
        bidirectional: whether it reads both ways.
        dropout: fraction dropped.
        positive: the label whose probability is predicted; None takes `malignant`, else the last
            in alphabetical order.
    """

    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    projection: int = 128
    hidden: int = 64
    layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.3
    positive: str | None = None

    def sizes(self, feature_dim: int) -> ClassifierSizes:
        """The classifier's sizes for features of a length."""
        return ClassifierSizes(
            feature_dim,
            self.projection,
            self.hidden,
            self.layers,
            self.bidirectional,
            self.dropout,
        )


@dataclass(frozen=True)
class Study:
    """What all folds share: the cache in memory, its labels and the splits."""

    rows: Sequence[ImageRow]
    sequences: Sequences
    targets: torch.Tensor
    labels: tuple[str, str]
    splits: Splits
    recipe: Recipe
    manifest_sha256: str
    splits_sha256: str
    protocol: str

    def examples(self, fold: int, role: str) -> Examples:
        """The images of one role of a fold, in cache order."""
        roles = self.splits.roles(fold)
        chosen = [i for i, row in enumerate(self.rows) if roles.get(row.image_id) == role]
        images = torch.tensor(chosen, dtype=torch.int64)
        return Examples(images, self.targets[images])


@dataclass(frozen=True)
class FitResult:
    """What a fit did: the folds, with their histories, the protocol and the seconds it took."""

    histories: Mapping[int, list[Epoch]]
    protocol: str
    weights: str
    seconds: float

    def summary(self) -> str:
        """One line for a person."""
        epochs = sum(map(len, self.histories.values()))
        fitted = f"{len(self.histories)} folds, {epochs} epochs in {self.seconds:.1f} s"
        return f"{fitted}; {self.protocol}; {self.weights} weights"


def fit_lstm(
    cache: Path,
    splits: Path,
    out: Path,
    options: FitOptions | None = None,
    fold: int | None = None,
    progress: Progress = silent,
) -> FitResult:
    """Fit a classifier for each fold.

    Writes `fold<K>/model.safetensors`, `predictions.csv`, `history.csv` and `fit.json` for each.
    Equal inputs and options give equal bytes, but for the times in `fit.json`.

    Args:
        cache: the features.
        splits: the roles of its images.
        out: the folder for the results.
        options: see `FitOptions`.
        fold: one fold only; None fits all and removes what other folds an earlier fit left.
        progress: told of each fold.

    Raises:
        CacheError: the cache is damaged.
        UsageError: the splits do not fit the cache, or an option is wrong.
        PipelineError: `out` cannot be made, or the loss is no longer finite.
        PublishError: the results cannot be written.
    """
    options = options or FitOptions()
    began = time.perf_counter()
    study = load_study(cache, splits, options.positive)
    folds = _folds(study.splits, fold)
    options.sizes(study.recipe.feature_dim)  # a wrong one is refused before anything is removed
    _make_folder(out)
    if fold is None:
        _remove_other_folds(out, folds)
    histories = {}
    with progress(len(folds), 0) as advance:
        for number in folds:
            histories[number] = _fit_fold(study, number, out / f"fold{number}", options)
            advance(1)
    seconds = time.perf_counter() - began
    return FitResult(histories, study.protocol, study.recipe.weights, seconds)


def load_study(cache: Path, splits: Path, positive: str | None) -> Study:
    """Read a cache, whole and checked, and the splits of its images."""
    with FeatureCache(cache, seal="whole") as file:
        features = file.load()  # (P, D)
        rows = file.images.rows()
        absent = {failure.image_id for failure in file.failures}
        if absent:
            log.warning("%s: %d images have no features and are left out", cache, len(absent))
        table = read_splits(splits, rows, absent)
        labels = _labels(cache, rows, positive)
        targets = torch.tensor([float(row.label == labels[1]) for row in rows])
        return Study(
            rows=rows,
            sequences=Sequences.from_arrays(features, file.offsets),
            targets=targets,
            labels=labels,
            splits=table,
            recipe=file.recipe,
            manifest_sha256=file.attributes["manifest_sha256"],
            splits_sha256=file_sha256(splits),
            protocol=table.protocol(rows),
        )


def _labels(cache: Path, rows: Sequence[ImageRow], positive: str | None) -> tuple[str, str]:
    found = sorted({row.label for row in rows})
    if len(found) != 2:
        raise UsageError(
            f"{cache}: found {len(found)} labels ({', '.join(found)[:200]}), expected two: "
            "index only the classes to be told apart"
        )
    if positive is None:
        positive = "malignant" if "malignant" in found else found[-1]
    if positive not in found:
        raise UsageError(f"positive label {positive!r}: the cache has {' and '.join(found)}")
    return next(label for label in found if label != positive), positive


def _folds(splits: Splits, fold: int | None) -> list[int]:
    if fold is None:
        return list(splits.folds)
    if fold not in splits.folds:
        raise UsageError(f"fold {fold}: the splits have folds 0 to {len(splits.folds) - 1}")
    return [fold]


def _make_folder(out: Path) -> None:
    """Make the folder of the results, so that one that cannot be made is told before training."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(
            f"{out}: cannot be made ({error.strerror}): choose another folder for the fits"
        ) from error


def _remove_other_folds(out: Path, folds: Sequence[int]) -> None:
    """Remove what a fit of more folds left; only folders that a fit recorded are touched."""
    for record in out.glob("fold*/fit.json"):
        if record.parent.name not in {f"fold{number}" for number in folds}:
            shutil.rmtree(record.parent)


def _fit_fold(study: Study, fold: int, folder: Path, options: FitOptions) -> list[Epoch]:
    record = folder / "fit.json"
    record.unlink(missing_ok=True)  # it is written last: without it, a fold does not count
    began = time.perf_counter()
    sizes = options.sizes(study.recipe.feature_dim)
    with repeatable(options.train.seed * 10_007 + fold):
        network, history = train(
            study.sequences,
            study.examples(fold, "train"),
            study.examples(fold, "val"),
            sizes,
            options.train,
        )
        everyone = torch.arange(len(study.rows))
        logits = predict_logits(network, study.sequences, everyone)
        probabilities = torch.sigmoid(logits.double()).tolist()
    model = Model(network, study.recipe, study.labels, fold, study.protocol)
    save_model(folder / "model.safetensors", model)
    predictions = _predictions(study, fold, probabilities)
    write_table(folder / "predictions.csv", PREDICTION_COLUMNS, predictions)
    write_table(folder / "history.csv", Epoch._fields, history)
    _write_record(record, study, options, fold, time.perf_counter() - began)
    return history


def _predictions(study: Study, fold: int, probabilities: list[float]) -> list[Prediction]:
    roles = study.splits.roles(fold)
    return [
        Prediction(
            image_id=row.image_id,
            slide=row.slide,
            case=row.case,
            label=row.label,
            subtype=row.subtype,
            magnification=row.magnification,
            role=roles[row.image_id],
            fold=fold,
            group_by=study.splits.group_by,
            probability=probability,
        )
        for row, probability in zip(study.rows, probabilities, strict=True)
        if row.image_id in roles
    ]


def _write_record(path: Path, study: Study, options: FitOptions, fold: int, seconds: float) -> None:
    record = FitRecord(
        fold=fold,
        folds=len(study.splits.folds),
        labels=study.labels,
        group_by=study.splits.group_by,
        protocol=study.protocol,
        leaks=study.splits.leaks,
        weights=study.recipe.weights,
        fingerprint=study.recipe.fingerprint,
        manifest_sha256=study.manifest_sha256,
        splits_sha256=study.splits_sha256,
        predictions_sha256=file_sha256(path.with_name("predictions.csv")),
        model_sha256=file_sha256(path.with_name("model.safetensors")),
        options=dataclasses.asdict(options),
        seconds=round(seconds, 3),
    )
    with publish(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n")

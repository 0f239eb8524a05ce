"""Stage two: a classifier for each fold and its baselines, from the feature cache."""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from cache.files import publish
from pipeline.ahead import usable_cpus
from pipeline.audit.audit import audit
from pipeline.errors import PipelineError, UsageError
from pipeline.fitting.fold import FoldFit, check_sizes, fit_fold
from pipeline.fitting.locked import Locked
from pipeline.fitting.model_file import Model, save_model
from pipeline.fitting.options import FitOptions
from pipeline.fitting.predictions import Prediction, file_sha256, write_predictions
from pipeline.fitting.record import AUDIT, PREDICTIONS, FitRecord
from pipeline.fitting.study import Study, load_study
from pipeline.fitting.training import Check
from pipeline.processes import side_by_side
from pipeline.progress import Progress, silent
from pipeline.splits.make import make_splits
from pipeline.splits.table import Splits
from pipeline.tables import write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What a fit did: the folds, with their histories, the protocol and the seconds it took."""

    histories: Mapping[int, list[Check]]
    protocol: str
    weights: str
    audit: str
    seconds: float

    def summary(self) -> str:
        """Two lines for a person."""
        steps = sum(history[-1].step for history in self.histories.values())
        fitted = f"{len(self.histories)} folds, {steps} steps in {self.seconds:.1f} s"
        return f"{fitted}; {self.protocol}; {self.weights} weights\naudit: {self.audit}"


def fit_lstm(
    cache: Path,
    splits: Path,
    out: Path,
    options: FitOptions | None = None,
    fold: int | None = None,
    progress: Progress = silent,
) -> FitResult:
    """Fit a classifier for each fold, and the baselines beside it.

    Writes `audit.json`, and for each fold `fold<K>/model.safetensors`, `predictions.csv`,
    `history.csv`, a table for each baseline, and `fit.json`. Equal inputs and options give equal
    bytes, however many CPUs there are, but for the times in `fit.json`.

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
    study = load_study(cache, splits, options)
    folds = _folds(study.splits, fold)
    check_sizes(study, options)  # a wrong one is refused before anything is removed
    _make_folder(out)
    if fold is None:
        _remove_other_folds(out, folds)
    for number in folds:  # the records are written last: without one, a fold does not count
        (out / f"fold{number}" / "fit.json").unlink(missing_ok=True)
    found = audit(study.rows, study.splits, study.statistics)
    with publish(out / AUDIT) as temporary:
        temporary.write_text(found.to_json())
    twins = _twins(study) if options.companions else {}
    run = _Run(study, out, options, twins, file_sha256(out / AUDIT))
    histories = {}
    with progress(len(folds), 0) as advance, repeatable():
        for number, history in run.fit(folds):
            histories[number] = history
            advance(1)
    seconds = time.perf_counter() - began
    return FitResult(histories, study.protocol, study.recipe.weights, found.summary, seconds)


@contextmanager
def repeatable() -> Iterator[None]:
    """Compute each fold on one thread, so that sums have one order; put it back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


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


def _twins(study: Study) -> dict[int, Splits]:
    """For each repeat, image-level splits with as many folds; none if the own ones are such."""
    if study.splits.group_by == "image":
        return {}
    twins = {}
    try:
        for repeat in set(study.splits.repeats):
            folds = max(2, study.splits.repeats.count(repeat))
            twins[repeat] = make_splits(study.rows, folds=folds, group_by="image", seed=repeat)
    except UsageError as error:
        log.warning("no image-level split to compare with: %s", error)
        return {}
    return twins


@dataclass(frozen=True)
class _Run:
    """Everything that the folds of one fit share."""

    study: Study
    out: Path
    options: FitOptions
    twins: Mapping[int, Splits]
    audit_sha256: str

    def fit(self, folds: Sequence[int]) -> Iterator[tuple[int, list[Check]]]:
        """Fit folds side by side, one on a CPU, and publish each; the histories in order."""
        yield from zip(folds, side_by_side(self._fit, folds, usable_cpus()), strict=True)

    def _fit(self, fold: int) -> list[Check]:
        began = time.perf_counter()
        repeat = self.study.splits.repeats[fold]
        fitted = fit_fold(self.study, fold, self.options, self.twins.get(repeat))
        self._publish(fold, fitted, began)
        return fitted.lstm.fitted.history

    def _publish(self, fold: int, fitted: FoldFit, began: float) -> None:
        study, folder = self.study, self.out / f"fold{fold}"
        model = Model(
            whitening=fitted.whitening,
            network=fitted.network,
            familiar=fitted.familiar,
            recipe=study.recipe,
            classes=study.classes,
            target=self.options.target,
            fold=fold,
            protocol=study.protocol,
            temperature=fitted.lstm.temperature,
            threshold=fitted.lstm.threshold,
            sequence_length=self.options.sequence_length,
        )
        save_model(folder / "model.safetensors", model)
        roles = study.splits.roles(fold)
        self._write(folder / PREDICTIONS, fold, fitted.lstm, roles)
        write_table(folder / "history.csv", Check._fields, fitted.lstm.fitted.history)
        for name, (said, theirs) in fitted.companions.items():
            tested = {image: role for image, role in theirs.items() if role == "test"}
            self._write(folder / f"{name}.csv", fold, said, tested)
        _remove_other_tables(folder, fitted.companions)
        record = self._record(folder, fold, fitted, time.perf_counter() - began)
        with publish(folder / "fit.json") as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n")

    def _write(self, path: Path, fold: int, said: Locked, roles: Mapping[str, str]) -> None:
        write_predictions(path, self._predictions(fold, said, roles), self.study.classes)

    def _predictions(
        self, fold: int, said: Locked, roles: Mapping[str, str]
    ) -> Iterator[Prediction]:
        study, called = self.study, said.called.tolist()
        logits, probabilities = said.fitted.logits.tolist(), said.probabilities.tolist()
        for i, row in enumerate(study.rows):
            if row.image_id in roles:
                yield Prediction(
                    image_id=row.image_id,
                    slide=row.slide,
                    case=row.case,
                    label=row.label,
                    subtype=row.subtype,
                    magnification=row.magnification,
                    role=roles[row.image_id],
                    repeat=study.splits.repeats[fold],
                    fold=fold,
                    group_by=study.splits.group_by,
                    truth=study.classes[int(study.targets[i])],
                    called=study.classes[called[i]],
                    logits=tuple(logits[i]),
                    probabilities=tuple(probabilities[i]),
                )

    def _record(self, folder: Path, fold: int, fitted: FoldFit, seconds: float) -> FitRecord:
        study = self.study
        return FitRecord(
            fold=fold,
            folds=len(study.splits.folds),
            repeat=study.splits.repeats[fold],
            repeats=len(set(study.splits.repeats)),
            target=self.options.target,
            labels=study.classes,
            group_by=study.splits.group_by,
            protocol=study.protocol,
            leaks=study.splits.leaks,
            train_magnification=self.options.train_magnification,
            weights=study.recipe.weights,
            fingerprint=study.recipe.fingerprint,
            manifest_sha256=study.manifest_sha256,
            splits_sha256=study.splits_sha256,
            audit_sha256=self.audit_sha256,
            predictions_sha256=file_sha256(folder / PREDICTIONS),
            model_sha256=file_sha256(folder / "model.safetensors"),
            temperature=fitted.lstm.temperature,
            threshold=fitted.lstm.threshold,
            companions={
                name: {
                    "sha256": file_sha256(folder / f"{name}.csv"),
                    "temperature": said.temperature,
                    "threshold": said.threshold,
                }
                for name, (said, _) in fitted.companions.items()
            },
            options=dataclasses.asdict(self.options),
            chosen=fitted.chosen,
            notes=fitted.notes,
            seconds=round(seconds, 3),
        )


def _remove_other_tables(folder: Path, companions: Mapping[str, object]) -> None:
    """Remove the tables of baselines that an earlier fit had and this one has not."""
    kept = {PREDICTIONS, "history.csv", *(f"{name}.csv" for name in companions)}
    for table in folder.glob("*.csv"):
        if table.name not in kept:
            table.unlink()

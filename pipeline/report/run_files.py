"""The files of a run: found, read, and checked to belong together."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import FeatureCache, ImageRow, Recipe
from pipeline.errors import UsageError
from pipeline.evaluation.evaluate import Evaluation, evaluate_fits
from pipeline.evaluation.scores import Scores
from pipeline.fitting.predictions import file_sha256
from pipeline.fitting.record import Fits, check_models, read_fits
from pipeline.tables import read_table
from pipeline.user_file import printable, read_file

MAX_METRICS_BYTES = 1 << 26

FITS, METRICS, CACHE, MANIFEST = "fits", "metrics.json", "features.h5", "manifest.csv"
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class RunFiles:
    """What a run left, all of one study.

    Attributes:
        folder: where it is.
        fits: the models' records and predictions.
        evaluation: the numbers of `metrics.json`.
        scores: the test predictions of the LSTM.
        cache: the cache, open.
        features: (P, D) of all patches, checked.
        rows: the images of the cache, in its order.
        digests: file → SHA-256, of the files that the numbers come from.
    """

    folder: Path
    fits: Fits
    evaluation: Evaluation
    scores: Scores
    cache: FeatureCache
    features: NDArray[np.floating]
    rows: list[ImageRow]
    digests: Mapping[str, str]

    @property
    def recipe(self) -> Recipe:
        """Of the features."""
        return self.cache.recipe

    @property
    def manifest(self) -> Path:
        """The file that the images' paths are relative to."""
        return self.folder / MANIFEST

    def history(self, fold: int) -> dict[str, NDArray[np.float64]]:
        """Columns of the training history of a fold."""
        path = self.fits.folder / f"fold{fold}" / "history.csv"
        names = ("step", "train_loss", "val_loss")
        try:
            rows = [[float(row[name]) for name in names] for _, row in read_table(path, names)]
        except ValueError as error:
            raise UsageError(f"{path}: not a training history ({error}): fit again") from error
        if not rows or not np.isfinite(rows).all():
            raise UsageError(f"{path}: not a training history: fit again")
        return dict(zip(names, np.array(rows).T, strict=True))


def read_run(folder: Path) -> RunFiles:
    """Read what `pipeline extract`, `fit-lstm` and `evaluate` left in a folder.

    Raises:
        UsageError: a file is missing, is not what it should be, or belongs to another run.
        CacheError: the cache is damaged.
    """
    missing = [name for name in (FITS, METRICS, CACHE) if not (folder / name).exists()]
    if missing:
        raise UsageError(
            f"{folder}: no {', '.join(missing)}: expected a folder of the workflow, such as "
            f"results/demo, or one with {FITS}/, {METRICS}, {CACHE} and {MANIFEST}"
        )
    fits = read_fits(folder / FITS)
    check_models(folder / FITS)
    evaluation = _evaluation(folder / METRICS, fits)
    cache = FeatureCache(folder / CACHE)
    _check_cache(folder, cache, fits)
    return RunFiles(
        folder=folder,
        fits=fits,
        evaluation=evaluation,
        scores=Scores.of(fits.predictions, fits.records[0].labels),
        cache=cache,
        features=cache.load(),
        rows=list(cache.images.rows()),
        digests={
            METRICS: file_sha256(folder / METRICS),
            **{
                f"{FITS}/fold{record.fold}/predictions.csv": record.predictions_sha256
                for record in fits.records
            },
            f"{CACHE} (features)": str(cache.attributes["features_sha256"]),
        },
    )


def _evaluation(path: Path, fits: Fits) -> Evaluation:
    """The numbers of `metrics.json`, once it is shown that they are of these fits."""
    try:
        found = json.loads(read_file(path, MAX_METRICS_BYTES))
        note = found["note"]
        if not isinstance(note, str):
            raise TypeError(f"note is {note!r:.40}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = printable(str(error))
        raise UsageError(f"{path}: not the metrics of a run ({reason}): evaluate again") from error
    evaluation = evaluate_fits(fits, note)
    different = _difference(json.loads(evaluation.to_json()), found, "")
    if different:
        raise UsageError(
            f"{path}: not of the fits beside it ({printable(different)} differs): run `pipeline "
            f"evaluate --fits {fits.folder} --out {path}`"
        )
    return evaluation


def _difference(expected: Any, found: Any, where: str) -> str:  # noqa: ANN401 - any JSON
    """The name of the first value that differs; empty if none does."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if expected.keys() != found.keys():
            return f"{where} keys"
        pairs = [(expected[key], found[key], f"{where}.{key}".strip(".")) for key in expected]
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{where} length"
        both = zip(expected, found, strict=True)
        pairs = [(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(both)]
    elif isinstance(expected, float) and isinstance(found, int | float):
        return "" if math.isclose(expected, found, abs_tol=_TOLERANCE) else where
    else:
        return "" if expected == found else where
    return next(filter(None, (_difference(*pair) for pair in pairs)), "")


def _check_cache(folder: Path, cache: FeatureCache, fits: Fits) -> None:
    record = fits.records[0]
    if cache.recipe.fingerprint != record.fingerprint:
        raise UsageError(
            f"{folder / CACHE}: of the recipe {cache.recipe.fingerprint[:12]}…, but the fits are "
            f"of {record.fingerprint[:12]}…: fit again"
        )
    if cache.attributes["manifest_sha256"] != record.manifest_sha256:
        raise UsageError(
            f"{folder / CACHE}: holds other images or labels than the fits were made of: fit again"
        )

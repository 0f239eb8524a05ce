"""The cross-magnification matrix: a fit for each magnification, tested on all, from one cache."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from cache import FeatureCache
from cache.files import publish
from pipeline.errors import UsageError
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.measures import draw, measure, replicate
from pipeline.evaluation.scores import Scores
from pipeline.evaluation.tables import shown, span
from pipeline.fitting.fit import fit_lstm
from pipeline.fitting.options import FitOptions
from pipeline.fitting.record import read_fits
from pipeline.progress import Progress, silent

ALL = "all"
_MEASURES = ("accuracy", "roc_auc")


@dataclass(frozen=True)
class Cell:
    """What classifiers trained on one magnification score on test images of another.

    Attributes:
        trained: the magnification that trained, or `all`.
        tested: that of the test images.
        images: how many.
        accuracy: pooled within each repeat, averaged over repeats.
        accuracy_interval: at 95%, over cases; None if it says nothing.
        roc_auc: likewise; None if not defined.
        roc_auc_interval: likewise.
    """

    trained: str
    tested: str
    images: int
    accuracy: float | None
    accuracy_interval: Interval | None
    roc_auc: float | None
    roc_auc_interval: Interval | None


@dataclass(frozen=True)
class Matrix:
    """The content of `matrix.json`.

    Attributes:
        protocol: how training and test images were kept apart.
        leaks: whether they were not.
        unit: what intervals resample.
        cells: one for each pair of magnifications.
    """

    protocol: str
    leaks: bool
    unit: str
    cells: list[Cell]

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """As a table for each measure, a row for what trained."""
        parts = [f"Protocol: {self.protocol}"]
        if self.leaks:
            parts.append("LEAKING SPLIT: these numbers say nothing about new patients.")
        parts += [self._table(name) for name in _MEASURES]
        parts.append(f"95% intervals are over {self.unit}s, by bootstrap.")
        return "\n\n".join(parts)

    def _table(self, name: str) -> str:
        title = {"accuracy": "accuracy", "roc_auc": "ROC AUC"}[name]
        tested = list(dict.fromkeys(cell.tested for cell in self.cells))
        rows: dict[str, list[str]] = {}
        for cell in self.cells:
            figure = shown(getattr(cell, name))
            reach = span(getattr(cell, f"{name}_interval"))
            rows.setdefault(cell.trained, []).append(f"{figure} {reach}")
        headers = [f"{title}: trained on", *(f"tested on {one}X" for one in tested)]
        lines = [[_title(trained), *cells] for trained, cells in rows.items()]
        alignment = ("left", *["right"] * len(tested))
        return tabulate(lines, headers, colalign=alignment, disable_numparse=True)


def _title(trained: str) -> str:
    return trained if trained == ALL else f"{trained}X"


def cross_magnification(
    cache: Path,
    splits: Path,
    out: Path,
    options: FitOptions | None = None,
    progress: Progress = silent,
) -> Matrix:
    """Train on each magnification, and on all, and test each on every one.

    The folds are those of the splits: a case that is tested trains at no magnification.

    Args:
        cache: features of several magnifications.
        splits: the roles of its images.
        out: folder for the fits, `train_<magnification>/` and `train_all/`, and `matrix.json`.
        options: of the fits; their baselines are left out.
        progress: told of each fold of each fit.

    Raises:
        CacheError: the cache is damaged.
        UsageError: it holds fewer than two magnifications, or the splits do not fit it.
        PublishError: the results cannot be written.
    """
    options = (options or FitOptions()).changed(companions=False)
    magnifications = _magnifications(cache)
    cells: list[Cell] = []
    for chosen in [*magnifications, 0]:
        name = str(chosen or ALL)
        folder = out / f"train_{name}"
        fit_lstm(
            cache, splits, folder, options.changed(train_magnification=chosen), progress=progress
        )
        fits = read_fits(folder)
        scores = Scores.of(fits.predictions, fits.records[0].labels)
        cells += [_cell(name, tested, scores) for tested in magnifications]
    record = fits.records[0]
    matrix = Matrix(record.protocol, record.leaks, scores.unit, cells)
    with publish(out / "matrix.json") as temporary:
        temporary.write_text(matrix.to_json())
    return matrix


def _magnifications(cache: Path) -> list[int]:
    with FeatureCache(cache) as file:
        found = sorted(set(np.asarray(file.images["magnification"]).tolist()))
    if len(found) < 2 or 0 in found:
        shown_as = ", ".join(str(one or "unknown") for one in found)
        raise UsageError(
            f"{cache}: magnifications are {shown_as}, expected two or more, all known: index "
            "without --magnification, and extract again"
        )
    return found


def _cell(trained: str, tested: int, scores: Scores) -> Cell:
    part = scores.take(scores.magnifications == tested)
    measures = measure(part)
    found = replicate(part, draw(part), _MEASURES)
    return Cell(
        trained=trained,
        tested=str(tested),
        images=len(set(part.image_ids.tolist())),
        accuracy=measures["accuracy"],
        accuracy_interval=found.interval("accuracy"),
        roc_auc=measures["roc_auc"],
        roc_auc_interval=found.interval("roc_auc"),
    )

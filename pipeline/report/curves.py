"""ROC, precision-recall, reliability and learning curves."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from pipeline.evaluation.evaluate import Calibration
from pipeline.evaluation.scores import Scores
from pipeline.report.svg import GRID, INK, ONE, TWO

GRID_POINTS = np.linspace(0, 1, 101)

_SIZE = (4.4, 3.7)


class Band(NamedTuple):
    """Curves of folds on a common axis: x (n,), their mean and standard deviation (n,)."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    folds: int


def roc_points(
    truth: NDArray[np.bool_], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates, from (0, 0) to (1, 1)."""
    false, true, _ = roc_curve(truth, probability, drop_intermediate=False)
    return false, true


def precision_points(
    truth: NDArray[np.bool_], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall, ascending, and precision."""
    precision, recall, _ = precision_recall_curve(truth, probability)
    return recall[::-1], precision[::-1]


_Points = Callable[
    [NDArray[np.bool_], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]
]


def band_of(scores: Scores, positive: int, points: _Points) -> Band | None:
    """The band of the folds that test both classes; None with fewer than two of these."""
    lines = []
    for fold in scores.by_fold():
        truth = fold.truth == positive
        if truth.any() and not truth.all():
            lines.append(np.interp(GRID_POINTS, *points(truth, fold.probabilities[:, positive])))
    if len(lines) < 2:
        return None
    sd = np.std(lines, axis=0, ddof=1)
    return Band(GRID_POINTS, np.mean(lines, axis=0), sd, len(lines))


def roc_figure(scores: Scores) -> Figure:
    """Pooled ROC curve with the band of the folds; of several classes, one against the rest."""
    figure, axes = _square("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, linestyle="--")
    _draw(axes, scores, roc_points)
    axes.legend(loc="lower right")
    return figure


def precision_figure(scores: Scores) -> Figure:
    """Pooled precision over recall with the band of the folds."""
    figure, axes = _square("recall (sensitivity)", "precision")
    if len(scores.classes) == 2:
        axes.axhline(float((scores.truth == 1).mean()), color=GRID, linewidth=1.2, linestyle="--")
    _draw(axes, scores, precision_points)
    axes.legend(loc="lower left")
    return figure


def _draw(axes: Axes, scores: Scores, points: _Points) -> None:
    classes = [1] if len(scores.classes) == 2 else list(range(len(scores.classes)))
    for order, positive in enumerate(classes):
        truth = scores.truth == positive
        if not truth.any() or truth.all():
            continue
        name = scores.classes[positive]
        colour = ONE if len(classes) == 1 else f"C{order % 10}"
        band = band_of(scores, positive, points) if len(classes) == 1 else None
        if band is not None:
            low, high = (np.clip(band.mean + k * band.sd, 0, 1) for k in (-1, 1))
            axes.fill_between(band.x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(band.x, band.mean, color=colour, linewidth=1, linestyle=":")
        pooled = points(truth, scores.probabilities[:, positive])
        axes.step(*pooled, color=colour, linewidth=1.8, where="post", label=f"{name}, pooled")
        if band is not None:
            axes.plot([], [], color=colour, linestyle=":", label=f"mean ± sd of {band.folds} folds")


def reliability_figure(before: Calibration, after: Calibration, shown: str) -> Figure:
    """Fraction that is positive over the probability, before and after temperature scaling."""
    figure, axes = _square(f"mean probability of {shown}", f"fraction that is {shown}")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, linestyle="--")
    for found, colour, marker, name in (
        (before, TWO, "o", "before temperature scaling"),
        (after, ONE, "s", "after"),
    ):
        bins = [one for one in found.reliability if one["images"]]
        x, y = ([float(one[key] or 0) for one in bins] for key in ("mean_probability", "fraction"))
        sizes = [18 + 90 * float(one["images"] or 0) / _most(bins) for one in bins]
        axes.plot(x, y, color=colour, linewidth=1.2, label=name, marker=marker, markersize=3)
        axes.scatter(x, y, s=sizes, color=colour, alpha=0.45, marker=marker, linewidths=0)
    axes.legend(loc="upper left")
    return figure


def _most(bins: Sequence[dict[str, float | None]]) -> float:
    return max(float(one["images"] or 0) for one in bins)


def learning_figure(histories: Sequence[dict[str, NDArray[np.float64]]]) -> Figure:
    """Losses over the steps: each fold a thin line, their mean a thick one."""
    figure = Figure((6.4, 3.4))
    axes = figure.add_subplot(xlabel="step", ylabel="class-balanced loss, nats")
    for name, colour, label in (
        ("train_loss", ONE, "learnt from"),
        ("val_loss", TWO, "set aside"),
    ):
        for history in histories:
            axes.plot(history["step"], history[name], color=colour, alpha=0.35, linewidth=0.9)
        same = len({len(history["step"]) for history in histories}) == 1
        if same:
            steps = np.mean([history["step"] for history in histories], axis=0)
            mean = np.mean([history[name] for history in histories], axis=0)
            axes.plot(steps, mean, color=colour, linewidth=2.2)
        axes.plot([], [], color=colour, linewidth=2.2, label=label)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
    return figure


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(_SIZE)
    axes = figure.add_subplot(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    axes.set_aspect("equal")
    axes.spines[["left", "bottom"]].set_color(INK)
    return figure, axes

"""The tables of `honest_numbers.py`: variants side by side on the same images, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.bootstrap import (
    Resampling,
    interval,
    p_value,
    resample,
    weighted_auc,
    weighted_mean,
)
from pipeline.fitting.predictions import Prediction


@dataclass(frozen=True)
class Measured:
    """AUC and accuracy of one model: the figures, and their replicates (R,)."""

    auc: float
    accuracy: float
    aucs: NDArray[np.float64]
    accuracies: NDArray[np.float64]


def draws(predictions: Sequence[Prediction]) -> Resampling:
    """The draws of cases that all models share."""
    images = {p.image_id: p for p in predictions if p.role == "test"}
    return resample([p.case for p in images.values()], [p.truth for p in images.values()])


def measured(predictions: Sequence[Prediction], resampling: Resampling) -> Measured:
    """Pooled over the folds of each repeat, averaged over repeats."""
    test = [p for p in predictions if p.role == "test"]
    parts = []
    for repeat in sorted({p.repeat for p in test}):
        rows = [p for p in test if p.repeat == repeat]
        weights = resampling.weights([p.case for p in rows])  # (R, n)
        weights = np.vstack([np.ones(len(rows)), weights])  # the images as they are, first
        score = np.array([p.probabilities[-1] for p in rows])
        truth = np.array([p.truth == "malignant" for p in rows])
        right = np.array([p.called == p.truth for p in rows])
        parts.append([weighted_auc(score, truth, weights), weighted_mean(right, weights)])
    aucs, accuracies = np.mean(parts, axis=0)  # (R + 1,) each
    return Measured(float(aucs[0]), float(accuracies[0]), aucs[1:], accuracies[1:])


def line(name: str, found: Measured, base: Measured | None, resampling: Resampling) -> str:
    """One row of a table: figures with intervals, and the difference from `base`."""
    sizes = resampling.strata_sizes
    cells = [
        name,
        f"{found.auc:.3f} ({_span(found.aucs, sizes)})",
        f"{found.accuracy:.3f} ({_span(found.accuracies, sizes)})",
    ]
    if base is None:
        cells += ["", ""]
    else:
        difference = found.aucs - base.aucs
        p = p_value(difference, sizes)
        cells += [
            f"{found.auc - base.auc:+.3f} ({_span(difference, sizes, '+')})",
            "–" if p is None else f"{p:.3f}",
        ]
    return f"| {' | '.join(cells)} |"


def _span(samples: NDArray[np.float64], sizes: Sequence[int], sign: str = "") -> str:
    found = interval(samples, sizes)
    return "–" if found is None else f"{found.low:{sign}.2f} to {found.high:{sign}.2f}"


HEADER = (
    "| variant | AUC (95% interval) | accuracy (95% interval) | AUC minus default | p |\n"
    "|---|---|---|---|---|"
)

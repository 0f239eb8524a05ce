"""Measures of binary classification, at image and at patient level."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

THRESHOLD = 0.5


class Metrics(NamedTuple):
    """Measures of some predictions; None where a measure is not defined for them.

    Attributes:
        images: how many.
        patients: how many; None if they are not known.
        accuracy: fraction of images that are right.
        balanced_accuracy: mean of recall and specificity.
        precision: fraction of the images called positive that are.
        recall: fraction of the positive images that are called so (sensitivity).
        specificity: fraction of the negative images that are called so.
        f1: harmonic mean of precision and recall.
        roc_auc: area under the receiver operating characteristic.
        average_precision: area under the precision-recall curve, as a step function.
        brier: mean squared difference of probability and outcome.
        patient_recognition_rate: see `patient_recognition_rate`.
    """

    images: int
    patients: int | None
    accuracy: float
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    roc_auc: float | None
    average_precision: float | None
    brier: float
    patient_recognition_rate: float | None


def measure(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], patients: Sequence[Hashable | None]
) -> Metrics:
    """Measure predictions.

    Args:
        truth: (n,), whether each image is positive, n ≥ 1.
        probability: (n,) of being positive; at least `THRESHOLD` is called positive.
        patients: whose image each is; None where it is not known.
    """
    called = probability >= THRESHOLD  # (n,)
    right = called == truth  # (n,)
    recall = _fraction(right[truth])
    specificity = _fraction(right[~truth])
    both = truth.any() and not truth.all()
    known = None not in patients
    return Metrics(
        images=len(truth),
        patients=len(set(patients)) if known else None,
        accuracy=float(right.mean()),
        balanced_accuracy=_mean(recall, specificity),
        precision=_fraction(truth[called]),
        recall=recall,
        specificity=specificity,
        f1=float(sk.f1_score(truth, called)) if (truth | called).any() else None,
        roc_auc=float(sk.roc_auc_score(truth, probability)) if both else None,
        average_precision=(float(sk.average_precision_score(truth, probability)) if both else None),
        brier=float(np.mean((probability - truth) ** 2)),
        patient_recognition_rate=patient_recognition_rate(right, patients) if known else None,
    )


def patient_recognition_rate(right: NDArray[np.bool_], patients: Sequence[Hashable]) -> float:
    """Mean over patients of the fraction of each one's images that are right.

    As BreakHis defines it: Spanhol et al., IEEE TBME 63(7), 2016, equations 1 and 2.

    Args:
        right: (n,), whether each image is classified rightly.
        patients: whose image each is.
    """
    by_patient: dict[Hashable, list[bool]] = defaultdict(list)
    for patient, is_right in zip(patients, right.tolist(), strict=True):
        by_patient[patient].append(is_right)
    return float(np.mean([np.mean(images) for images in by_patient.values()]))


def _fraction(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if flags.size else None


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2

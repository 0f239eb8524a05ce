"""Measures of classification, of two classes or of more, at image and at patient level."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from pipeline.evaluation.calibration import expected_calibration_error


class Metrics(NamedTuple):
    """Measures of predictions of two classes; None where a measure is not defined for them.

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
        sensitivity_at_90: see `sensitivity_at`, at a specificity of 0.90 or more.
        sensitivity_at_95: the same, of 0.95 or more.
        brier: mean squared difference of probability and outcome.
        ece: expected calibration error of the probability of the positive class.
        patient_recognition_rate: see `patient_recognition_rate`.
        majority_vote: see `majority_vote`.
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
    sensitivity_at_90: float | None
    sensitivity_at_95: float | None
    brier: float
    ece: float
    patient_recognition_rate: float | None
    majority_vote: float | None


class ClassMetrics(NamedTuple):
    """Measures of predictions of several classes; None where one is not defined for them.

    Attributes:
        images: how many.
        patients: how many; None if they are not known.
        accuracy: fraction of images that are right.
        balanced_accuracy: mean recall of the classes that are present; None of fewer than two.
        f1: mean F1 of the same classes (macro F1).
        roc_auc: mean over the same classes of the area under the curve of each against the rest.
        brier: mean over images of the sum over classes of the squared differences of probability
            and outcome; twice the figure of `Metrics` if there are two classes.
        ece: expected calibration error of the probability of the called class.
        patient_recognition_rate: see `patient_recognition_rate`.
        majority_vote: see `majority_vote`.
    """

    images: int
    patients: int | None
    accuracy: float
    balanced_accuracy: float | None
    f1: float | None
    roc_auc: float | None
    brier: float
    ece: float
    patient_recognition_rate: float | None
    majority_vote: float | None


def measure_binary(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    called: NDArray[np.bool_],
    patients: Sequence[Hashable | None],
) -> Metrics:
    """Measure predictions of two classes.

    Args:
        truth: (n,), whether each image is positive, n ≥ 1.
        probability: (n,), of being positive.
        called: (n,), whether each is called positive, at a threshold that was locked before.
        patients: whose image each is; None where it is not known.
    """
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
        average_precision=float(sk.average_precision_score(truth, probability)) if both else None,
        sensitivity_at_90=sensitivity_at(0.90, truth, probability) if both else None,
        sensitivity_at_95=sensitivity_at(0.95, truth, probability) if both else None,
        brier=float(np.mean((probability - truth) ** 2)),
        ece=expected_calibration_error(probability, truth),
        patient_recognition_rate=patient_recognition_rate(right, patients) if known else None,
        majority_vote=majority_vote(right, patients) if known else None,
    )


def measure_classes(
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    patients: Sequence[Hashable | None],
) -> ClassMetrics:
    """Measure predictions of several classes; the one with the largest probability is called.

    Args:
        truth: (n,), the class of each image, from 0, n ≥ 1.
        probabilities: (n, classes).
        patients: whose image each is; None where it is not known.
    """
    called = probabilities.argmax(axis=1)  # (n,)
    right = called == truth  # (n,)
    present = np.unique(truth)
    several = len(present) > 1
    f1 = sk.f1_score(truth, called, labels=present, average="macro", zero_division=0.0)
    outcome = np.arange(probabilities.shape[1]) == truth[:, None]  # (n, classes)
    known = None not in patients
    return ClassMetrics(
        images=len(truth),
        patients=len(set(patients)) if known else None,
        accuracy=float(right.mean()),
        balanced_accuracy=_macro([right[truth == c].mean() for c in present]),
        f1=float(f1) if several else None,
        roc_auc=(
            _macro([sk.roc_auc_score(truth == c, probabilities[:, c]) for c in present])
            if several
            else None
        ),
        brier=float(((probabilities - outcome) ** 2).sum(axis=1).mean()),
        ece=expected_calibration_error(probabilities.max(axis=1), right),
        patient_recognition_rate=patient_recognition_rate(right, patients) if known else None,
        majority_vote=majority_vote(right, patients) if known else None,
    )


def sensitivity_at(
    specificity: float, truth: NDArray[np.bool_], probability: NDArray[np.float64]
) -> float:
    """Largest sensitivity among the points of the curve with at least a given specificity.

    The points are those of the images themselves: nothing is interpolated between them. The
    threshold is chosen on the images that are measured, so this describes the ranking, not a
    rule that could have been locked before.

    Args:
        specificity: from 0 to 1.
        truth: (n,), whether each image is positive; both happen.
        probability: (n,), of being positive.
    """
    false_positive, sensitivity, _ = sk.roc_curve(truth, probability, drop_intermediate=False)
    # A count of images over their number: rounding must not cost an image.
    enough = 1 - false_positive >= specificity - 1e-9
    return float(sensitivity[enough].max())


def patient_recognition_rate(right: NDArray[np.bool_], patients: Sequence[Hashable]) -> float:
    """Mean over patients of the fraction of each one's images that are right.

    As BreakHis defines it: Spanhol et al., IEEE TBME 63(7), 2016, equations 1 and 2.

    Args:
        right: (n,), whether each image is classified rightly.
        patients: whose image each is.
    """
    return float(patient_fractions(right, patients).mean())


def majority_vote(right: NDArray[np.bool_], patients: Sequence[Hashable]) -> float:
    """Fraction of patients of whose images more than half are right; a tie counts as one half.

    Of two classes this is the accuracy of each patient's vote. Of more it asks for more than a
    vote does: the right class must have the majority, not the most votes.

    Args:
        right: (n,), whether each image is classified rightly.
        patients: whose image each is.
    """
    return float(votes(patient_fractions(right, patients)).mean())


def patient_fractions(
    right: NDArray[np.bool_], patients: Sequence[Hashable]
) -> NDArray[np.float64]:
    """Fraction of each patient's images that are right, (patients,), as they first occur."""
    index: dict[Hashable, int] = {}
    places = np.array([index.setdefault(patient, len(index)) for patient in patients])
    return np.bincount(places, weights=right) / np.bincount(places)


def votes(fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where over half of a patient's images are right, 0.5 where half are, else 0."""
    return (np.sign(fractions - 0.5) + 1) / 2


def _fraction(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if flags.size else None


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def _macro(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) > 1 else None

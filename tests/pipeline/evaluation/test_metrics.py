"""Each measure equals its definition, worked by hand or by scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from pipeline.evaluation.metrics import measure, patient_recognition_rate

# Ten images by hand: 4 positive (3 found), 6 negative (4 left alone).
TRUTH = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
PROBABILITY = np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.6, 0.4, 0.3, 0.2, 0.0])
PATIENTS = ["a", "a", "a", "b", "c", "c", "d", "d", "d", "d"]


def test_a_case_worked_by_hand():
    found = measure(TRUTH, PROBABILITY, PATIENTS)
    assert (found.images, found.patients) == (10, 4)
    assert found.accuracy == pytest.approx(7 / 10)
    assert found.recall == pytest.approx(3 / 4)
    assert found.specificity == pytest.approx(4 / 6)
    assert found.balanced_accuracy == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert found.precision == pytest.approx(3 / 5)
    assert found.f1 == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    # Pairs (positive above negative): 0.9 and 0.8 beat 6 each, 0.5 beats 4, 0.1 beats 1.
    assert found.roc_auc == pytest.approx((6 + 6 + 4 + 1) / 24)
    # Precision at each positive, in falling order: 1/1, 2/2, 3/5, 4/9.
    assert found.average_precision == pytest.approx((1 + 1 + 3 / 5 + 4 / 9) / 4)
    squares = [0.01, 0.04, 0.25, 0.81, 0.49, 0.36, 0.16, 0.09, 0.04, 0.0]
    assert found.brier == pytest.approx(sum(squares) / 10)
    # Of a's images 3 of 3 are right, of b's 0 of 1, of c's 0 of 2, of d's 4 of 4.
    assert found.patient_recognition_rate == pytest.approx((1 + 0 + 0 + 1) / 4)


def test_patients_weigh_the_same_however_many_images_they_have():
    right = np.array([True] * 9 + [False])
    assert patient_recognition_rate(right, ["a"] * 9 + ["b"]) == 0.5


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=60).filter(
        lambda images: len({truth for truth, _ in images}) == 2
    )
)
def test_measures_equal_scikit_learn(images):
    truth = np.array([image[0] for image in images])
    probability = np.array([image[1] for image in images])
    found, called = measure(truth, probability, [None] * len(images)), probability >= 0.5
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, called))
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(truth, called))
    assert found.recall == pytest.approx(sk.recall_score(truth, called))
    assert found.specificity == pytest.approx(sk.recall_score(~truth, ~called))
    assert found.brier == pytest.approx(sk.brier_score_loss(truth, probability))
    if called.any():
        assert found.precision == pytest.approx(sk.precision_score(truth, called))


def test_what_is_not_defined_is_none():
    found = measure(np.array([True, True]), np.array([0.1, 0.2]), [None, None])
    assert found.accuracy == 0
    assert found.recall == 0
    undefined = ("specificity", "balanced_accuracy", "precision", "roc_auc", "average_precision")
    assert [getattr(found, name) for name in undefined] == [None] * 5
    assert (found.patients, found.patient_recognition_rate) == (None, None)
    negative = measure(np.array([False]), np.array([0.1]), ["a"])
    assert (negative.f1, negative.recall, negative.specificity) == (None, None, 1.0)

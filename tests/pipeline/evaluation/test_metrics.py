"""Each measure equals its definition, worked by hand or by scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from pipeline.evaluation.metrics import (
    majority_vote,
    measure_binary,
    measure_classes,
    patient_recognition_rate,
    sensitivity_at,
)

# Ten images by hand: 4 positive (3 found), 6 negative (4 left alone).
TRUTH = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
PROBABILITY = np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.6, 0.4, 0.3, 0.2, 0.0])
PATIENTS = ["a", "a", "a", "b", "c", "c", "d", "d", "d", "d"]

BINARY = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=60).filter(
    lambda images: len({truth for truth, _ in images}) == 2
)
SEVERAL = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(1, 50), min_size=4, max_size=4)),
    min_size=2,
    max_size=40,
).filter(lambda images: len({truth for truth, _ in images}) > 1)


def test_a_case_worked_by_hand():
    found = measure_binary(TRUTH, PROBABILITY, PROBABILITY >= 0.5, PATIENTS)
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
    # No negative lies above 0.8; one does from 0.7 on, which leaves a specificity of 5/6.
    assert found.sensitivity_at_90 == found.sensitivity_at_95 == pytest.approx(2 / 4)
    squares = [0.01, 0.04, 0.25, 0.81, 0.49, 0.36, 0.16, 0.09, 0.04, 0.0]
    assert found.brier == pytest.approx(sum(squares) / 10)
    # One image a bin.
    gaps = [0.1, 0.2, 0.5, 0.9, 0.7, 0.6, 0.4, 0.3, 0.2, 0.0]
    assert found.ece == pytest.approx(sum(gaps) / 10)
    # Of a's images 3 of 3 are right, of b's 0 of 1, of c's 0 of 2, of d's 4 of 4.
    assert found.patient_recognition_rate == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert found.majority_vote == pytest.approx(2 / 4)


def test_what_is_called_counts_not_the_probability():
    found = measure_binary(TRUTH, PROBABILITY, TRUTH, PATIENTS)
    assert (found.accuracy, found.f1, found.patient_recognition_rate) == (1, 1, 1)
    assert found.roc_auc == pytest.approx(17 / 24)


def test_patients_weigh_the_same_however_many_images_they_have():
    right = np.array([True] * 9 + [False])
    assert patient_recognition_rate(right, ["a"] * 9 + ["b"]) == 0.5


def test_a_patient_counts_in_the_vote_by_the_majority_of_the_images_and_a_tie_as_half():
    right = np.array([True, True, False, True, False, False, False, True])
    assert majority_vote(right, list("aaabbccc")) == pytest.approx((1 + 0.5 + 0) / 3)


def test_patients_need_not_be_sorted():
    right = np.array([True, False, True, False])
    assert patient_recognition_rate(right, [(0, "b"), (1, "a"), (0, "b"), (1, "a")]) == 0.5


@given(BINARY)
def test_measures_equal_scikit_learn(images):
    truth = np.array([image[0] for image in images])
    probability = np.array([image[1] for image in images])
    called = probability >= 0.3
    found = measure_binary(truth, probability, called, [None] * len(images))
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, called))
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(truth, called))
    assert found.recall == pytest.approx(sk.recall_score(truth, called))
    assert found.specificity == pytest.approx(sk.recall_score(~truth, ~called))
    assert found.f1 == pytest.approx(sk.f1_score(truth, called))
    assert found.roc_auc == pytest.approx(sk.roc_auc_score(truth, probability))
    assert found.average_precision == pytest.approx(sk.average_precision_score(truth, probability))
    assert found.brier == pytest.approx(sk.brier_score_loss(truth, probability))
    if called.any():
        assert found.precision == pytest.approx(sk.precision_score(truth, called))


@given(BINARY, st.sampled_from([0.5, 0.9, 0.95]))
def test_sensitivity_at_a_specificity_is_the_best_of_all_thresholds(images, specificity):
    truth = np.array([image[0] for image in images])
    probability = np.array([image[1] for image in images])
    reached = [0.0]  # nothing called
    for threshold in probability:
        called = probability >= threshold
        if (~called[~truth]).mean() >= specificity:
            reached.append(float(called[truth].mean()))
    assert sensitivity_at(specificity, truth, probability) == pytest.approx(max(reached))


def test_a_specificity_that_is_met_exactly_is_met():
    truth = np.array([True] * 2 + [False] * 10)
    probability = np.array([0.9, 0.7, 0.8] + [0.1] * 9)
    assert sensitivity_at(0.9, truth, probability) == 1
    assert sensitivity_at(0.95, truth, probability) == 0.5


def test_several_classes_worked_by_hand():
    truth = np.array([0, 0, 1, 2])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.5, 0.2, 0.3]])
    found = measure_classes(truth, probabilities, ["a", "a", "b", "c"])
    assert (found.images, found.patients) == (4, 3)
    assert found.accuracy == 2 / 4
    assert found.balanced_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)
    # F1 of 0: 2·1/(2·1 + 1 + 1), of 1: 2·1/(2·1 + 1), of 2: none found.
    assert found.f1 == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    # Class 0: 0.7 and 0.3 against 0.1 and 0.5; class 1: 0.8 beats 3; class 2: 0.3 beats 3.
    assert found.roc_auc == pytest.approx((3 / 4 + 1 + 1) / 3)
    squares = [0.09 + 0.04 + 0.01, 0.49 + 0.36 + 0.01, 0.01 + 0.04 + 0.01, 0.25 + 0.04 + 0.49]
    assert found.brier == pytest.approx(sum(squares) / 4)
    # Called with 0.7 (right), 0.6 (wrong), 0.8 (right), 0.5 (wrong).
    assert found.ece == pytest.approx((0.3 + 0.6 + 0.2 + 0.5) / 4)
    assert found.patient_recognition_rate == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.majority_vote == pytest.approx((0.5 + 1 + 0) / 3)


@given(SEVERAL)
def test_measures_of_several_classes_equal_scikit_learn(images):
    truth = np.array([image[0] for image in images])
    votes = np.array([image[1] for image in images], dtype=float)
    probabilities = votes / votes.sum(axis=1, keepdims=True)
    called, present = probabilities.argmax(axis=1), np.unique(truth)
    found = measure_classes(truth, probabilities, [None] * len(images))
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, called))
    recalls = sk.recall_score(truth, called, labels=present, average=None, zero_division=0.0)
    assert found.balanced_accuracy == pytest.approx(recalls.mean())
    f1 = sk.f1_score(truth, called, labels=present, average="macro", zero_division=0.0)
    assert found.f1 == pytest.approx(f1)
    areas = [sk.roc_auc_score(truth == c, probabilities[:, c]) for c in present]
    assert found.roc_auc == pytest.approx(np.mean(areas))
    assert (found.patients, found.patient_recognition_rate, found.majority_vote) == (None,) * 3
    if len(present) == 4:
        assert found.roc_auc == pytest.approx(
            sk.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
        )


@given(BINARY)
def test_two_classes_measured_as_several_agree_with_two(images):
    truth = np.array([image[0] for image in images])
    positive = np.array([image[1] for image in images])
    two = measure_binary(truth, positive, positive > 1 - positive, [None] * len(images))
    probabilities = np.stack([1 - positive, positive], axis=1)
    several = measure_classes(truth.astype(int), probabilities, [None] * len(images))
    assert several.accuracy == two.accuracy
    assert several.balanced_accuracy == pytest.approx(two.balanced_accuracy)
    assert several.brier == pytest.approx(2 * two.brier)


def test_a_class_that_no_image_has_does_not_count():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]])
    found = measure_classes(np.array([0, 1]), probabilities, ["a", "b"])
    assert found.balanced_accuracy == 0.5
    assert found.f1 == 0.5


def test_what_is_not_defined_is_none():
    probability = np.array([0.1, 0.2])
    found = measure_binary(np.array([True, True]), probability, probability >= 0.5, [None, None])
    assert found.accuracy == 0
    assert found.recall == 0
    undefined = (
        "specificity",
        "balanced_accuracy",
        "precision",
        "roc_auc",
        "average_precision",
        "sensitivity_at_90",
        "sensitivity_at_95",
    )
    assert [getattr(found, name) for name in undefined] == [None] * len(undefined)
    assert (found.patients, found.patient_recognition_rate, found.majority_vote) == (None,) * 3
    negative = measure_binary(np.array([False]), np.array([0.1]), np.array([False]), ["a"])
    assert (negative.f1, negative.recall, negative.specificity) == (None, None, 1.0)
    alone = measure_classes(np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]), ["a", "b"])
    assert alone.accuracy == 0.5
    assert (alone.balanced_accuracy, alone.f1, alone.roc_auc) == (None, None, None)

"""Temperature and threshold from images set aside; calibration measured as it is defined."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from pipeline.errors import PipelineError
from pipeline.evaluation.calibration import (
    TEMPERATURES,
    apply_temperature,
    choose_threshold,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def _logits_of_temperature(temperature: float, classes: int, images: int = 20_000):
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (images, classes))
    if classes == 1:
        truth = random.random(images) < 1 / (1 + np.exp(-logits[:, 0]))
    else:
        truth = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits * temperature, truth.astype(np.int64)


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_logits_is_found_again(temperature, classes):
    logits, truth = _logits_of_temperature(temperature, classes)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_one_of_the_least_loss():
    logits, truth = _logits_of_temperature(2.0, 4, images=60)

    def loss(log_t):
        return -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(60), truth].mean()

    other = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    assert fit_temperature(logits, truth) == pytest.approx(np.exp(other.x), rel=1e-3)


def test_logits_that_separate_the_classes_get_the_least_temperature_and_reversed_the_largest():
    logits, truth = np.array([[-1.0], [1.0]]), np.array([0, 1])
    assert fit_temperature(logits, truth) == pytest.approx(TEMPERATURES[0], rel=1e-3)
    assert fit_temperature(-logits, truth) == pytest.approx(TEMPERATURES[1], rel=1e-3)


@pytest.mark.parametrize("truth", [[], [1, 1]])
def test_without_two_classes_the_temperature_is_one(truth):
    assert fit_temperature(np.ones((len(truth), 1)), np.array(truth, dtype=np.int64)) == 1.0


def test_probabilities_are_those_of_the_divided_logits_even_of_huge_ones():
    logits = np.array([[0.0], [2.0], [-1e4], [1e4]])
    expected = [0.5, 1 / (1 + np.exp(-1)), 0.0, 1.0]
    assert apply_temperature(logits, 2.0) == pytest.approx(expected)
    several = np.array([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4]])
    assert apply_temperature(several, 2.0) == pytest.approx(softmax(several / 2, axis=1))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(PipelineError, match="expected a number over 0"):
        apply_temperature(np.zeros((1, 1)), temperature)


def test_scaling_changes_no_order_and_no_call_at_one_half():
    logits = np.random.default_rng(0).normal(size=(50, 1))
    before, after = apply_temperature(logits, 1.0), apply_temperature(logits, 3.0)
    assert np.array_equal(np.argsort(before), np.argsort(after))
    assert np.array_equal(before >= 0.5, after >= 0.5)


def test_the_threshold_is_half_way_in_logits_between_the_medians():
    logits = np.array([-3.0, -1.0, -0.5, 1.0, 2.0, 9.0])
    truth = np.array([False, False, False, True, True, True])
    threshold = choose_threshold(1 / (1 + np.exp(-logits)), truth)
    assert threshold == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_the_threshold_follows_logits_that_are_all_too_low():
    random = np.random.default_rng(0)
    truth = np.arange(400) % 2 == 1
    probability = 1 / (1 + np.exp(-(random.normal(size=400) + 2 * truth - 3)))
    called = probability >= choose_threshold(probability, truth)
    assert (called == truth).mean() > (((probability >= 0.5) == truth).mean()) + 0.15


@pytest.mark.parametrize("truth", [[], [True, True], [False, False]])
def test_without_two_classes_the_threshold_is_one_half(truth):
    assert choose_threshold(np.full(len(truth), 0.9), np.array(truth, dtype=bool)) == 0.5


def test_probabilities_of_nought_and_one_give_a_threshold():
    assert choose_threshold(np.array([0.0, 1.0]), np.array([False, True])) == pytest.approx(0.5)


def test_the_reliability_curve_worked_by_hand():
    probability = np.array([0.0, 0.1, 0.24, 0.25, 0.5, 1.0])
    truth = np.array([False, True, False, True, True, True])
    bins = reliability(probability, truth, bins=4)
    assert [(b.low, b.high, b.images) for b in bins] == [
        (0.0, 0.25, 3),
        (0.25, 0.5, 1),
        (0.5, 0.75, 1),
        (0.75, 1.0, 1),
    ]
    assert bins[0].mean_probability == pytest.approx(0.34 / 3)
    assert bins[0].fraction == pytest.approx(1 / 3)
    gaps = [3 * abs(1 / 3 - 0.34 / 3), 0.75, 0.5, 0.0]
    assert expected_calibration_error(probability, truth, bins=4) == pytest.approx(sum(gaps) / 6)


def test_an_empty_bin_is_shown_as_empty():
    (_, empty) = reliability(np.array([0.2]), np.array([True]), bins=2)
    assert (empty.images, empty.mean_probability, empty.fraction) == (0, None, None)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_every_image_is_in_one_bin_and_within_it(images):
    probability = np.array([p for p, _ in images])
    truth = np.array([t for _, t in images])
    bins = reliability(probability, truth)
    assert sum(b.images for b in bins) == len(images)
    for b in bins:
        if b.mean_probability is not None:
            assert b.low - 1e-9 <= b.mean_probability <= b.high + 1e-9
    assert 0 <= expected_calibration_error(probability, truth) <= 1


def test_probabilities_that_are_true_have_little_error_and_scaled_ones_have_more():
    logits, truth = _logits_of_temperature(3.0, 1)
    positive = truth == 1
    raw = expected_calibration_error(apply_temperature(logits, 1.0), positive)
    scaled = expected_calibration_error(
        apply_temperature(logits, fit_temperature(logits, truth)), positive
    )
    assert scaled < 0.02 < 0.1 < raw


def test_the_module_is_light_to_import():
    code = (
        "import sys, pipeline.evaluation.calibration as c; "
        "sys.exit(any(m in sys.modules for m in ('sklearn', 'scipy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Temperature and threshold follow the cases when they are many, and stay put when few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fitting.calibration import (
    PRIOR,
    apply_temperature,
    choose_threshold,
    fit_temperature,
)


def calibrated(count, classes, seed=0, spread=2.0):
    """Logits (n, C) and truths (n,) drawn from the probabilities that these logits mean.

    The classes are equally frequent, as the class-balanced loss takes them to be.
    """
    rng = np.random.default_rng(seed)
    if classes == 2:
        truth = np.arange(count) % 2
        # Of normal scores around ±m with variance 2 m, the log-odds are the scores themselves.
        logits = rng.normal(np.where(truth, spread, -spread), np.sqrt(2 * spread))
        return logits[:, None], truth
    truth = np.arange(count) % classes
    scores = rng.normal(size=(count, classes))
    scores[np.arange(count), truth] += spread
    return scores * spread, truth  # log-densities of unit normals, up to a constant a row


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered_from_many_cases(classes, temperature):
    logits, truth = calibrated(4000, classes)
    found = fit_temperature(logits * temperature, truth, np.arange(4000))
    assert found == pytest.approx(temperature, rel=0.12)


def test_few_cases_leave_the_temperature_near_1():
    logits, truth = calibrated(2000, 2)
    few = fit_temperature(logits * 4, truth, np.arange(2000) % 8)
    many = fit_temperature(logits * 4, truth, np.arange(2000))
    assert 1 < few < 2 < many


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("cases", [6, 60])
def test_the_temperature_is_that_of_the_least_cost_on_a_grid(classes, cases):
    logits, truth = calibrated(120, classes, seed=1)
    logits = 3 * logits
    truth[:20] = 0  # the classes are not of one size
    whose = np.arange(120) % cases
    grid = np.exp(np.linspace(-3, 3, 2401))
    costs = []
    signed = logits * np.where(truth, 1, -1)[:, None] if classes == 2 else logits
    for temperature in grid:
        right = apply_temperature(signed, temperature)
        losses = -np.log(right if classes == 2 else right[np.arange(120), truth])
        mean = np.mean([losses[truth == c].mean() for c in range(classes)])
        costs.append(cases * mean + np.log(temperature) ** 2 / (2 * PRIOR**2))
    expected = grid[np.argmin(costs)]
    assert fit_temperature(logits, truth, whose) == pytest.approx(expected, rel=0.005)


def test_one_class_alone_gives_no_temperature():
    assert fit_temperature(np.ones((3, 1)), np.array([1, 1, 1]), np.arange(3)) == 1


@given(st.floats(-700, 700), st.floats(0.05, 20))
def test_of_two_classes_the_probability_is_the_sigmoid(logit, temperature):
    found = apply_temperature(np.array([[logit]]), temperature)
    assert found.shape == (1,)
    expected = 1 / (1 + np.exp(-np.clip(logit / temperature, -700, 700)))
    assert found[0] == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(
    st.lists(st.floats(-500, 500), min_size=3, max_size=5),
    st.floats(0.1, 10),
)
def test_of_more_classes_the_probabilities_are_the_softmax(logits, temperature):
    found = apply_temperature(np.array([logits]), temperature)
    scaled = np.array(logits) / temperature
    expected = np.exp(scaled - scaled.max())
    np.testing.assert_allclose(found[0], expected / expected.sum(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_extreme_logits_stay_probabilities(temperature):
    for logits in (np.array([[-1e9], [1e9]]), np.array([[-1e9, 0, 1e9]])):
        found = apply_temperature(logits, temperature)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert (found <= 1).all()


def balanced_accuracy(probability, truth, threshold):
    called = probability >= threshold
    return ((called & truth).sum() / truth.sum() + (~called & ~truth).sum() / (~truth).sum()) / 2


def test_many_cases_with_a_gain_move_the_threshold_to_the_best():
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 2 == 1
    probability = np.where(truth, rng.uniform(0.25, 0.6, 300), rng.uniform(0.0, 0.2, 300))
    found = choose_threshold(probability, truth, np.arange(300))
    assert probability[~truth].max() < found < probability[truth].min()
    assert balanced_accuracy(probability, truth, found) == 1


def test_the_threshold_is_the_best_of_a_grid():
    rng = np.random.default_rng(1)
    truth = np.arange(400) % 3 == 1
    probability = np.clip(rng.normal(np.where(truth, 0.4, 0.2), 0.1), 0, 1)
    found = choose_threshold(probability, truth, np.arange(400))
    best = max(balanced_accuracy(probability, truth, t) for t in np.linspace(0, 1, 5001))
    assert balanced_accuracy(probability, truth, found) >= best - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_noise_leaves_the_threshold_at_a_half(seed):
    rng = np.random.default_rng(seed)
    truth = np.arange(12) % 2 == 1
    probability = np.clip(rng.normal(np.where(truth, 0.7, 0.3), 0.05), 0, 1)
    probability[:2] = 0.55, 0.45  # one image of each class on the wrong side
    assert choose_threshold(probability, truth, np.arange(12)) == 0.5


def test_a_gain_of_one_case_with_many_images_leaves_the_threshold_at_a_half():
    """As many images as above, but the gain is of one case of nine."""
    truth = np.arange(90) % 2 == 1
    probability = np.where(truth, 0.8, 0.2)
    probability[(np.arange(90) < 10) & truth] = 0.4
    whose = np.arange(90) // 10
    assert choose_threshold(probability, truth, whose) == 0.5
    assert choose_threshold(probability, truth, np.arange(90)) != 0.5


def test_of_equal_thresholds_the_one_nearest_to_a_half_is_taken():
    probability = np.array([0.1, 0.9] * 20)
    truth = np.array([False, True] * 20)
    assert choose_threshold(probability, truth, np.arange(40)) == 0.5


@pytest.mark.parametrize("truth", [[True, True], [False, False]])
def test_one_class_alone_gives_no_threshold(truth):
    assert choose_threshold(np.array([0.1, 0.2]), np.array(truth), np.arange(2)) == 0.5

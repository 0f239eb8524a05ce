"""Calibration is measured as it is defined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.calibration import (
    expected_calibration_error,
    reliability,
)


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
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 20_000)
    true = 1 / (1 + np.exp(-logits))
    positive = random.random(len(true)) < true
    scaled = 1 / (1 + np.exp(-3 * logits))
    assert expected_calibration_error(true, positive) < 0.02
    assert expected_calibration_error(scaled, positive) > 0.05

"""The curves of a report against hand-made cases and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score
from small_fits import CLASSES, simulated

from pipeline.evaluation.scores import Scores
from pipeline.report.curves import band_of, precision_points, roc_points
from pipeline.report.features_map import lay_out


def test_the_roc_curve_is_that_of_a_case_done_by_hand():
    truth = np.array([True, False, True, False])
    false, true = roc_points(truth, np.array([0.9, 0.8, 0.7, 0.1]))
    assert list(zip(false, true, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_the_area_below_the_roc_curve_is_the_auc():
    scores = Scores.of(simulated(0.5), CLASSES)
    truth, probability = scores.truth == 1, scores.probabilities[:, 1]
    assert auc(*roc_points(truth, probability)) == pytest.approx(roc_auc_score(truth, probability))


def test_recall_rises_and_precision_ends_at_the_share_of_positives():
    scores = Scores.of(simulated(0.5), CLASSES)
    truth = scores.truth == 1
    recall, precision = precision_points(truth, scores.probabilities[:, 1])
    assert (np.diff(recall) >= 0).all()
    assert recall[-1] == 1
    assert precision[-1] == pytest.approx(truth.mean())


def test_the_band_is_the_mean_and_deviation_of_the_folds():
    scores = Scores.of(simulated(0.5), CLASSES)
    band = band_of(scores, 1, roc_points)
    lines = [
        np.interp(band.x, *roc_points(fold.truth == 1, fold.probabilities[:, 1]))
        for fold in scores.by_fold()
    ]
    assert band.folds == len(lines) == 2
    np.testing.assert_allclose(band.mean, np.mean(lines, axis=0))
    np.testing.assert_allclose(band.sd, np.std(lines, axis=0, ddof=1))


def test_folds_of_one_class_have_no_curve():
    rows = [row for row in simulated(0.5) if row.fold == 0 or row.label == "benign"]
    assert band_of(Scores.of(rows, CLASSES), 1, roc_points) is None


@pytest.mark.parametrize("count", [1, 2, 5, 8, 40])
def test_a_map_has_a_place_for_each_image_and_is_repeatable(count):
    inputs = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    places = lay_out(inputs)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    np.testing.assert_array_equal(places, lay_out(inputs))


def test_images_that_look_alike_lie_side_by_side():
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(3) * 20, 20, axis=0)
    places = lay_out((centres + random.normal(size=(60, 3))).astype(np.float32))
    groups = np.repeat(np.arange(3), 20)
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (groups[apart.argmin(axis=1)] == groups).mean() > 0.95

"""What patches contribute: the probability with each minus that without it."""

import numpy as np
import pytest

from cache import FeatureCache
from pipeline.fitting.sequences import Sequences
from pipeline.prediction import occlusion
from pipeline.prediction.ensemble import Ensemble
from pipeline.prediction.occlusion import contributions


@pytest.fixture
def ensemble(small_run):
    return Ensemble.load([small_run.model(fold) for fold in range(3)])


@pytest.fixture
def features(small_run):
    with FeatureCache(small_run.folder / "features.h5") as cache:
        return cache.sequence(0)


def probability(ensemble, features):
    image = Sequences.from_arrays(features, np.array([0, len(features)]))
    return ensemble.judge(image)[0].probabilities[0]


def test_each_contribution_is_the_probability_minus_that_of_the_others_alone(ensemble, features):
    found = contributions(ensemble, features)
    whole = probability(ensemble, features)
    for number in range(len(features)):
        others = np.delete(features, number, axis=0)
        assert found[number] == pytest.approx(whole - probability(ensemble, others), abs=1e-6)
    assert np.abs(found).max() > 1e-4  # else the test would prove nothing


def test_long_sequences_are_looked_at_in_parts_with_the_same_result(
    ensemble, features, monkeypatch
):
    expected = contributions(ensemble, features)
    monkeypatch.setattr(occlusion, "_ROWS_AT_ONCE", 2 * len(features))
    np.testing.assert_allclose(contributions(ensemble, features), expected, atol=1e-7)


def test_an_image_of_one_patch_has_no_contribution(ensemble, features):
    assert np.isnan(contributions(ensemble, features[:1])).all()

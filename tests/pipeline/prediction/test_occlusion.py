"""What patches contribute: the probability with each minus that without it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import FeatureCache
from pipeline.extraction.patches import grid
from pipeline.fitting.sequences import Sequences
from pipeline.prediction import occlusion
from pipeline.prediction.ensemble import Ensemble
from pipeline.prediction.occlusion import MOST_SQUARES, contributions, squares_of


@pytest.fixture
def ensemble(small_run):
    return Ensemble.load([small_run.model(fold) for fold in range(3)])


@pytest.fixture
def image(small_run):
    """Features and coordinates of one image."""
    with FeatureCache(small_run.folder / "features.h5") as cache:
        return cache.sequence(0), cache.all_coords()[: cache.offsets[1]]


def probability(ensemble, features):
    image = Sequences.from_arrays(features, np.array([0, len(features)]))
    return ensemble.judge(image)[0].probabilities[0]


def test_each_contribution_is_the_probability_minus_that_of_the_others_alone(ensemble, image):
    found, features = contributions(ensemble, *image), image[0]
    whole = probability(ensemble, features)
    for number in range(len(features)):
        others = np.delete(features, number, axis=0)
        assert found[number] == pytest.approx(whole - probability(ensemble, others), abs=1e-6)
    assert np.abs(found).max() > 1e-4  # else the test would prove nothing


def test_long_sequences_are_looked_at_in_parts_with_the_same_result(ensemble, image, monkeypatch):
    expected = contributions(ensemble, *image)
    monkeypatch.setattr(occlusion, "_ROWS_AT_ONCE", 2 * len(image[0]))
    np.testing.assert_allclose(contributions(ensemble, *image), expected, atol=1e-7)


def test_an_image_of_one_patch_has_no_contribution(ensemble, image):
    features, coords = image
    assert np.isnan(contributions(ensemble, features[:1], coords[:1])).all()
    in_one_place = np.zeros((70, 2), np.int32)
    assert np.isnan(contributions(ensemble, features[:1].repeat(70, 0), in_one_place)).all()


def test_of_many_patches_those_of_a_square_are_left_out_together(ensemble, image):
    features, coords = image[0], grid(640, 640, 32, 32, "drop")
    rng = np.random.default_rng(0)
    many = features[rng.integers(0, len(features), len(coords))]
    found, squares = contributions(ensemble, many, coords), squares_of(coords, 1)
    whole = probability(ensemble, many)
    for square in (0, int(squares.max())):
        (value,) = set(found[squares == square].tolist())
        expected = whole - probability(ensemble, many[squares != square])
        assert value == pytest.approx(expected, abs=1e-6)
    assert len(set(found.tolist())) > 10


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(1, 60))
def test_squares_are_few_of_each_view_and_of_neighbours(across, down, views, step):
    coords = np.array([[x, y] for y in range(down) for x in range(across)], np.int32) * step
    squares = squares_of(np.concatenate([coords] * views), views)
    assert sorted(set(squares.tolist())) == list(range(squares.max() + 1))
    if len(squares) <= MOST_SQUARES:
        assert squares.tolist() == list(range(len(squares)))
        return
    assert squares.max() < MOST_SQUARES
    assert squares.max() >= min(7, views - 1)
    by_view = squares.reshape(views, -1)
    assert len(set(map(frozenset, by_view.tolist()))) == views
    assert not set(by_view[0]) & set(by_view[-1]) or views == 1
    for square in range(squares.max() + 1):
        mine = np.concatenate([coords] * views)[squares == square]
        extent = np.ptp(mine, axis=0) // step + 1
        assert len(mine) == extent.prod(), "patches between those of a square are of another"

"""Intervals over patients: exact in what they weigh, and as wide as they claim."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from pipeline.evaluation.bootstrap import (
    degrees_of_freedom,
    interval,
    p_value,
    resample,
    weighted_auc,
    weighted_balanced_accuracy,
    weighted_macro_auc,
    weighted_mean,
    weighted_patient_recognition_rate,
)
from pipeline.evaluation.metrics import (
    measure_binary,
    measure_classes,
    patient_recognition_rate,
)

SHIFT = 1.2
TRUE_ACCURACY = stats.norm.cdf(SHIFT / 2)
TRUE_AUC = stats.norm.cdf(SHIFT / np.sqrt(2))


def _study(random, negative, positive, shared=0.5):
    """About 12 images a case; `shared` is their intraclass correlation. Scores, truth, cases."""
    number = np.repeat(np.arange(negative + positive), random.integers(6, 19, negative + positive))
    truth = number >= negative
    of_cases = random.normal(0, np.sqrt(shared), negative + positive)
    own = random.normal(0, np.sqrt(1 - shared), len(number))
    return of_cases[number] + own + SHIFT * truth, truth, [f"case{k}" for k in number]


def _names(truth):
    return [str(value) for value in truth]


def _coverage(studies, negative, positive, replicates=500):
    """Fraction of studies whose interval holds the truth, by what is resampled and measured."""
    random = np.random.default_rng(negative * 100 + positive)
    held = {(unit, name): 0 for unit in ("case", "image") for name in ("accuracy", "auc")}
    for study in range(studies):
        scores, truth, cases = _study(random, negative, positive)
        right = (scores >= SHIFT / 2) == truth
        for unit, groups in (("case", cases), ("image", _names(range(len(cases))))):
            drawn = resample(groups, _names(truth), replicates, seed=study)
            weights = drawn.weights(groups)
            accuracy = interval(weighted_mean(right, weights), drawn.strata_sizes)
            auc = interval(weighted_auc(scores, truth, weights), drawn.strata_sizes)
            held[unit, "accuracy"] += accuracy.low <= TRUE_ACCURACY <= accuracy.high
            held[unit, "auc"] += auc.low <= TRUE_AUC <= auc.high
    return {key: count / studies for key, count in held.items()}


def test_intervals_over_cases_hold_the_truth_and_those_over_images_do_not():
    found = _coverage(studies=150, negative=15, positive=15, replicates=300)
    # 150 studies tell a fraction near 0.94 to within 0.04.
    assert min(found["case", name] for name in ("accuracy", "auc")) >= 0.90
    assert max(found["image", name] for name in ("accuracy", "auc")) <= 0.75


@pytest.mark.slow
@pytest.mark.parametrize(
    ("negative", "positive", "least"),
    [(10, 10, 0.90), (14, 6, 0.885), (15, 15, 0.92), (24, 6, 0.90), (30, 30, 0.92)],
)
def test_intervals_cover_as_the_module_says(negative, positive, least):
    found = _coverage(studies=600, negative=negative, positive=positive)
    assert min(found["case", name] for name in ("accuracy", "auc")) >= least
    assert max(found["image", name] for name in ("accuracy", "auc")) <= 0.75


def _p_values_by_chance(studies, seed, replicates=300):
    """Of paired models that are equally good."""
    random = np.random.default_rng(seed)
    found = []
    for study in range(studies):
        scores, truth, cases = _study(random, 15, 15)
        number = np.unique(cases, return_inverse=True)[1]
        drawn = resample(cases, _names(truth), replicates, seed=study)
        weights = drawn.weights(cases)
        one, other = (
            scores + random.normal(0, 0.5, 30)[number] + random.normal(0, 0.5, len(scores))
            for _ in range(2)
        )
        difference = weighted_auc(one, truth, weights) - weighted_auc(other, truth, weights)
        found.append(p_value(difference, drawn.strata_sizes))
    return np.array(found)


def test_p_values_of_models_that_differ_by_chance_are_uniform():
    found = _p_values_by_chance(studies=300, seed=5)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    # 300 studies tell a fraction near 0.05 to within 0.025.
    assert 0.02 <= np.mean(found < 0.05) <= 0.09


@pytest.mark.slow
def test_one_in_twenty_models_that_differ_by_chance_has_a_p_value_under_one_in_twenty():
    found = _p_values_by_chance(studies=3000, seed=11)
    assert 0.04 <= np.mean(found < 0.05) <= 0.07
    assert 0.08 <= np.mean(found < 0.1) <= 0.125


def test_a_real_difference_between_models_is_found():
    random = np.random.default_rng(3)
    scores, truth, cases = _study(random, 15, 15)
    drawn = resample(cases, _names(truth))
    weights = drawn.weights(cases)
    worse = scores + random.normal(0, 3, len(scores))
    difference = weighted_auc(scores, truth, weights) - weighted_auc(worse, truth, weights)
    assert interval(difference, drawn.strata_sizes).low > 0
    assert p_value(difference, drawn.strata_sizes) < 0.05


def _replicated(weights, *arrays):
    """Rows repeated as often as one replicate of whole weights counts them."""
    return [np.repeat(array, weights.astype(int)) for array in arrays]


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30
    ).filter(lambda rows: len({truth for _, truth, _ in rows}) == 2)
)
def test_the_weighted_area_is_that_of_the_replicated_images(rows):
    scores = np.array([score / 5 for score, _, _ in rows])
    truth = np.array([positive for _, positive, _ in rows])
    weights = np.array([[weight for _, _, weight in rows], [1] * len(rows)], dtype=float)
    found = weighted_auc(scores, truth, weights)
    assert found[1] == pytest.approx(sk.roc_auc_score(truth, scores))
    replicated_truth, replicated_scores = _replicated(weights[0], truth, scores)
    if len(set(replicated_truth.tolist())) == 2:
        expected = sk.roc_auc_score(replicated_truth, replicated_scores)
        assert found[0] == pytest.approx(expected)
    else:
        assert np.isnan(found[0])


def test_the_weighted_area_does_not_depend_on_the_blocks_it_is_worked_in(monkeypatch):
    random = np.random.default_rng(0)
    scores, truth, cases = _study(random, 4, 4)
    weights = resample(cases, _names(truth), replicates=50).weights(cases)
    whole = weighted_auc(scores, truth, weights)
    monkeypatch.setattr("pipeline.evaluation.bootstrap._BLOCK_BYTES", 1)
    assert np.array_equal(weighted_auc(scores, truth, weights), whole)


def test_weighted_measures_equal_those_of_the_replicated_images():
    random = np.random.default_rng(0)
    scores, truth, cases = _study(random, 5, 5)
    patients = np.array(cases)
    right = (scores >= SHIFT / 2) == truth
    times = dict(zip(sorted(set(cases)), [2, 0, 1, 1, 3, 0, 2, 1, 1, 1], strict=True))
    weights = np.array([[times[case] for case in cases]], dtype=float)
    # A case that was drawn twice is two patients.
    again = np.concatenate([np.arange(times[case]) for case in cases])
    held, true, score, who = _replicated(weights[0], right, truth, scores, patients)
    whose = list(zip(who.tolist(), again.tolist(), strict=True))
    expected = measure_binary(true, score, held == true, whose)
    assert weighted_mean(right, weights) == pytest.approx(expected.accuracy)
    balanced = weighted_balanced_accuracy(right, truth, weights)
    assert balanced == pytest.approx(expected.balanced_accuracy)
    rate = weighted_patient_recognition_rate(right, cases, weights)
    assert rate == pytest.approx(expected.patient_recognition_rate)


def test_weights_of_one_give_the_measures_themselves():
    random = np.random.default_rng(1)
    truth = np.arange(40) % 3
    probabilities = random.dirichlet(np.ones(4), 40)
    right = probabilities.argmax(axis=1) == truth
    cases = [str(k // 4) for k in range(40)]
    ones = np.ones((1, 40))
    expected = measure_classes(truth, probabilities, cases)
    assert weighted_macro_auc(probabilities, truth, ones) == pytest.approx(expected.roc_auc)
    balanced = weighted_balanced_accuracy(right, truth, ones)
    assert balanced == pytest.approx(expected.balanced_accuracy)
    rate = weighted_patient_recognition_rate(right, cases, ones)
    assert rate == pytest.approx(patient_recognition_rate(right, cases))


def test_a_replicate_without_two_classes_is_not_a_number_and_is_left_out():
    truth, right = np.array([True, False]), np.array([True, False])
    weights = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    areas = weighted_auc(np.array([0.9, 0.1]), truth, weights)
    assert np.array_equal(areas, [np.nan, 1.0, np.nan], equal_nan=True)
    balanced = weighted_balanced_accuracy(right, truth, weights)
    assert np.array_equal(balanced, [np.nan, 0.5, np.nan], equal_nan=True)
    assert np.isnan(weighted_mean(right, weights)[2])
    assert interval(areas, (5, 5)) == (1.0, 1.0)
    assert p_value(areas, (5, 5)) is not None


def test_without_a_spread_there_is_no_interval_and_no_p_value():
    for samples, sizes in ((np.ones(9), (1, 1)), (np.full(9, np.nan), (5, 5))):
        assert interval(samples, sizes) is None
        assert p_value(samples, sizes) is None


def test_images_of_a_group_are_drawn_together_and_every_class_in_every_replicate():
    groups = ["a", "a", "b", "c", "c", "d", "e"]
    classes = ["x", "x", "x", "x", "x", "y", "y"]
    drawn = resample(groups, classes, replicates=500)
    weights = drawn.weights(groups)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights[:, 3], weights[:, 4])
    # Each stratum counts as many groups as it has.
    assert weights[:, [0, 2, 3]].sum(axis=1) == pytest.approx(3)
    assert weights[:, [5, 6]].sum(axis=1) == pytest.approx(2)
    assert drawn.strata_sizes == (3, 2)


def test_groups_weigh_one_on_average_with_the_variance_of_unbiased_means():
    groups = _names(range(6))
    weights = resample(groups, ["x"] * 6, replicates=20_000).weights(groups)
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.03)
    assert weighted_mean(values, weights).var() == pytest.approx(values.var(ddof=1) / 6, rel=0.03)


def test_a_stratum_of_one_group_is_in_every_replicate():
    drawn = resample(["a", "b", "c"], ["x", "y", "y"], replicates=100)
    assert np.all(drawn.weights(["a"]) == 1)
    assert drawn.strata_sizes == (1, 2)


def test_a_group_of_two_classes_belongs_to_that_of_most_of_its_images():
    drawn = resample(["a", "a", "a", "b", "c"], ["x", "y", "y", "y", "x"], replicates=10)
    assert drawn.strata_sizes == (1, 2)


def test_rows_get_the_weights_of_their_groups_in_any_order_and_number():
    drawn = resample(["b", "a"], ["x", "x"], replicates=20)
    weights = drawn.weights(["a", "b", "a"])
    assert weights.shape == (20, 3)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert weights[:, :2].sum(axis=1) == pytest.approx(2)


def test_drawings_depend_on_the_seed_and_not_on_the_order_of_the_images():
    groups, classes = ["a", "b", "c", "d"], ["x", "x", "y", "y"]
    one = resample(groups, classes, 50).weights(groups)
    assert np.array_equal(resample(groups[::-1], classes[::-1], 50).weights(groups), one)
    assert not np.array_equal(resample(groups, classes, 50, seed=1).weights(groups), one)


def test_the_interval_is_that_of_student_on_normal_samples():
    samples = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    for sizes, freedom in (((6,), 5), ((15, 15), 28), ((500, 500), 998)):
        low, high = interval(samples, sizes)
        assert high == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-2)
        assert low == pytest.approx(-high, rel=1e-6)


def test_the_degrees_of_freedom_worked_by_hand():
    assert degrees_of_freedom((15, 15)) == pytest.approx(28)
    assert degrees_of_freedom((12,)) == pytest.approx(11)
    # (1/2 + 1/4)² / (1/4 + 1/48)
    assert degrees_of_freedom((2, 4, 1)) == pytest.approx((9 / 16) / (13 / 48))
    assert degrees_of_freedom((1, 1)) is None


@given(st.floats(-3, 3), st.integers(5, 40))
def test_the_p_value_is_under_one_in_twenty_where_the_interval_leaves_nought_out(mean, size):
    samples = mean + stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    low, high = interval(samples, (size, size))
    p = p_value(samples, (size, size))
    if low > 0.02 or high < -0.02:
        assert p < 0.051
    elif low < -0.02 and high > 0.02:
        assert p > 0.049


def test_the_p_value_worked_by_hand():
    # As good as normal: 1 of 99 replicates is at most 0.
    differences = np.array([-0.1] + [0.1] * 98)
    assert p_value(differences, (10**9, 10**9)) == pytest.approx(2 * 2 / 100, rel=1e-6)
    assert p_value(-differences, (10**9, 10**9)) == pytest.approx(2 * 2 / 100, rel=1e-6)
    assert p_value(np.zeros(99), (5, 5)) == 1


def test_the_area_of_a_large_study_takes_little_time_and_memory():
    random = np.random.default_rng(0)
    scores, truth = random.random(2000), random.random(2000) > 0.5
    weights = random.integers(0, 4, (2000, 2000)).astype(float)
    start = time.perf_counter()
    weighted_auc(scores, truth, weights)
    assert time.perf_counter() - start < 5
    tracemalloc.start()
    weighted_auc(scores, truth, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20

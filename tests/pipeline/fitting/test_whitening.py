"""Features become inputs of mean 0 and equal spread, by the development images alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fitting.options import FitOptions
from pipeline.fitting.whitening import SHRINKAGE, compress, fit_whitening

DIM = 12
ALL = np.arange(DIM)


def features_of(patches=500, dim=DIM, seed=0):
    """Correlated features, the later ones larger, none negative, as after a ReLU."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(patches, dim)) @ rng.normal(size=(dim, dim))
    return torch.from_numpy((np.abs(mixed) * np.arange(1, dim + 1)).astype(np.float32))


@pytest.mark.parametrize("compression", ["log", "none"])
@pytest.mark.parametrize("components", [1, 4, DIM])
def test_whitened_inputs_have_mean_0_and_no_correlation(compression, components):
    data = features_of()
    options = FitOptions(compression=compression, components=components)
    inputs = fit_whitening(data, ALL, options).apply(data)
    assert inputs.shape == (500, components)
    assert inputs.mean(dim=0).abs().max() < 1e-4
    covariance = inputs.T @ inputs / len(inputs)  # (k, k)
    variances = covariance.diagonal()
    assert (covariance - variances.diag()).abs().max() < 1e-3
    # A direction of variance v keeps v / (v + SHRINKAGE × the largest v): the largest, 1 / 1.01.
    assert variances[0].item() == pytest.approx(1 / (1 + SHRINKAGE), abs=1e-3)
    assert (variances.diff() <= 1e-4).all()
    assert variances.min() > 0.2


def test_without_components_features_are_centred_and_keep_their_proportions():
    data = features_of()
    options = FitOptions(compression="none", components=0)
    inputs = fit_whitening(data, ALL, options).apply(data)
    assert inputs.mean(dim=0).abs().max() < 1e-4
    assert inputs.square().mean().item() == pytest.approx(1, abs=1e-3)
    ratio = inputs.std(dim=0) / data.std(dim=0)
    torch.testing.assert_close(ratio, ratio[:1].expand(DIM), rtol=1e-4, atol=0)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20), st.floats(1e-6, 1e6))
def test_compression_rises_and_is_odd(values, level):
    x, levels = torch.tensor(sorted(values))[:, None], torch.tensor([level])
    compressed = compress(x, levels)
    assert (compressed.diff(dim=0) >= 0).all()
    assert torch.equal(compress(-x, levels), -compressed)
    assert torch.isfinite(compressed).all()


def test_compression_makes_a_factor_an_amount():
    options = FitOptions(components=0)
    data = features_of()
    louder = fit_whitening(1000 * data, ALL, options).apply(1000 * data)
    torch.testing.assert_close(
        louder, fit_whitening(data, ALL, options).apply(data), rtol=1e-3, atol=1e-4
    )


def test_compression_that_is_off_does_nothing():
    data = features_of()
    assert torch.equal(compress(data, torch.zeros(DIM)), data)
    assert not fit_whitening(data, ALL, FitOptions(compression="none")).level.any()


@pytest.mark.parametrize("components", [0, 4])
def test_equal_features_give_equal_bytes(components):
    options = FitOptions(components=components)
    first, second = (fit_whitening(features_of(), ALL, options) for _ in range(2))
    for name in ("columns", "level", "mean", "basis"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_a_few_of_many_components_are_those_of_the_full_decomposition():
    """Few are found by iteration, many by full decomposition."""
    data = features_of(2000, dim=80)
    few, many = (
        fit_whitening(data, np.arange(80), FitOptions(components=count)).basis for count in (5, 40)
    )
    torch.testing.assert_close(few, many[:, :5], rtol=1e-3, atol=1e-4)


def test_only_the_columns_that_are_chosen_are_read():
    data, columns = features_of(), np.array([7, 2, 5])
    whitening = fit_whitening(data, columns, FitOptions(components=3))
    others = data.clone()
    others[:, [i for i in range(DIM) if i not in columns]] = float("nan")
    assert torch.equal(whitening.apply(others), whitening.apply(data))
    again = fit_whitening(data[:, columns], np.arange(3), FitOptions(components=3))
    torch.testing.assert_close(again.basis, whitening.basis)


@pytest.mark.parametrize("components", [0, 4, DIM])
@pytest.mark.parametrize("compression", ["log", "none"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_columns_stay_finite(components, compression, value):
    options = FitOptions(components=components, compression=compression)
    for data in (torch.full((20, DIM), value), features_of()):
        data[:, :2] = value
        whitening = fit_whitening(data, ALL, options)
        assert torch.isfinite(whitening.apply(data)).all()
        assert torch.isfinite(whitening.apply(features_of(seed=1))).all()


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_many_columns_that_are_all_constant_stay_finite(value):
    data = torch.full((20, 300), value)
    whitening = fit_whitening(data, np.arange(300), FitOptions(components=8))
    assert whitening.size == 1
    assert torch.isfinite(whitening.apply(data)).all()


def test_there_are_no_more_components_than_the_features_have():
    data = features_of()[:, :3]
    repeated = torch.cat([data, data], dim=1)
    options = FitOptions(compression="none", components=6)
    assert fit_whitening(repeated, np.arange(6), options).size == 3
    assert fit_whitening(data, np.arange(3), FitOptions(components=32)).size == 3


def test_half_precision_features_are_whitened_in_single():
    data = features_of().half()
    inputs = fit_whitening(data, ALL, FitOptions(components=4)).apply(data)
    assert inputs.dtype == torch.float32
    assert inputs.mean(dim=0).abs().max() < 1e-4

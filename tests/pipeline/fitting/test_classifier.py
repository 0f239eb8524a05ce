"""The classifier treats each sequence by itself, whatever shares its batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.fitting.classifier import ClassifierSizes, LstmClassifier
from pipeline.fitting.sequences import Sequences

DIM = 6


def sequences_of(lengths: list[int]) -> Sequences:
    offsets = np.cumsum([0, *lengths])
    features = np.random.default_rng(0).normal(size=(int(offsets[-1]), DIM))
    return Sequences.from_arrays(features.astype(np.float16), offsets)


def network(**sizes) -> LstmClassifier:
    torch.manual_seed(0)
    return LstmClassifier(ClassifierSizes(DIM, projection=5, hidden=4, **sizes)).eval()


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.booleans(), st.integers(1, 2))
def test_a_logit_does_not_depend_on_the_batch(lengths, bidirectional, layers):
    data, model = sequences_of(lengths), network(bidirectional=bidirectional, layers=layers)
    with torch.inference_mode():
        together = model(*data.batch(torch.arange(len(lengths))))
        alone = torch.cat([model(*data.batch(torch.tensor([i]))) for i in range(len(lengths))])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_what_lies_beyond_a_sequence_is_never_read():
    data, model = sequences_of([2, 5]), network()
    features, lengths = data.batch(torch.tensor([0, 1]))
    changed = features.clone()
    changed[0, 2:] = 1e6
    torch.testing.assert_close(model(features, lengths), model(changed, lengths), rtol=0, atol=0)


def test_the_order_of_patches_matters():
    data, model = sequences_of([4]), network()
    features, lengths = data.batch(torch.tensor([0]))
    assert not torch.allclose(model(features, lengths), model(features.flip(1), lengths))


def test_a_batch_holds_the_rows_of_its_images_and_zeros():
    data = sequences_of([2, 1, 3])
    features, lengths = data.batch(torch.tensor([2, 1]))
    assert lengths.tolist() == [3, 1]
    torch.testing.assert_close(features[0], data.features[3:6])
    torch.testing.assert_close(features[1, :1], data.features[2:3])
    assert features[1, 1:].abs().sum() == 0


def test_patches_of_images_are_theirs_alone():
    data = sequences_of([2, 1, 3])
    torch.testing.assert_close(
        data.patches_of(torch.tensor([2, 0])), data.features[torch.tensor([0, 1, 3, 4, 5])]
    )


def test_standardising_centres_each_feature_and_keeps_their_proportions():
    data, model = sequences_of([50, 50]), network()
    features = data.features * torch.arange(1, DIM + 1)
    model.standardise_by(features)
    standard = (features - model.mean) / model.scale
    assert standard.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(standard.square().mean(), torch.tensor(1.0))
    deviations = features.std(0, correction=0)
    torch.testing.assert_close(standard.std(0, correction=0) * model.scale, deviations)


def test_a_constant_feature_stays_finite():
    model = network()
    model.standardise_by(torch.ones(10, DIM))
    assert torch.isfinite(model(torch.ones(1, 3, DIM), torch.tensor([3]))).all()


@pytest.mark.parametrize("change", [{"hidden": 0}, {"layers": 0}, {"dropout": 1.0}])
def test_sizes_out_of_range_are_refused(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        ClassifierSizes(DIM, **change)

"""Each member treats each sequence by itself, as the formulas say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.fitting.networks import (
    AttentionNetwork,
    LstmNetwork,
    MlpNetwork,
    NetworkSizes,
    mean_over_patches,
)
from pipeline.fitting.recurrence import run_recurrence
from pipeline.fitting.sequences import Sequences

DIM = 6
KINDS = (LstmNetwork, AttentionNetwork, MlpNetwork)


def sequences_of(lengths, seed=0):
    values = np.random.default_rng(seed).normal(size=(sum(lengths), DIM)).astype(np.float32)
    return Sequences.from_arrays(values, np.cumsum([0, *lengths]))


def network(kind=LstmNetwork, seed=0, members=2, **sizes):
    made = kind(NetworkSizes(members, DIM, **{"hidden": 4, "dropout": 0.5, **sizes}))
    made.initialise(torch.Generator().manual_seed(seed))
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):  # which would hide a mistake while they are 0
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    return made.eval()


def logits_of(model, x, inside):
    """(M, B, C) of a batch (B, T, k) that all members see."""
    members = next(model.parameters()).shape[0]
    many = x.expand(members, *x.shape)
    with torch.inference_mode():
        return model(many, None if inside is None else inside.expand(many.shape[:3]))


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    kind=st.sampled_from(KINDS),
    bidirectional=st.booleans(),
    layers=st.integers(1, 2),
    projection=st.sampled_from([0, 5]),
    outputs=st.sampled_from([1, 3]),
)
def test_a_logit_does_not_depend_on_the_batch(
    lengths, kind, bidirectional, layers, projection, outputs
):
    data = sequences_of(lengths)
    sizes = {"layers": layers, "projection": projection, "outputs": outputs}
    model = network(kind, bidirectional=bidirectional, **sizes)
    together = logits_of(model, *data.batch(torch.arange(len(lengths))))
    alone = [logits_of(model, *data.batch(torch.tensor([i]))) for i in range(len(lengths))]
    assert together.shape == (2, len(lengths), outputs)
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_beyond_a_sequence_is_never_read(kind):
    data, model = sequences_of([2, 5]), network(kind)
    x, inside = data.batch(torch.tensor([0, 1]))
    changed = x.clone()
    changed[0, 2:] = 1e6
    assert torch.equal(logits_of(model, x, inside), logits_of(model, changed, inside))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_patches_matters_to_the_lstm_alone(kind):
    x, _ = sequences_of([5]).batch(torch.tensor([0]))
    forwards, backwards = (logits_of(network(kind), one, None) for one in (x, x.flip(1)))
    same = torch.allclose(forwards, backwards, atol=1e-6)
    assert same is (kind is not LstmNetwork)


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_does_not_depend_on_the_others(kind):
    data, model, other = sequences_of([2, 5]), network(kind), network(kind, seed=1)
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
            mine[0] = theirs[0]
    batch = data.batch(torch.tensor([0, 1]))
    first, second = logits_of(model, *batch), logits_of(other, *batch)
    torch.testing.assert_close(first[0], second[0], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(first[1], second[1])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_lstm_is_that_of_torch(layers, bidirectional):
    model = network(members=1, layers=layers, bidirectional=bidirectional)
    theirs = torch.nn.LSTM(DIM, 4, layers, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for layer, sides in enumerate(model.layers):
            for side, ours in enumerate(sides):
                place = f"l{layer}" + "_reverse" * side
                getattr(theirs, f"weight_ih_{place}").copy_(torch_gates(ours.inputs.weight[0]))
                getattr(theirs, f"weight_hh_{place}").copy_(torch_gates(ours.recurrence[0]))
                getattr(theirs, f"bias_ih_{place}").copy_(
                    torch_gates(ours.inputs.bias[0]).squeeze()
                )
                getattr(theirs, f"bias_hh_{place}").zero_()
    x, _ = sequences_of([7, 7]).batch(torch.tensor([0, 1]))
    with torch.inference_mode():
        states, _ = theirs(x)
        expected = states.mean(dim=1) @ model.logit.weight[0] + model.logit.bias[0]
    torch.testing.assert_close(logits_of(model, x, None)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_of_the_recurrence_is_that_of_its_formula(masked):
    """Against finite differences, in double precision."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    inside = torch.rand(4, 2, 3, 1, generator=generator) < 0.6 if masked else None
    assert torch.autograd.gradcheck(
        lambda gates, weights: run_recurrence(gates, weights, inside),
        (drawn(2, 4, 3, 8), drawn(2, 2, 8)),
    )


def torch_gates(weights):
    """Input, forget, output, candidate, (i, 4 h) → (4 h, i) with the last two exchanged."""
    enter, forget, leave, candidate = weights.chunk(4, dim=-1)
    return torch.cat([enter, forget, candidate, leave], dim=-1).T


def test_attention_is_the_formula_of_ilse_and_others():
    model = network(AttentionNetwork, members=1)
    x, _ = sequences_of([5]).batch(torch.tensor([0]))

    def affine(layer, values):
        return values @ layer.weight[0] + layer.bias[0]

    with torch.inference_mode():
        h = affine(model.embedding, x[0]).clamp_min(0)  # (T, w)
        gated = affine(model.content, h).tanh() * affine(model.gate, h).sigmoid()
        scores = affine(model.score, gated).exp()  # (T, 1)
        pooled = (scores / scores.sum() * h).sum(dim=0, keepdim=True)  # (1, w)
        expected = affine(model.logit, pooled)
    torch.testing.assert_close(logits_of(model, x, None)[0], expected, rtol=1e-5, atol=1e-6)


def test_the_mlp_sees_the_mean_of_the_patches():
    model = network(MlpNetwork, members=1)
    data = sequences_of([3, 5])
    x, inside = data.batch(torch.tensor([0, 1]))
    means = data.means()[:, None]  # (2, 1, k)
    torch.testing.assert_close(logits_of(model, x, inside), logits_of(model, means, None))


def test_the_mean_is_over_the_patches_inside():
    x = torch.tensor([[[[1.0], [3.0], [100.0]]]])
    inside = torch.tensor([[[True, True, False]]])
    assert mean_over_patches(x, inside).item() == 2
    assert mean_over_patches(x[:, :, :2], None).item() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_comes_from_the_generator_given_and_only_then(kind):
    model = network(kind)
    x, _ = sequences_of([4]).batch(torch.tensor([0]))
    many = x.expand(2, *x.shape)
    draws = [model(many, None, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    assert torch.equal(model(many, None), model(many, None))


def test_dropout_keeps_the_expected_value():
    model = network(dropout=0.25)
    dropped = model.drop(torch.ones(100_000), torch.Generator().manual_seed(0))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("projection", [0, 5])
def test_the_number_of_parameters_is_that_of_the_network(bidirectional, layers, projection):
    sizes = NetworkSizes(3, 7, 4, projection, 3, layers, bidirectional)
    counted = sum(parameter.numel() for parameter in LstmNetwork(sizes).parameters())
    assert sizes.parameters == counted


def test_equal_seeds_give_equal_weights_and_members_differ():
    first, second = network().state_dict(), network().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights = first["logit.weight"]
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("members", 0), ("members", 101), ("inputs", 0), ("hidden", 0), ("hidden", 8193)),
        *(("layers", 0), ("layers", True), ("outputs", 0), ("projection", -1), ("hidden", 2.0)),
        *(("dropout", 1.0), ("dropout", -0.1), ("dropout", float("nan")), ("dropout", "0")),
        *(("bidirectional", 1), ("bidirectional", None)),
    ],
)
def test_sizes_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=name):
        NetworkSizes(**{"members": 2, "inputs": DIM, name: value})

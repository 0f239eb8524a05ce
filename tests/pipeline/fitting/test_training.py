"""Members learn from their own images, and are stopped by those set aside."""

import math

import pytest
import torch
from torch.nn import functional

from pipeline.errors import PipelineError
from pipeline.fitting.networks import AttentionNetwork, LstmNetwork, MlpNetwork, NetworkSizes
from pipeline.fitting.options import FitOptions
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.training import (
    Member,
    Task,
    _Batches,
    _choose,
    _Look,
    _look_steps,
    class_weights,
    clearly_lower,
    cross_entropy,
    predict,
    shuffled_steps,
    train,
)

DIM = 3


def look(step, *by_case):
    losses = torch.tensor(by_case)
    return _Look(step, 0.0, float(losses.sum()), losses, {})


def task_of(images=24, signal=2.0, classes=2, **changes):
    """Image i is of case i // 2. Two members, each set aside what the other learns from.

    One image in three is of neither, as test images are.
    """
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(images) % classes
    lengths = torch.randint(1, 4, (images,), generator=generator)
    offsets = functional.pad(lengths.cumsum(0), (1, 0))
    values = torch.randn(int(offsets[-1]), DIM, generator=generator)
    values += signal * targets.repeat_interleave(lengths)[:, None]
    parts = torch.arange(images) // (2 * classes) % 3
    first, second = ((parts == k).nonzero()[:, 0] for k in range(2))
    fields = {
        "sequences": Sequences(values, offsets),
        "targets": targets,
        "cases": torch.arange(images) // 2,
        "members": [Member(first, second), Member(second, first)],
    }
    return Task(**{**fields, **changes})


def trained(task, seed=0, kind=LstmNetwork, outputs=1, **options):
    sizes = NetworkSizes(len(task.members), DIM, outputs, hidden=4)
    choices = {"steps": 30, "checks": 3, "learning_rate": 0.05, "batch_size": 8, **options}
    return train(kind(sizes), task, FitOptions(**choices), seed)


def test_an_earlier_step_that_is_better_beyond_doubt_is_kept():
    seen = [look(1, 0.9, 0.9, 0.9), look(2, 0.1, 0.1, 0.2), look(3, 0.5, 0.5, 0.5)]
    assert _choose(seen) is seen[1]


def test_the_last_step_is_kept_if_an_earlier_one_is_better_by_less_than_its_error():
    """The gains are 0.5, -0.2 and -0.2: their sum 0.1, its standard error 0.7."""
    seen = [look(1, 0.0, 0.7, 0.7), look(2, 0.5, 0.5, 0.5)]
    assert _choose(seen) is seen[1]


def test_the_last_step_is_kept_if_it_is_the_best_or_equal():
    seen = [look(1, 0.5, 0.5), look(2, 0.4, 0.4)]
    assert _choose(seen) is seen[1]
    assert _choose([look(1, 0.5, 0.5), seen[1], (last := look(3, 0.4, 0.4))]) is last


def test_one_case_leaves_doubt():
    assert _choose([look(1, 0.0), last := look(2, 9.0)]) is last


def test_the_standard_error_is_that_of_the_sum_over_cases():
    gains = torch.tensor([1.0, 2.0, 4.0, -2.0])
    error = gains.std() * math.sqrt(4)
    others = torch.full((4,), 5.0)
    for shift, expected in ((0.01, True), (-0.01, False)):
        moved = gains + (error - gains.sum() + shift) / 4
        assert clearly_lower(others - moved, others) is expected


@pytest.mark.parametrize(
    ("options", "images", "expected"),
    [
        ({"steps": 10, "checks": 4}, 24, [3, 5, 8, 10]),
        ({"steps": 3, "checks": 8}, 24, [1, 2, 3]),
        ({"checks": 2}, 24, [50, 100]),
        ({"checks": 1, "batch_size": 4}, 120, [100]),
        ({"checks": 1, "batch_size": 1}, 120, [400]),
    ],
)
def test_looks_are_even_and_end_with_the_last_step(options, images, expected):
    assert _look_steps(task_of(images), FitOptions(**options)) == expected


def test_batches_go_through_all_images_of_a_member_before_one_comes_again():
    members = [
        Member(torch.tensor([3, 5, 7, 9]), torch.tensor([0])),
        Member(torch.tensor([1, 2]), torch.tensor([0])),
    ]
    batches = _Batches(task_of(members=members), 4, torch.Generator().manual_seed(0))
    for _ in range(3):
        drawn = batches.draw()
        assert drawn.shape == (2, 4)
        assert sorted(drawn[0].tolist()) == [3, 5, 7, 9]
        assert sorted(drawn[1].tolist()) == [1, 1, 2, 2]


def test_a_batch_larger_than_all_images_holds_them_again():
    members = [Member(torch.tensor([3, 5]), torch.tensor([0]))]
    batches = _Batches(task_of(members=members), 5, torch.Generator().manual_seed(0))
    drawn = torch.cat([batches.draw()[0] for _ in range(2)])
    assert torch.bincount(drawn).tolist() == [0, 0, 0, 5, 0, 5]


def test_shuffled_steps_keep_the_patches_of_each_image():
    data = task_of(9).sequences
    x, inside = data.batch(torch.arange(9))
    x, inside = x.expand(2, *x.shape), inside.expand(2, *inside.shape)
    moved, still = shuffled_steps(x, inside, torch.Generator().manual_seed(0))
    assert torch.equal(still, inside)
    assert not moved[~inside].any()
    for member in range(2):
        for image in range(9):
            before, after = (
                sorted(map(tuple, values[member, image][inside[member, image]].tolist()))
                for values in (x, moved)
            )
            assert before == after
    assert not torch.equal(moved, x)
    assert not torch.equal(moved[0], moved[1])


def test_class_weights_make_classes_count_alike():
    targets = torch.tensor([0, 0, 0, 2])
    weights = class_weights(targets)
    assert weights[targets].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert weights[targets].sum().item() == pytest.approx(len(targets))


def test_two_classes_with_one_logit_have_the_loss_of_two():
    logits = torch.randn(4, 5, 1)
    targets = torch.randint(2, (4, 5))
    both = torch.cat([torch.zeros_like(logits), logits], dim=-1)
    torch.testing.assert_close(cross_entropy(logits, targets), cross_entropy(both, targets))


@pytest.mark.parametrize("kind", [LstmNetwork, MlpNetwork])
@pytest.mark.parametrize("classes", [2, 3])
def test_what_can_be_told_apart_is(kind, classes):
    task = task_of(54, classes=classes, signal=3.0)
    found = trained(task, kind=kind, outputs=1 if classes == 2 else classes, steps=60)
    calls = (found.logits[:, 0] > 0).long() if classes == 2 else found.logits.argmax(dim=1)
    assert (calls == task.targets).float().mean() > 0.85
    assert found.history[-1].train_loss < 0.6


def test_training_repeats_and_depends_on_its_seed():
    first, second, other = (trained(task_of(), seed).logits for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_training_leaves_the_shared_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    trained(task_of())
    assert torch.equal(torch.get_rng_state(), state)


def test_targets_outside_the_members_are_not_looked_at():
    task = task_of()
    outside = torch.ones(24, dtype=torch.bool)
    for member in task.members:
        outside[member.training] = outside[member.aside] = False
    assert outside.any()
    changed = torch.where(outside, 1 - task.targets, task.targets)
    first, second = trained(task), trained(task_of(targets=changed))
    assert torch.equal(first.logits, second.logits)
    assert first.history == second.history


def test_an_image_set_aside_is_judged_by_the_members_that_did_not_learn_from_it():
    task = task_of()
    found = trained(task)
    each = predict(found.network, task.sequences, torch.arange(24))  # (M, N, C)
    torch.testing.assert_close(found.logits, each.mean(dim=0))
    judged = torch.zeros(24, dtype=torch.bool)
    for number, member in enumerate(task.members):
        torch.testing.assert_close(found.aside[member.aside], each[number, member.aside])
        judged[member.aside] = True
    assert found.aside[~judged].isnan().all()
    assert not found.network.training


def test_the_history_says_which_step_was_kept():
    found = trained(task_of())
    assert [check.step for check in found.history] == [10, 20, 30]
    kept = [check for check in found.history if check.best]
    assert len(kept) == 1
    assert float(found.by_case.sum()) == pytest.approx(kept[0].val_loss, rel=1e-5)


def test_a_loss_that_is_not_finite_is_an_error():
    task = task_of()
    task.sequences.values[0] = float("inf")
    with pytest.raises(PipelineError, match=r"step \d+: the loss is not finite: lower the"):
        trained(task)


def long_task(most, lengths=(1, 40), images=24):
    """As `task_of`, with sequences of some length."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(images) % 2
    sizes = torch.randint(*lengths, (images,), generator=generator)
    offsets = functional.pad(sizes.cumsum(0), (1, 0))
    values = torch.randn(int(offsets[-1]), DIM, generator=generator)
    values += 1.5 * targets.repeat_interleave(sizes)[:, None]
    return task_of(images, sequences=Sequences(values, offsets, most), targets=targets)


@pytest.mark.parametrize("own", [False, True])
def test_a_long_image_has_the_mean_logits_of_its_parts(own, monkeypatch):
    task = long_task(7)
    network = LstmNetwork(NetworkSizes(2, DIM, 1, hidden=4)).eval()
    network.initialise(torch.Generator().manual_seed(0))
    images = torch.tensor([[5, 0, 7], [1, 5, 5]]) if own else torch.tensor([5, 0, 7, 5])
    found = predict(network, task.sequences, images)
    for member in range(2):
        for position, image in enumerate((images[member] if own else images).tolist()):
            rows = task.sequences.values[slice(*task.sequences.offsets[image : image + 2])]
            parts = -(-len(rows) // 7)
            said = [network(rows[p::parts].expand(2, 1, -1, DIM), None) for p in range(parts)]
            expected = torch.stack(said).mean(dim=0)[member, 0]
            torch.testing.assert_close(found[member, position], expected)
    monkeypatch.setattr("pipeline.fitting.training._PREDICT_STEPS", 20)
    torch.testing.assert_close(predict(network, task.sequences, images), found)


@pytest.mark.parametrize("kind", [LstmNetwork, AttentionNetwork])
def test_images_of_long_sequences_are_learnt_from_parts(kind):
    task = long_task(8, (200, 400))
    result = trained(task, kind=kind, steps=60)
    assert task.sequences.parts.min() >= 25
    called = (result.logits[:, 0] > 0).long()
    assert (called == task.targets).float().mean() > 0.9


def test_a_part_is_another_one_in_each_step_and_the_same_with_the_same_seed():
    task = long_task(8, (100, 200))
    first, again, other = (trained(task, seed=seed).logits for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

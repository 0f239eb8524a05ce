"""Train the members of one fold side by side, and stop them by the images set aside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional

from pipeline.errors import PipelineError
from pipeline.fitting.adamw import AdamW
from pipeline.fitting.networks import Network
from pipeline.fitting.options import FitOptions
from pipeline.fitting.sequences import Sequences

_PREDICT_BATCH = 512
_PREDICT_STEPS = 1 << 14
_LEAST_STEPS = 100
_PASSES = 10


class Member(NamedTuple):
    """What one member learns from and is stopped by: positions (n,) of images, (v,) set aside."""

    training: torch.Tensor
    aside: torch.Tensor


class Check(NamedTuple):
    """One line of a training history; losses are class-balanced cross-entropies in nats."""

    step: int
    train_loss: float
    val_loss: float
    best: bool


@dataclass(frozen=True)
class Trained:
    """A network, and what it says.

    Attributes:
        network: in evaluation mode, of the step that was kept.
        logits: (N, C) of all images, averaged over the members.
        aside: (N, C) of the images set aside, averaged over the members that did not learn from
            them; not a number elsewhere.
        by_case: (G,) the share of each case in the loss on the images set aside.
        history: of the losses.
    """

    network: Network
    logits: torch.Tensor
    aside: torch.Tensor
    by_case: torch.Tensor
    history: list[Check]


@dataclass(frozen=True)
class Task:
    """What is learnt.

    Attributes:
        sequences: the inputs of N images.
        targets: (N,) int64 classes; those of images outside the members are not looked at.
        cases: (N,) int64, the patient of each image, by number.
        members: who learns from what.
        shuffled: whether each training step shuffles the patches of an image.
    """

    sequences: Sequences
    targets: torch.Tensor
    cases: torch.Tensor
    members: Sequence[Member]
    shuffled: bool = False


def train(network: Network, task: Task, options: FitOptions, seed: int) -> Trained:
    """Train, and keep the last step, or an earlier one that is better beyond doubt.

    All members stop at the same step, judged by all images set aside, each by members that did
    not learn from it. A few cases say little about the best step: taking that of the least loss
    made the test loss of 25 folds worse (Brier score 0.179 against 0.154). So an earlier step is
    kept only if its loss is lower by more than one standard error over cases of the difference,
    after the rule of Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.

    Args:
        network: with a first axis of `len(task.members)`; initialised here.
        task: see `Task`.
        options: how to train.
        seed: of initial weights, order of images and dropout.

    Raises:
        PipelineError: the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    network.initialise(generator)
    optimiser = AdamW(network.parameters(), options.learning_rate, options.weight_decay)
    batches = _Batches(task, options.batch_size, generator)
    weights = [class_weights(task.targets[member.training]) for member in task.members]
    member_weights = _padded(weights)  # (M, classes)
    judge = _Judge(task, member_weights)
    looks = _look_steps(task, options)
    seen: list[_Look] = []
    total, since = 0.0, 0
    network.train()
    for step in range(1, looks[-1] + 1):
        loss = _loss(network, task, batches.draw(), member_weights, generator)
        optimiser.step(loss)
        total, since = total + loss.item() / len(task.members), since + 1
        if step in looks:
            seen.append(judge.look(step, total / since, network))
            total, since = 0.0, 0
    kept = _choose(seen)
    network.load_state_dict(kept.state)
    network.eval()
    logits = predict(network, task.sequences, torch.arange(len(task.sequences)))  # (M, N, C)
    history = [Check(one.step, one.train_loss, one.val_loss, one is kept) for one in seen]
    return Trained(network, logits.mean(dim=0), judge.aside(logits), kept.by_case, history)


def _look_steps(task: Task, options: FitOptions) -> list[int]:
    """The steps after which the images set aside are looked at; the last is the end."""
    steps = options.steps
    if not steps:
        images = max(len(member.training) for member in task.members)
        steps = max(_LEAST_STEPS, math.ceil(_PASSES * images / options.batch_size))
    return sorted({math.ceil(steps * k / options.checks) for k in range(1, options.checks + 1)})


class _Look(NamedTuple):
    """One look at the images set aside: losses, by case too (G,), and the state then."""

    step: int
    train_loss: float
    val_loss: float
    by_case: torch.Tensor
    state: dict[str, torch.Tensor]


def _choose(seen: Sequence[_Look]) -> _Look:
    """The last look, or the one of the least loss if that is lower beyond doubt."""
    last = seen[-1]
    least = min(seen, key=lambda look: look.val_loss)
    return least if clearly_lower(least.by_case, last.by_case) else last


def clearly_lower(losses: torch.Tensor, others: torch.Tensor) -> bool:
    """Whether losses (G,) sum to less than others (G,) by over one standard error over cases."""
    gain = others - losses  # (G,)
    if len(gain) < 2:
        return False
    return bool(gain.sum() > gain.std() * math.sqrt(len(gain)))


def class_weights(targets: torch.Tensor) -> torch.Tensor:
    """(classes,) weights that make the totals of all classes that occur equal."""
    counts = torch.bincount(targets)
    return len(targets) / (int((counts > 0).sum()) * counts.clamp_min(1).float())


def _padded(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    longest = max(map(len, weights))
    return torch.stack([functional.pad(w, (0, longest - len(w)), value=1.0) for w in weights])


class _Batches:
    """Endless shuffled batches for each member."""

    def __init__(self, task: Task, size: int, generator: torch.Generator) -> None:
        self._size, self._generator = size, generator
        self._images = [member.training for member in task.members]
        self._waiting = [torch.empty(0, dtype=torch.int64) for _ in self._images]

    def draw(self) -> torch.Tensor:
        """(M, B) the next images of each member."""
        rows = []
        for number, images in enumerate(self._images):
            waiting = self._waiting[number]
            while len(waiting) < self._size:
                order = torch.randperm(len(images), generator=self._generator)
                waiting = torch.cat([waiting, images[order]])
            rows.append(waiting[: self._size])
            self._waiting[number] = waiting[self._size :]
        return torch.stack(rows)


def _loss(
    network: Network,
    task: Task,
    images: torch.Tensor,
    weights: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """The sum over members of the mean loss over their batch."""
    x, inside = task.sequences.draw(images, generator)  # (M, B, T, k)
    if task.shuffled:
        x, inside = shuffled_steps(x, inside, generator)
    logits = network(x, inside, generator)  # (M, B, C)
    targets = task.targets[images]  # (M, B)
    losses = cross_entropy(logits, targets) * weights.gather(1, targets)  # (M, B)
    return losses.mean(dim=1).sum()


def shuffled_steps(
    x: torch.Tensor, inside: torch.Tensor | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Put the steps of each sequence of (M, B, T, k) in a random order of its own."""
    keys = torch.rand(x.shape[:3], generator=generator)  # (M, B, T)
    if inside is not None:
        keys = keys + ~inside  # what is beyond the end stays there
    order = keys.argsort(dim=-1)  # (M, B, T)
    return x.gather(2, order[..., None].expand_as(x)), inside


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Losses (…) in nats of logits (…, C), C = 1 for two classes, against classes (…)."""
    if logits.shape[-1] == 1:
        return functional.binary_cross_entropy_with_logits(
            logits.squeeze(-1), targets.float(), reduction="none"
        )
    return functional.cross_entropy(logits.movedim(-1, 1), targets, reduction="none")


class _Judge:
    """Looks at the images set aside, each member at its own."""

    def __init__(self, task: Task, weights: torch.Tensor) -> None:
        self._task = task
        self._aside = torch.zeros(len(task.members), len(task.sequences), dtype=torch.bool)
        for number, member in enumerate(task.members):
            self._aside[number, member.aside] = True
        parts = [member.aside for member in task.members]
        longest = max(map(len, parts))
        # Members with fewer images repeat their last one, which counts once.
        self._judged = torch.stack(
            [torch.cat([part, part[-1:].expand(longest - len(part))]) for part in parts]
        )  # (M, J)
        counts = torch.arange(longest) < torch.tensor([[len(part)] for part in parts])  # (M, J)
        self._targets = task.targets[self._judged]  # (M, J)
        shares = weights.gather(1, self._targets) * counts  # (M, J)
        self._shares = shares / shares.sum()
        _, self._case = torch.unique(task.cases[self._judged], return_inverse=True)  # (M, J)

    def look(self, step: int, train_loss: float, network: Network) -> _Look:
        """The class-balanced loss over all images set aside, in nats.

        Raises:
            PipelineError: a loss is not finite.
        """
        network.eval()
        logits = predict(network, self._task.sequences, self._judged)  # (M, J, C)
        network.train()
        losses = (cross_entropy(logits, self._targets) * self._shares).flatten()  # (M * J,)
        by_case = torch.zeros(int(self._case.max()) + 1)  # (G,)
        by_case.index_add_(0, self._case.flatten(), losses)
        total = float(losses.sum())
        if not math.isfinite(train_loss + total):
            raise PipelineError(f"step {step}: the loss is not finite: lower the learning rate")
        state = {name: value.clone() for name, value in network.state_dict().items()}
        return _Look(step, train_loss, total, by_case, state)

    def aside(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, C) the mean of (M, N, C) over the members that did not learn from an image."""
        judges = self._aside[..., None]  # (M, N, 1)
        return (logits * judges).sum(dim=0) / judges.sum(dim=0)


def predict(network: Network, sequences: Sequences, images: torch.Tensor) -> torch.Tensor:
    """Logits (M, n, C) of images (n,), or each member's own (M, n), in evaluation mode.

    Of an image that is read in parts, the mean over all of them.
    """
    if not sequences.has_parts:
        return _predict(network, sequences, images, None)
    different, place = torch.unique(images, return_inverse=True)  # (u,), as images
    image, part = sequences.all_parts(different)  # (q,)
    said = _predict(network, sequences, different[image], part)  # (M, q, C)
    sums = said.new_zeros(said.shape[0], len(different), said.shape[2]).index_add_(1, image, said)
    means = sums / sequences.parts[different][:, None]  # (M, u, C)
    if images.ndim == 1:
        return means[:, place]
    return means.gather(1, place[..., None].expand(*place.shape, means.shape[2]))


def _predict(
    network: Network, sequences: Sequences, images: torch.Tensor, part: torch.Tensor | None
) -> torch.Tensor:
    """Logits (M, n, C) of one part of each image."""
    members = next(network.parameters()).shape[0]
    at_once = max(1, min(_PREDICT_BATCH, _PREDICT_STEPS // sequences.longest_part))
    said = []
    with torch.inference_mode():
        for number, some in enumerate(torch.split(images, at_once, dim=-1)):
            start = number * at_once
            own = None if part is None else part[start : start + at_once]
            x, inside = sequences.batch(some, own)  # (n, T, k) or (M, n, T, k)
            many = x.expand(members, *x.shape[-3:])  # (M, n, T, k)
            said.append(network(many, None if inside is None else inside.expand(many.shape[:3])))
    return torch.cat(said, dim=1)

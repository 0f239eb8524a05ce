"""Train one classifier on one fold's roles."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.errors import PipelineError, UsageError
from pipeline.fitting.classifier import ClassifierSizes, LstmClassifier
from pipeline.fitting.sequences import Sequences

_PREDICT_BATCH = 512

MAX_SEED = 2**32


@dataclass(frozen=True)
class TrainOptions:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the training images, at most.
        min_epochs: the pass from which the best one is looked for. A validation part of one or
            two cases has its least loss after very few passes, when little is learnt yet.
        patience: passes without a better validation loss before training stops.
        batch_size: images a step.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        seed: of the initial weights, the order of images and the dropout.
    """

    epochs: int = 60
    min_epochs: int = 20
    patience: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "min_epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.min_epochs > self.epochs:
            raise UsageError(f"min_epochs is {self.min_epochs}, expected at most {self.epochs}")
        if not 0 < self.learning_rate <= 10:
            raise UsageError(f"learning_rate is {self.learning_rate}, expected above 0, at most 10")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay is {self.weight_decay}, expected 0 or more")
        if not 0 <= self.seed < MAX_SEED:
            raise UsageError(f"seed is {self.seed}, expected 0 to {MAX_SEED - 1}")


class Epoch(NamedTuple):
    """One line of a training history; losses are class-balanced cross-entropies in nats."""

    epoch: int
    train_loss: float
    val_loss: float
    best: bool


class Examples(NamedTuple):
    """Some images of a fold: positions (n,) and targets (n,), 1.0 for the positive label."""

    images: torch.Tensor
    targets: torch.Tensor


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Seed torch for the block and compute on one thread, so that sums have one order.

    The steps are too small for more threads to help. Both settings are put back afterwards.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def train(
    sequences: Sequences,
    training: Examples,
    validation: Examples,
    sizes: ClassifierSizes,
    options: TrainOptions,
) -> tuple[LstmClassifier, list[Epoch]]:
    """Train until the validation loss has stopped falling, and keep the best epoch.

    Returns:
        The classifier of the best epoch, in evaluation mode, and the history.

    Raises:
        PipelineError: the loss is no longer finite.
    """
    network = LstmClassifier(sizes)
    network.standardise_by(sequences.patches_of(training.images))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    weights = _class_weights(training.targets)
    history: list[Epoch] = []
    best_loss, best_epoch, best_state = math.inf, options.min_epochs, network.state_dict()
    for epoch in range(1, options.epochs + 1):
        train_loss = _one_pass(network, optimiser, sequences, training, weights, options)
        logits = predict_logits(network, sequences, validation.images)
        val_loss = _loss(logits, validation.targets, weights).item()
        if not math.isfinite(train_loss + val_loss):
            raise PipelineError(f"epoch {epoch}: the loss is not finite: lower the learning rate")
        best = epoch >= options.min_epochs and val_loss < best_loss
        history.append(Epoch(epoch, train_loss, val_loss, best))
        if best:
            best_loss, best_epoch = val_loss, epoch
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
        elif epoch - best_epoch >= options.patience:
            break
    network.load_state_dict(best_state)
    return network.eval(), history


def predict_logits(
    network: LstmClassifier, sequences: Sequences, images: torch.Tensor
) -> torch.Tensor:
    """Logits (n,) of some images, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        parts = [network(*sequences.batch(part)) for part in torch.split(images, _PREDICT_BATCH)]
    return torch.cat(parts)


def _one_pass(
    network: LstmClassifier,
    optimiser: torch.optim.Optimizer,
    sequences: Sequences,
    training: Examples,
    weights: torch.Tensor,
    options: TrainOptions,
) -> float:
    network.train()
    total = 0.0
    order = torch.randperm(len(training.images))
    for part in torch.split(order, options.batch_size):
        logits = network(*sequences.batch(training.images[part]))  # (B,)
        loss = _loss(logits, training.targets[part], weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item() * len(part)
    return total / len(order)


def _class_weights(targets: torch.Tensor) -> torch.Tensor:
    """(2,) weights of the negative and positive class that make their totals equal."""
    counts = torch.bincount(targets.long(), minlength=2)
    return len(targets) / (2.0 * counts)


def _loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return binary_cross_entropy_with_logits(logits, targets, weight=weights[targets.long()])

"""The baselines beside the LSTM: same folds, same images set aside, same features."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.fitting.development import Development
from pipeline.fitting.locked import Fitted
from pipeline.fitting.networks import (
    AttentionNetwork,
    LstmNetwork,
    MlpNetwork,
    Network,
    NetworkSizes,
)
from pipeline.fitting.options import FitOptions
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.study import Study
from pipeline.fitting.training import Member, Task, train

_STRENGTH = 1.0
"""Inverse regularisation of logistic regression, scikit-learn's own default. Chosen by the loss on
images set aside, of so few cases, it was worse for both baselines."""

_NEVER = -30.0
"""Logit of a class that a model never saw."""

Companion = Callable[[Study, Development, Sequences, NetworkSizes, FitOptions, int], Fitted | None]


def fit_network(
    build: Callable[[NetworkSizes], Network],
    study: Study,
    development: Development,
    inputs: Sequences,
    sizes: NetworkSizes,
    options: FitOptions,
    seed: int,
) -> Fitted:
    """Train a network on the inputs of a fold, and keep what it says."""
    task = Task(inputs, study.targets, study.cases, development.members)
    trained = train(build(sizes), task, options, seed)
    return Fitted.of(trained.logits, trained.aside, trained.history)


def attention(
    study: Study,
    development: Development,
    inputs: Sequences,
    sizes: NetworkSizes,
    options: FitOptions,
    seed: int,
) -> Fitted:
    """Gated attention pooling."""
    return fit_network(AttentionNetwork, study, development, inputs, sizes, options, seed)


def mean_pool_mlp(
    study: Study,
    development: Development,
    inputs: Sequences,
    sizes: NetworkSizes,
    options: FitOptions,
    seed: int,
) -> Fitted:
    """An MLP on the mean of the patches."""
    pooled = Sequences(inputs.means(), torch.arange(len(inputs) + 1))
    return fit_network(MlpNetwork, study, development, pooled, sizes, options, seed)


def permuted_lstm(
    study: Study,
    development: Development,
    inputs: Sequences,
    sizes: NetworkSizes,
    options: FitOptions,
    seed: int,
) -> Fitted:
    """The LSTM on patches without their order: another one in each step, a random one after."""
    order = torch.Generator().manual_seed(seed)
    task = Task(
        inputs.permuted(order), study.targets, study.cases, development.members, shuffled=True
    )
    trained = train(LstmNetwork(sizes), task, options, seed)
    return Fitted.of(trained.logits, trained.aside, trained.history)


def mean_pool_logistic(
    study: Study,
    development: Development,
    inputs: Sequences,
    sizes: NetworkSizes,
    options: FitOptions,
    seed: int,
) -> Fitted:
    """Logistic regression on the mean of the patches' inputs."""
    del sizes, options, seed
    return fit_logistic(inputs.means().double().numpy(), study, development)


def colour(
    study: Study,
    development: Development,
    inputs: Sequences,
    sizes: NetworkSizes,
    options: FitOptions,
    seed: int,
) -> Fitted | None:
    """Logistic regression on colour statistics; None if the cache holds none."""
    del inputs, sizes, options, seed
    if study.statistics is None:
        return None
    values = study.statistics.colour.astype(np.float64)  # (N, 12)
    known = values[development.images.numpy()]
    spread = np.maximum(known.std(axis=0), 1e-6)  # (12,)
    return fit_logistic((values - known.mean(axis=0)) / spread, study, development)


FITTED_BESIDE: dict[str, Companion] = {
    "mean_pool_logistic": mean_pool_logistic,
    "mean_pool_mlp": mean_pool_mlp,
    "attention": attention,
    "permuted_lstm": permuted_lstm,
    "colour": colour,
}


def fit_logistic(inputs: NDArray[np.float64], study: Study, development: Development) -> Fitted:
    """Fit logistic regressions (N, d) → classes, one a member, and average their logits."""
    members = development.members
    logits = np.stack([_member_logits(inputs, study, member) for member in members])  # (M, N, C)
    aside = np.full(logits.shape[1:], np.nan)
    for number, member in enumerate(members):
        aside[member.aside.numpy()] = logits[number, member.aside.numpy()]
    return Fitted(logits.mean(axis=0), aside, [])


def _member_logits(
    inputs: NDArray[np.float64], study: Study, member: Member
) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    images, targets = member.training.numpy(), study.targets.numpy()
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000)
    model.fit(inputs[images], targets[images])
    decided = model.decision_function(inputs)  # (N,) or (N, classes that occur)
    if study.outputs == 1:
        return np.asarray(decided[:, None])
    logits = np.full((len(inputs), study.outputs), _NEVER)
    if decided.ndim == 1:
        decided = np.stack([-decided / 2, decided / 2], axis=1)
    logits[:, model.classes_] = decided
    return logits

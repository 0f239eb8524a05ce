"""One fold: whiten, train the members and their companions, and lock what they answer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pipeline.errors import UsageError
from pipeline.fitting.companions import FITTED_BESIDE
from pipeline.fitting.development import Development, develop
from pipeline.fitting.familiar import Familiar, fit_familiar
from pipeline.fitting.locked import Fitted, Locked, lock
from pipeline.fitting.networks import LstmNetwork, NetworkSizes
from pipeline.fitting.options import FitOptions
from pipeline.fitting.record import IMAGE_LEVEL
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.study import Study, choose_columns
from pipeline.fitting.training import Task, clearly_lower, train
from pipeline.fitting.whitening import Whitening, fit_whitening
from pipeline.splits.table import Splits


@dataclass(frozen=True)
class FoldFit:
    """What was fitted in one fold.

    Attributes:
        whitening: features to inputs.
        network: the LSTM's members.
        familiar: the images it was fitted to.
        chosen: the one of the tries that made it; empty for none of them.
        lstm: what it says.
        companions: what they say, and the roles that they are tested by.
        notes: what a reader must know.
    """

    whitening: Whitening
    network: LstmNetwork
    familiar: Familiar
    chosen: str
    lstm: Locked
    companions: Mapping[str, tuple[Locked, Mapping[str, str]]]
    notes: tuple[str, ...]


def fit_fold(study: Study, fold: int, options: FitOptions, twin: Splits | None) -> FoldFit:
    """Fit all models of a fold. Nothing depends on the images it tests, but what is said of them.

    Args:
        study: the images.
        fold: which.
        options: what is fitted.
        twin: image-level splits to fit the same LSTM by, fold `fold` modulo theirs; or None.
    """
    roles, group_by = study.splits.roles(fold), study.splits.group_by
    seed = _seed(options, fold)
    development = develop(study, roles, group_by, options, [options.seed, fold])
    best = _fit_best(study, development, options, seed)
    inputs, sizes = _whitened(study, best.whitening, options), best.network.sizes
    companions: dict[str, tuple[Locked, Mapping[str, str]]] = {}
    if options.companions:
        for name, fit in FITTED_BESIDE.items():
            found = fit(study, development, inputs, sizes, best.options, seed)
            if found is not None:
                companions[name] = lock(found, study.targets, study.cases), roles
    if twin is not None:
        theirs = twin.roles(fold % len(twin.folds))
        leaking = develop(study, theirs, "image", options, [options.seed, fold])
        said = _fit_best(study, leaking, options, seed).said
        companions[IMAGE_LEVEL] = lock(said, study.targets, study.cases), theirs
    return FoldFit(
        whitening=best.whitening,
        network=best.network,
        familiar=fit_familiar(inputs.means()[development.images], study.cases[development.images]),
        chosen=best.text,
        lstm=lock(best.said, study.targets, study.cases),
        companions=companions,
        notes=_notes(study, development, roles, fold),
    )


def _seed(options: FitOptions, fold: int) -> int:
    return options.seed * 10_007 + fold


@dataclass(frozen=True)
class _Candidate:
    """An LSTM fitted with some choices, and what made it so."""

    text: str
    options: FitOptions
    whitening: Whitening
    network: LstmNetwork
    by_case: torch.Tensor
    said: Fitted


def _fit_best(study: Study, development: Development, options: FitOptions, seed: int) -> _Candidate:
    """The LSTM with the choices given, or with those of a try that is better beyond doubt."""
    features = study.features.patches_of(development.images)  # (p, D)
    found = [
        _fit_lstm(study, development, features, text, choices, seed)
        for text, choices in zip(("", *options.tries), options.alternatives(), strict=True)
    ]
    least = min(found, key=lambda candidate: float(candidate.by_case.sum()))
    return least if clearly_lower(least.by_case, found[0].by_case) else found[0]


def _fit_lstm(
    study: Study,
    development: Development,
    features: torch.Tensor,
    text: str,
    options: FitOptions,
    seed: int,
) -> _Candidate:
    whitening = fit_whitening(features, choose_columns(study.recipe, options), options)
    network = LstmNetwork(_sizes(study, len(development.members), whitening.size, options))
    inputs = _whitened(study, whitening, options)
    task = Task(inputs, study.targets, study.cases, development.members)
    trained = train(network, task, options, seed)
    said = Fitted.of(trained.logits, trained.aside, trained.history)
    return _Candidate(text, options, whitening, network, trained.by_case, said)


def _whitened(study: Study, whitening: Whitening, options: FitOptions) -> Sequences:
    values = whitening.apply(study.features.values)
    return Sequences(values, study.features.offsets, options.sequence_length)


def _sizes(study: Study, members: int, inputs: int, options: FitOptions) -> NetworkSizes:
    return NetworkSizes(
        members=members,
        inputs=inputs,
        outputs=study.outputs,
        projection=options.projection,
        hidden=options.hidden,
        layers=options.lstm_layers,
        bidirectional=options.bidirectional,
        dropout=options.dropout,
    )


def check_sizes(study: Study, options: FitOptions) -> None:
    """Check, before anything is fitted, that the networks are not too large.

    Raises:
        UsageError: they are.
    """
    for choices in options.alternatives():
        width = len(choose_columns(study.recipe, choices))
        _sizes(study, choices.members, min(choices.components or width, width), choices)
    if options.train_magnification not in {0, *(row.magnification for row in study.rows)}:
        raise UsageError(
            f"train_magnification is {options.train_magnification}, the cache has "
            f"{sorted({row.magnification for row in study.rows})}"
        )


def _notes(
    study: Study, development: Development, roles: Mapping[str, str], fold: int
) -> tuple[str, ...]:
    learnt = set(study.targets[torch.cat([m.training for m in development.members])].tolist())
    tested = {
        int(study.targets[i])
        for i, row in enumerate(study.rows)
        if roles.get(row.image_id) == "test"
    }
    return tuple(
        f"fold {fold}: no training image of class {study.classes[number]}, which it tests: "
        "every such image counts as wrong"
        for number in sorted(tested - learnt)
    )

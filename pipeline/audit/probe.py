"""A quick classifier that shows by how much a split flatters."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.schema import ImageRow
from pipeline.errors import UsageError
from pipeline.splits.make import make_splits
from pipeline.splits.table import Splits

MAX_TRAIN = 5000
"""Images that the classifier learns from in one fold; of more, so many are drawn."""

MAX_FOLDS = 10

_STRENGTH = 0.1
"""Inverse strength of the L2 penalty, on standardised features."""

GIVEN = "the given split"
_MADE = {
    "image": "image-level split",
    "case": "case-disjoint split",
    "slide": "slide-disjoint split",
}


@dataclass(frozen=True)
class Claim:
    """What the classifier reaches under one split.

    Attributes:
        split: which one.
        accuracy: fraction of the tested images that it names rightly; None if it was not fitted.
        images: how many were tested.
        folds: in how many folds.
        reason: why it was not fitted, if so.
    """

    split: str
    accuracy: float | None
    images: int
    folds: int
    reason: str = ""


@dataclass(frozen=True)
class Probe:
    """What the same classifier claims under several splits of the same images."""

    claims: tuple[Claim, ...]

    def values(self) -> dict[str, Any]:
        """The claims for JSON."""
        return {"model": _MODEL, "claims": [asdict(claim) for claim in self.claims]}

    def lines(self) -> list[str]:
        """The claims for a person, and what they mean."""
        lines = [f"What a quick classifier ({_MODEL}) claims:"]
        for claim in self.claims:
            result = f"not fitted: {claim.reason}"
            if claim.accuracy is not None:
                result = f"accuracy {claim.accuracy:.3f} ({claim.images:,} test images)"
            lines.append(f"  {claim.split:<20} {result}")
        accuracy = {claim.split: claim.accuracy for claim in self.claims}
        given, last = accuracy.get(GIVEN), self.claims[-1]
        if given is not None and last.accuracy is not None:
            lines.append(
                f"The given split differs from the {last.split} by {given - last.accuracy:+.3f}. "
                "`pipeline evaluate` has the numbers of the full model, with intervals."
            )
        return lines


_MODEL = "logistic regression on mean-pooled features"


def probe(features: NDArray[np.float32], rows: Sequence[ImageRow], splits: Splits) -> Probe:
    """Fit the classifier under an image-level, the given and a case-disjoint split.

    Where a case is not known, a slide-disjoint split takes the place of the last. Only the first
    repeat of the given split counts, and of it the first `MAX_FOLDS` folds; the
    other two have as many folds, five at most. Training and validation parts train together.

    Args:
        features: (N, D) one vector an image.
        rows: the images, N.
        splits: the given split, which may name some of the images only.
    """
    given = splits.table[: min(splits.repeats.count(splits.repeats[0]), MAX_FOLDS)]
    folds = int(np.clip(len(given), 2, 5))
    claims = [
        _made(features, rows, folds, "image"),
        _claim(GIVEN, features, rows, given),
        _made(features, rows, folds, "case" if all(row.case for row in rows) else "slide"),
    ]
    return Probe(tuple(claims))


def _made(
    features: NDArray[np.float32], rows: Sequence[ImageRow], folds: int, group_by: str
) -> Claim:
    """The claim under a split that is made here."""
    name = _MADE[group_by]
    try:
        splits = make_splits(rows, folds=folds, group_by=group_by)
    except UsageError as error:
        return Claim(name, None, 0, 0, str(error))
    return _claim(name, features, rows, splits.table)


def _claim(
    name: str,
    features: NDArray[np.float32],
    rows: Sequence[ImageRow],
    table: Sequence[Mapping[str, str]],
) -> Claim:
    labels = np.array([row.label for row in rows], object)
    right, tested, fitted = 0, 0, 0
    for number, roles in enumerate(table):
        found = np.array([roles.get(row.image_id, "") for row in rows], object)
        test = np.flatnonzero(found == "test")
        train = _drawn(np.flatnonzero((found == "train") | (found == "val")), number)
        if not len(test) or len(set(labels[train])) < 2:
            continue
        called = _called(features, train, labels[train], test)
        right += int((called == labels[test]).sum())
        tested += len(test)
        fitted += 1
    if not fitted:
        return Claim(name, None, 0, 0, "no fold has test images and two labels in training")
    return Claim(name, right / tested, tested, fitted)


def _drawn(train: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    if len(train) <= MAX_TRAIN:
        return train
    return np.sort(np.random.default_rng(seed).choice(train, MAX_TRAIN, replace=False))


def _called(
    features: NDArray[np.float32],
    train: NDArray[np.int64],
    labels: NDArray[np.object_],
    test: NDArray[np.int64],
) -> NDArray[np.object_]:
    """The labels that the classifier gives to the images `test`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=500))
    model.fit(features[train], labels)
    called: NDArray[np.object_] = model.predict(features[test])
    return called

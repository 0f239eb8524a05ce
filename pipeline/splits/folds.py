"""Assign groups of images to folds: arithmetic on counts, without names or files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

MAX_SHUFFLES = 64
"""Shuffles that are tried for the most even assignment."""

_SHUFFLE_BUDGET = 20_000
"""Groups times shuffles: with many groups any shuffle is even, and trying costs time."""


@dataclass(frozen=True)
class Groups:
    """Images as groups that must not be divided.

    Attributes:
        of_image: (N,) the group of each image, from 0.
        counts: (G, C) how many images of each label each group has.
    """

    of_image: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, names: Sequence[str], labels: Sequence[str]) -> Self:
        """Group images by `names`; `labels` are theirs, both of length N."""
        of_image, of_label = _numbered(names), _numbered(labels)
        counts = np.zeros((len(set(names)), len(set(labels))), np.int64)
        np.add.at(counts, (of_image, of_label), 1)
        return cls(of_image, counts)

    @property
    def per_label(self) -> NDArray[np.int64]:
        """(C,) how many groups hold each label."""
        return np.asarray(np.count_nonzero(self.counts, axis=0))


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the position of each name among the sorted ones."""
    # An array of text would be as wide as its longest element.
    positions = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([positions[name] for name in names], np.int64)


def assign_tests(groups: Groups, folds: int, seed: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Say in which fold each group is tested, the most even assignment first.

    Yields:
        (G,) the number of a fold for each group. Every fold tests every label, and leaves at
        least two groups of it for training and validation.
    """
    ideal = groups.counts.sum(axis=0) / folds  # (C,)
    ranked: list[tuple[float, int, NDArray[np.int64]]] = []
    for assignment in _shuffles(groups.counts, folds, seed):
        tested = _part_counts(groups.counts > 0, assignment, folds)  # (folds, C) in groups
        if (tested >= 1).all() and (groups.per_label - tested >= 2).all():
            sizes = _part_counts(groups.counts, assignment, folds)  # (folds, C) in images
            ranked.append((_unevenness(sizes, ideal), len(ranked), assignment))
    ranked.sort(key=lambda entry: entry[:2])
    return (assignment for _, _, assignment in ranked)


def carve_validation(
    counts: NDArray[np.int64], fraction: float, seed: Sequence[int]
) -> NDArray[np.bool_] | None:
    """Choose the groups of a training part that are set aside for validation.

    Args:
        counts: (G, C) images of each label in each group of the training part.
        fraction: about how much of each label to set aside.
        seed: of the shuffles.

    Returns:
        (G,) true for validation: the choice that comes closest to `fraction` of each label, of
        those that leave every label on both sides. None if there is none.
    """
    total = counts.sum(axis=0)  # (C,)
    parts = min(max(2, round(1 / fraction)), int(np.count_nonzero(counts, axis=0).min()))
    if parts < 2:
        return None
    best, choice = np.inf, None
    for assignment in _shuffles(counts, parts, seed):
        sizes = _part_counts(counts, assignment, parts)  # (parts, C)
        for number, size in enumerate(sizes):
            unevenness = _unevenness(size, total * fraction)
            if (size > 0).all() and (size < total).all() and unevenness < best:
                best, choice = unevenness, assignment == number
    return choice


def _shuffles(
    counts: NDArray[np.int64], parts: int, seed: Sequence[int]
) -> Iterator[NDArray[np.int64]]:
    """Even assignments (G,) of the groups to parts, all different in their random order."""
    random = np.random.default_rng(seed)
    # Even numbers of images can mean uneven numbers of groups, one against all the others: so
    # every other time a group counts once for each of its labels.
    weights = [table / table.sum(axis=0) for table in (counts, counts > 0)]
    for number in range(int(np.clip(_SHUFFLE_BUDGET // len(counts), 2, MAX_SHUFFLES))):
        yield _deal(weights[number % 2], parts, random)


def _deal(
    weights: NDArray[np.float64], parts: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Give one group after another, large ones rather first, to the part that lacks it most.

    That is the greedy rule of scikit-learn's `StratifiedGroupKFold`. Its shuffle, however, moves
    only groups of exactly equal counts, so that real groups fall the same way for every seed.
    Here the order is by size times a random factor.

    Args:
        weights: (G, C) the share of each label that each group has.
        parts: how many.
        random: changed by use.
    """
    order = np.argsort(-weights.sum(axis=1) * random.lognormal(size=len(weights)), kind="stable")
    filled = np.zeros((parts, weights.shape[1]))
    assignment = np.empty(len(weights), np.int64)
    for group in order:
        # What the sum of squared shares grows by, but for a term that all parts have; of equal
        # parts the emptiest takes it.
        growth = filled @ weights[group]
        part = np.lexsort((filled.sum(axis=1), growth))[0]
        assignment[group] = part
        filled[part] += weights[group]
    return assignment


def _part_counts(
    counts: NDArray[np.int64] | NDArray[np.bool_], assignment: NDArray[np.int64], parts: int
) -> NDArray[np.int64]:
    """(parts, C) the sum of `counts` (G, C) over the groups of each part."""
    sums = np.zeros((parts, counts.shape[1]), np.int64)
    np.add.at(sums, assignment, counts)
    return sums


def _unevenness(sizes: NDArray[np.int64], ideal: NDArray[np.float64]) -> float:
    """Mean squared relative distance from the ideal: of sizes and proportions at once."""
    return float(np.mean((sizes / ideal - 1) ** 2))

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
        counts: (G, C) how many images of each label each group has. Every part must hold every
            label.
        strata: (G, S) how many images of each stratum each group has. Parts are balanced by
            strata as far as the groups allow.
    """

    of_image: NDArray[np.int64]
    counts: NDArray[np.int64]
    strata: NDArray[np.int64]

    @classmethod
    def of(
        cls, names: Sequence[str], labels: Sequence[str], finer: Sequence[str] | None = None
    ) -> Self:
        """Group images by `names`; `labels` are theirs, both of length N.

        The strata are the labels and, if given, the `finer` classes of the images, too.
        """
        of_image = _numbered(names)
        counts = strata = _table(of_image, labels)
        if finer is not None:
            strata = np.hstack([counts, _table(of_image, finer)])
        return cls(of_image, counts, strata)

    def without(self, left_out: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The counts and the strata that occur, of the groups other than `left_out` (G,)."""
        strata = self.strata[~left_out]
        return self.counts[~left_out], strata[:, strata.any(axis=0)]

    @property
    def per_label(self) -> NDArray[np.int64]:
        """(C,) how many groups hold each label."""
        return np.asarray(np.count_nonzero(self.counts, axis=0))


def _table(of_image: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
    """(G, C) how many images of each class each group has."""
    counts = np.zeros((int(of_image.max(initial=-1)) + 1, len(set(classes))), np.int64)
    np.add.at(counts, (of_image, _numbered(classes)), 1)
    return counts


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
    ideal = groups.strata.sum(axis=0) / folds  # (S,)
    ranked: list[tuple[int, float, int, NDArray[np.int64]]] = []
    for assignment in _shuffles(groups.strata, folds, seed):
        tested = _part_counts(groups.counts > 0, assignment, folds)  # (folds, C) in groups
        if (tested >= 1).all() and (groups.per_label - tested >= 2).all():
            sizes = _part_counts(groups.strata, assignment, folds)  # (folds, S) in images
            missing = int(np.count_nonzero(sizes == 0))
            ranked.append((missing, _unevenness(sizes, ideal), len(ranked), assignment))
    ranked.sort(key=lambda entry: entry[:3])
    return (entry[3] for entry in ranked)


def carve_validation(
    counts: NDArray[np.int64],
    strata: NDArray[np.int64],
    fraction: float,
    seed: Sequence[int],
) -> NDArray[np.bool_] | None:
    """Choose the groups of a training part that are set aside for validation.

    Args:
        counts: (G, C) images of each label in each group of the training part.
        strata: (G, S) images of each stratum there, the labels first; none is empty.
        fraction: about how much of each label to set aside.
        seed: of the shuffles.

    Returns:
        (G,) true for validation, of the choices that leave every label on both sides: one that
        leaves the most strata on both sides, and then comes closest to `fraction` of each. None
        if there is none.
    """
    total = strata.sum(axis=0)  # (S,)
    parts = min(max(2, round(1 / fraction)), int(np.count_nonzero(counts, axis=0).min()))
    if parts < 2:
        return None
    unavoidable = int(np.count_nonzero(np.count_nonzero(strata, axis=0) < 2))
    best, choice = (len(total), np.inf), None
    labels = slice(counts.shape[1])
    # A larger part has room for more strata.
    for number in range(parts, max(parts - 3, 1), -1):
        for assignment in _shuffles(strata, number, seed):
            for part, size in enumerate(_part_counts(strata, assignment, number)):  # (S,)
                divided = (size > 0) & (size < total)
                rank = (int(np.count_nonzero(~divided)), _unevenness(size, total * fraction))
                if divided[labels].all() and rank < best:
                    best, choice = rank, assignment == part
        if choice is not None and best[0] <= unavoidable:
            break
    return choice


def inner_parts(
    groups: Sequence[str], labels: Sequence[str], parts: int, seed: Sequence[int]
) -> NDArray[np.int64] | None:
    """Divide the development images of a fold into inner folds, groups whole.

    Args:
        groups: (N,) the group of each image, in any order.
        labels: (N,) their labels.
        parts: how many inner folds are wanted, at least 2.
        seed: of the shuffles.

    Returns:
        (N,) the inner fold of each image, the most even choice of those in which every inner
        fold, and so what is outside of it, holds every label. Fewer inner folds than wanted if
        the groups do not suffice; None if not even two can be made.
    """
    if not groups:
        return None
    found = Groups.of(groups, labels)
    for number in range(min(parts, int(found.per_label.min())), 1, -1):
        best = _most_even(found.counts, number, seed)
        if best is not None:
            return best[found.of_image]
    return None


def _most_even(
    counts: NDArray[np.int64], parts: int, seed: Sequence[int]
) -> NDArray[np.int64] | None:
    """The most even assignment (G,) that leaves every label in every part, if there is one."""
    ideal = counts.sum(axis=0) / parts  # (C,)
    best, choice = np.inf, None
    for assignment in _shuffles(counts, parts, seed):
        sizes = _part_counts(counts, assignment, parts)  # (parts, C)
        unevenness = _unevenness(sizes, ideal)
        if (sizes > 0).all() and unevenness < best:
            best, choice = unevenness, assignment
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

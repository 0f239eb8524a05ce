"""Bootstrap over groups, such as patients: what the numbers would be, had others been drawn.

How often the 95% intervals hold the true value, in 1,000 simulated studies with about 12 images
a case and an intraclass correlation of 0.5:

    cases of either class    accuracy    balanced accuracy    AUC
    10 and 10                0.93        0.93                 0.92
    14 and 6                 0.94        0.93                 0.91
    15 and 15                0.95        0.95                 0.94
    24 and 6                 0.97        0.92                 0.92
    30 and 30                0.95        0.95                 0.94

Plain percentiles of plain drawings hold the AUC in 0.90 of the studies with 15 and 15 cases and
in 0.86 of those with 24 and 6; a bootstrap over images in 0.48 to 0.63 of any. A true value that
is missed lies below its interval more often than above: of few cases, numbers look too good.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipeline.evaluation.metrics import patient_fractions

LEVEL = 0.95
"""Of the intervals."""

_BLOCK_BYTES = 1 << 20
"""Of replicates that are worked on together: what the processor's own memory holds."""


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


class Resampling(NamedTuple):
    """Replicates of a drawing of groups.

    Attributes:
        places: of each group among the columns.
        multiplicities: (replicates, groups) float64, how much each counts in each replicate.
        strata_sizes: how many groups each stratum has.
    """

    places: dict[str, int]
    multiplicities: NDArray[np.float64]
    strata_sizes: tuple[int, ...]

    def weights(self, groups: Sequence[str]) -> NDArray[np.float64]:
        """How much each row counts in each replicate.

        Args:
            groups: (n,), the group of each row, of those that were resampled.

        Returns:
            (replicates, n) float64: 16 KB a row with 2,000 replicates.
        """
        return self.multiplicities[:, [self.places[group] for group in groups]]


def resample(
    groups: Sequence[str], classes: Sequence[str], replicates: int = 2000, seed: int = 0
) -> Resampling:
    """Draw groups with replacement, within strata.

    Of a stratum of n groups n - 1 are drawn, each of which counts n / (n - 1): drawings of n
    would make the variance of a mean too small by that factor (Rao and Wu, Journal of the
    American Statistical Association 83, 1988). A stratum of one group is in every replicate, as
    it is: an interval then says nothing of how that group was drawn.

    Args:
        groups: (m,), the group of each distinct image.
        classes: (m,), its class. A group's stratum is the class of most of its images.
        replicates: how many drawings.
        seed: of the drawings.
    """
    votes_of: dict[str, Counter[str]] = defaultdict(Counter)
    for group, name in zip(groups, classes, strict=True):
        votes_of[group][name] += 1
    places = {group: place for place, group in enumerate(sorted(votes_of))}
    strata: dict[str, list[int]] = defaultdict(list)
    for group, place in places.items():
        counts = votes_of[group]
        strata[min(counts, key=lambda name: (-counts[name], name))].append(place)
    generator = np.random.default_rng(seed)
    multiplicities = np.ones((replicates, len(places)))
    for name in sorted(strata):
        members = strata[name]
        if len(members) > 1:
            multiplicities[:, members] = _draw(len(members), replicates, generator)
    sizes = tuple(len(strata[name]) for name in sorted(strata))
    return Resampling(places, multiplicities, sizes)


def _draw(size: int, replicates: int, generator: np.random.Generator) -> NDArray[np.float64]:
    drawn = generator.multinomial(size - 1, np.full(size, 1 / size), size=replicates)
    return drawn.astype(np.float64) * (size / (size - 1))


def weighted_mean(
    values: NDArray[np.float64] | NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean in each replicate, such as accuracy (of 0 and 1) or the Brier score (of squares).

    Args:
        values: (n,).
        weights: (replicates, n).

    Returns:
        (replicates,); NaN where nothing was drawn.
    """
    return _ratio(weights @ values.astype(np.float64), weights.sum(axis=1))


def weighted_balanced_accuracy(
    right: NDArray[np.bool_],
    truth: NDArray[np.int64] | NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean over the classes drawn of the fraction that is right, in each replicate.

    Args:
        right: (n,), whether each image is classified rightly.
        truth: (n,), its class.
        weights: (replicates, n).

    Returns:
        (replicates,); NaN where fewer than two classes were drawn.
    """
    recalls = np.stack(
        [weighted_mean(right[truth == c], weights[:, truth == c]) for c in np.unique(truth)]
    )  # (classes, replicates)
    return _mean_of_two_or_more(recalls)


def weighted_auc(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area under the receiver operating characteristic in each replicate.

    As the Mann-Whitney statistic: the weight of the pairs in which the positive image has the
    higher score, and half of that of the ties, over the weight of all pairs.

    Args:
        scores: (n,), higher for the positive class.
        truth: (n,), whether each image is positive.
        weights: (replicates, n).

    Returns:
        (replicates,); NaN where a class was not drawn.
    """
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    positive = truth[order]  # (n,)
    rows = max(1, _BLOCK_BYTES // (8 * len(scores)))
    found = []
    for start in range(0, len(weights), rows):
        block = weights[start : start + rows][:, order]  # (rows, n)
        above = np.add.reduceat(block * positive, starts, axis=1)  # (rows, distinct scores)
        below = np.add.reduceat(block * ~positive, starts, axis=1)
        lower = np.cumsum(below, axis=1) - below / 2
        pairs = above.sum(axis=1) * below.sum(axis=1)
        found.append(_ratio((above * lower).sum(axis=1), pairs))
    return np.concatenate(found)


def weighted_macro_auc(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the classes drawn of the area of each against the rest, in each replicate.

    Args:
        probabilities: (n, classes).
        truth: (n,), the class of each image, from 0.
        weights: (replicates, n).

    Returns:
        (replicates,); NaN where fewer than two classes were drawn.
    """
    areas = [weighted_auc(probabilities[:, c], truth == c, weights) for c in np.unique(truth)]
    return _mean_of_two_or_more(np.stack(areas))


def weighted_patient_recognition_rate(
    right: NDArray[np.bool_], patients: Sequence[Hashable], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the patients drawn of the fraction of their images that is right.

    Args:
        right: (n,), whether each image is classified rightly.
        patients: (n,), whose image each is; all images of one patient are of one group.
        weights: (replicates, n).

    Returns:
        (replicates,); NaN where nobody was drawn.
    """
    return weighted_mean(patient_fractions(right, patients), _of_patients(weights, patients))


def interval(samples: NDArray[np.float64], strata_sizes: Sequence[int]) -> Interval | None:
    """The 95% interval that replicates give.

    The expanded percentile interval of Hesterberg (The American Statistician 69(4), 2015,
    doi 10.1080/00031305.2015.1089789): percentiles as far out in a normal distribution as those
    of Student's would be, with `degrees_of_freedom`.

    Args:
        samples: (replicates,); those that are NaN are left out.
        strata_sizes: `Resampling.strata_sizes`.

    Returns:
        None if nothing is known of the spread: no replicate is defined, or no stratum has two
        groups.
    """
    defined = samples[~np.isnan(samples)]
    freedom = degrees_of_freedom(strata_sizes)
    if not defined.size or freedom is None:
        return None
    tail = float(special.ndtr(special.stdtrit(freedom, (1 - LEVEL) / 2)))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def p_value(differences: NDArray[np.float64], strata_sizes: Sequence[int]) -> float | None:
    """Two-sided p-value of the hypothesis that a difference is 0, from its replicates.

    min(1, 2 (1 + the smaller of the numbers at most 0 and at least 0) / (replicates + 1)), then
    carried from the normal distribution to Student's, so that it is under 0.05 where `interval`
    leaves 0 out.

    Args:
        differences: (replicates,), paired; those that are NaN are left out.
        strata_sizes: `Resampling.strata_sizes`.

    Returns:
        None where `interval` is None.
    """
    defined = differences[~np.isnan(differences)]
    freedom = degrees_of_freedom(strata_sizes)
    if not defined.size or freedom is None:
        return None
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    tail = min(0.5, (1 + fewer) / (len(defined) + 1))
    return min(1.0, 2 * float(special.stdtr(freedom, special.ndtri(tail))))


def degrees_of_freedom(strata_sizes: Sequence[int]) -> float | None:
    """Of the mean of the strata's means, if groups vary alike in all (Satterthwaite, 1946).

    (sum of 1/n)² / sum of 1/(n² (n - 1)): near the size of the smallest stratum if it is far
    smaller than the others, near that of all together if they are of one size.

    Args:
        strata_sizes: how many groups each stratum has. One of a single group counts for nothing:
            it is in every replicate.

    Returns:
        None if no stratum has two groups.
    """
    sizes = np.array([size for size in strata_sizes if size > 1], dtype=np.float64)
    if not sizes.size:
        return None
    return float((1 / sizes).sum() ** 2 / (1 / (sizes**2 * (sizes - 1))).sum())


def _of_patients(weights: NDArray[np.float64], patients: Sequence[Hashable]) -> NDArray[np.float64]:
    first: dict[Hashable, int] = {}
    for place, patient in enumerate(patients):
        first.setdefault(patient, place)
    return weights[:, list(first.values())]


def _mean_of_two_or_more(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN of fewer than two."""
    drawn = ~np.isnan(values)
    count = drawn.sum(axis=0)
    return _ratio(np.where(drawn, values, 0).sum(axis=0), np.where(count > 1, count, 0))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotients; NaN where the divisor is 0."""
    found = np.full(above.shape, np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found

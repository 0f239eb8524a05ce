"""How well probabilities agree with what is found."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class ReliabilityBin(NamedTuple):
    """Images whose probabilities are alike.

    Attributes:
        low: the least probability of the bin.
        high: the largest; it belongs to the next bin, except that 1 belongs to the last.
        images: how many.
        mean_probability: of them; None of an empty bin.
        fraction: of them that are positive; None of an empty bin.
    """

    low: float
    high: float
    images: int
    mean_probability: float | None
    fraction: float | None


def reliability(
    probability: NDArray[np.float64], truth: NDArray[np.bool_], bins: int = 10
) -> list[ReliabilityBin]:
    """Mean probability and fraction of positive images in bins of equal width.

    Args:
        probability: (n,), of being positive.
        truth: (n,), whether each image is.
        bins: how many, empty ones included.
    """
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)  # (n,)
    found = []
    for k in range(bins):
        inside = place == k
        count = int(inside.sum())
        mean = float(probability[inside].mean()) if count else None
        fraction = float(truth[inside].mean()) if count else None
        found.append(ReliabilityBin(k / bins, (k + 1) / bins, count, mean, fraction))
    return found


def expected_calibration_error(
    probability: NDArray[np.float64], truth: NDArray[np.bool_], bins: int = 10
) -> float:
    """Mean over images of |fraction - mean probability| of the bin that each falls in.

    Naeini et al., AAAI 2015, in bins of equal width. With the probability of the positive class
    and whether an image is positive it is the binary form; with the probability of the called
    class and whether it is right, that of Guo et al., ICML 2017 (top label). It is biased
    upwards where bins hold few images.

    Args:
        probability: (n,), n ≥ 1.
        truth: (n,), whether what it is the probability of is so.
        bins: how many.
    """
    total = sum(
        found.images * abs(found.fraction - found.mean_probability)
        for found in reliability(probability, truth, bins)
        if found.fraction is not None and found.mean_probability is not None
    )
    return total / len(probability)

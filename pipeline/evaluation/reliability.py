"""How well probabilities agree with what is found."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 10


class ReliabilityBin(NamedTuple):
    """One point of a reliability curve: images whose probability lies from `low` to `high`.

    Attributes:
        low: of the bin.
        high: of the bin.
        images: how many.
        probability: their mean probability.
        fraction: of them that are of the class.
    """

    low: float
    high: float
    images: int
    probability: float
    fraction: float


def reliability(
    probability: NDArray[np.float64], truth: NDArray[np.bool_], bins: int = BINS
) -> list[ReliabilityBin]:
    """The reliability curve, over bins of equal width that hold images.

    Args:
        probability: (n,) of a class.
        truth: (n,) whether it is the image's.
        bins: how many.
    """
    number = np.minimum((probability * bins).astype(np.int64), bins - 1)  # (n,)
    return [
        ReliabilityBin(
            k / bins,
            (k + 1) / bins,
            int((number == k).sum()),
            float(probability[number == k].mean()),
            float(truth[number == k].mean()),
        )
        for k in np.unique(number).tolist()
    ]


def calibration_error(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The expected calibration error: Guo et al., ICML 2017, equation 3.

    Of two classes, of the positive one's probability; of more, of the class that is most
    probable. The bins have equal width.

    Args:
        probabilities: (n, K).
        truth: (n,) classes.
    """
    if probabilities.shape[1] == 2:
        curve = reliability(probabilities[:, 1], truth == 1)
    else:
        top = probabilities.argmax(axis=1)
        curve = reliability(probabilities[np.arange(len(top)), top], truth == top)
    gaps = [one.images * abs(one.fraction - one.probability) for one in curve]
    return float(sum(gaps) / len(truth))


def brier(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The mean squared difference of probability and outcome.

    Of two classes, of the positive one; of more, summed over classes: Brier, Monthly Weather
    Review 78(1), 1950.

    Args:
        probabilities: (n, K).
        truth: (n,) classes.
    """
    outcome = np.eye(probabilities.shape[1])[truth]  # (n, K)
    squares = (probabilities - outcome) ** 2
    return float(squares[:, 1].mean() if squares.shape[1] == 2 else squares.sum(axis=1).mean())

"""What each patch contributes: what the probability would be without it.

The states of an LSTM after a patch know the patches before it as well, so they are no
explanation. Leaving a patch out and asking again is one: Zeiler and Fergus, ECCV 2014, section 3.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.fitting.model_file import Model
from pipeline.fitting.sequences import Sequences
from pipeline.prediction.ensemble import Ensemble, mean_probabilities

MOST_SQUARES = 64
"""Of more patches, those of a square of neighbours are left out together: one of thousands alone
says nothing, and takes as long."""

_ROWS_AT_ONCE = 1 << 17


def contributions(
    ensemble: Ensemble, features: NDArray[np.floating], coords: NDArray[np.int32]
) -> NDArray[np.float64]:
    """The probability of one image minus that without each of its patches.

    Args:
        ensemble: the models.
        features: (n, D) of the patches, as in a cache.
        coords: (n, 2) of the patches, as in a cache.

    Returns:
        (n,): of the positive class, or of the called one of more than two; the same for all
        patches of a square. Of an image of one patch, or square, nothing is left without it, and
        its contribution is not a number.
    """
    count = len(features)
    squares = squares_of(coords, len(ensemble.recipe.views))  # (n,)
    if not squares.any():
        return np.full(count, np.nan)
    image = Sequences.from_arrays(features, np.array([0, count]))
    inputs = [(model, model.inputs(image)) for model in ensemble.models]
    whole = mean_probabilities([model.answer(image) for model in ensemble.models])[0]  # (C,)
    shown = 0 if ensemble.threshold is not None else int(whole.argmax())
    at_once, total = max(1, _ROWS_AT_ONCE // count), int(squares.max()) + 1
    without = [
        _without(inputs, squares, range(start, min(start + at_once, total)))[:, shown]
        for start in range(0, total, at_once)
    ]
    return np.asarray(whole[shown] - np.concatenate(without))[squares]


def squares_of(coords: NDArray[np.int32], views: int) -> NDArray[np.int64]:
    """The number of the square that each patch is of: (n,), 0 to at most `MOST_SQUARES` - 1.

    Squares are as small as that allows; of few patches, each is its own.

    Args:
        coords: (n, 2) of the patches, of each view equally many, one view after another.
        views: how many views there are.
    """
    count = len(coords)
    if count <= MOST_SQUARES:
        return np.arange(count)
    view = np.arange(count) * views // count
    side = max(1, int(np.ceil(np.sqrt(np.ptp(coords, axis=0).max() + 1))))
    while True:
        keys = np.column_stack([view, coords // side])  # (n, 3)
        different, squares = np.unique(keys, axis=0, return_inverse=True)
        if len(different) <= max(MOST_SQUARES, views):
            return squares.ravel()
        side += max(1, side // 8)


def _without(
    inputs: list[tuple[Model, Sequences]], squares: NDArray[np.int64], left_out: range
) -> NDArray[np.float64]:
    """(b, C) the probabilities of an image without the patches of some of its squares."""
    kept = torch.from_numpy(squares != np.array(left_out)[:, None])  # (b, n)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(dim=1).cumsum(0)])  # (b + 1,)
    rows = kept.nonzero()[:, 1]  # (all that are kept,)
    return mean_probabilities(
        [
            model.answer_inputs(Sequences(image.values[rows], offsets, image.most))
            for model, image in inputs
        ]
    )

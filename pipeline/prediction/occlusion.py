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

_ROWS_AT_ONCE = 1 << 17


def contributions(ensemble: Ensemble, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """The probability of one image minus that without each of its patches.

    Args:
        ensemble: the models.
        features: (n, D) of the patches, as in a cache.

    Returns:
        (n,): of the positive class, or of the called one of more than two. Of an image of one
        patch nothing is left without it, and its contribution is not a number.
    """
    count = len(features)
    if count == 1:
        return np.full(1, np.nan)
    image = Sequences.from_arrays(features, np.array([0, count]))
    inputs = [(model, model.inputs(image).values) for model in ensemble.models]  # (n, k) each
    whole = mean_probabilities([model.answer(image) for model in ensemble.models])[0]  # (C,)
    shown = 0 if ensemble.threshold is not None else int(whole.argmax())
    at_once = max(1, _ROWS_AT_ONCE // count)
    without = [
        _without(inputs, range(start, min(start + at_once, count)))[:, shown]
        for start in range(0, count, at_once)
    ]
    return np.asarray(whole[shown] - np.concatenate(without))


def _without(inputs: list[tuple[Model, torch.Tensor]], left_out: range) -> NDArray[np.float64]:
    """(b, C) the probabilities of an image without one of its patches, for some of them."""
    count = len(inputs[0][1])
    rows = torch.arange(count).expand(len(left_out), count)  # (b, n)
    kept = rows[rows != torch.tensor(left_out)[:, None]]  # (b * (n - 1),)
    offsets = torch.arange(len(left_out) + 1) * (count - 1)  # (b + 1,)
    return mean_probabilities(
        [model.answer_inputs(Sequences(values[kept], offsets)) for model, values in inputs]
    )

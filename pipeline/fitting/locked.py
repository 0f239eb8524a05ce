"""Lock what turns logits into answers, by the images set aside: temperature and threshold."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.fitting.calibration import apply_temperature, choose_threshold, fit_temperature
from pipeline.fitting.training import Check


@dataclass(frozen=True)
class Fitted:
    """What a model says of all images of a study.

    Attributes:
        logits: (N, C), C = 1 for two classes.
        aside: (N, C) said of an image by those members that did not learn from it; not a number
            elsewhere.
        history: of the losses, if the model was trained step by step.
    """

    logits: NDArray[np.float64]
    aside: NDArray[np.float64]
    history: list[Check]

    @classmethod
    def of(cls, logits: torch.Tensor, aside: torch.Tensor, history: list[Check]) -> "Fitted":
        """From tensors."""
        return cls(logits.double().numpy(), aside.double().numpy(), history)


@dataclass(frozen=True)
class Locked:
    """A model whose answers are settled without a look at any test image.

    Attributes:
        fitted: what it says.
        temperature: that its logits are divided by.
        threshold: probability from which the positive class is called; None of more than two.
    """

    fitted: Fitted
    temperature: float
    threshold: float | None

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C) after temperature scaling; of the positive class if C is 1."""
        scaled = apply_temperature(self.fitted.logits, self.temperature)
        return scaled[:, None] if scaled.ndim == 1 else scaled

    @property
    def called(self) -> NDArray[np.int64]:
        """(N,) the class that is called."""
        if self.threshold is None:
            return np.asarray(self.probabilities.argmax(axis=1))
        return (self.probabilities[:, 0] >= self.threshold).astype(np.int64)


def lock(fitted: Fitted, targets: torch.Tensor, cases: torch.Tensor) -> Locked:
    """Choose temperature and threshold by the images set aside, the only ones looked at.

    Args:
        fitted: what the model says.
        targets: (N,) classes; only those of images set aside are used.
        cases: (N,) whose each image is.
    """
    judged = ~np.isnan(fitted.aside[:, 0])  # (N,)
    logits, truth, whose = fitted.aside[judged], targets.numpy()[judged], cases.numpy()[judged]
    temperature = fit_temperature(logits, truth, whose)
    if logits.shape[1] > 1:
        return Locked(fitted, temperature, None)
    threshold = choose_threshold(apply_temperature(logits, temperature), truth == 1, whose)
    return Locked(fitted, temperature, threshold)

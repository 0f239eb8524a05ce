"""Simulated studies of patients whose images resemble each other, with a known truth."""

import numpy as np
from scipy import stats

from pipeline.evaluation.bootstrap import area_by_weight, interval, resample

IMAGES = 12
SHIFT = 1.5
SHARED = 0.5
"""Share of a score's variance that the images of a patient have in common."""

TRUE_AUC = float(stats.norm.cdf(SHIFT / np.sqrt(2)))


def draw(random: np.random.Generator, benign: int, malignant: int):
    """Scores, truth and patients of one study."""
    truth = np.repeat([False] * benign + [True] * malignant, IMAGES)
    patient = np.repeat(np.arange(benign + malignant), IMAGES)
    shared = random.normal(size=benign + malignant)[patient] * np.sqrt(SHARED)
    own = random.normal(size=len(truth)) * np.sqrt(1 - SHARED)
    return truth * SHIFT + shared + own, truth, patient


def coverage(studies: int, benign: int, malignant: int, replicates: int = 1000) -> dict[str, float]:
    """The share of studies whose interval of the AUC holds the true one, by what is resampled."""
    random = np.random.default_rng(benign * 1000 + malignant)
    found = {"patients": 0, "plain percentiles": 0, "images": 0}
    for study in range(studies):
        score, truth, patient = draw(random, benign, malignant)
        for unit, groups in (
            ("patients", patient.astype(str)),
            ("images", np.arange(len(truth)).astype(str)),
        ):
            drawn = resample(groups.tolist(), truth.astype(int).tolist(), replicates, seed=study)
            areas = area_by_weight(score, truth, drawn.weights(groups))
            reach = interval(areas, drawn.least)
            found[unit] += reach.low <= TRUE_AUC <= reach.high
            if unit == "patients":
                low, high = np.quantile(areas, [0.025, 0.975])
                found["plain percentiles"] += low <= TRUE_AUC <= high
    return {name: count / studies for name, count in found.items()}

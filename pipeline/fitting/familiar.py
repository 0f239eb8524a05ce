"""Whether an image is like those that a model was fitted to.

The rule: the mean of an image's inputs is farther from that of every training image than 95 of
100 training images are from those of all other patients. It is the distance to the nearest
neighbour of Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022,
with a limit that counts what differs between patients as usual. So about one in twenty images
of a new patient is called unlike although nothing is wrong with it.
"""

from dataclasses import dataclass

import torch

USUAL = 0.95
"""Share of the training images that the rule calls like those of other patients."""

MOST_REFERENCES = 4096
"""Training images that a model remembers; of more, every second, third, … is left out."""


@dataclass(frozen=True)
class Familiar:
    """The training images as a model remembers them.

    Attributes:
        references: (n, k) float32, the mean inputs of training images.
        limit: the distance from the nearest one beyond which an image is unlike them.
    """

    references: torch.Tensor
    limit: float

    def distances(self, means: torch.Tensor) -> torch.Tensor:
        """(N,) from the mean inputs (N, k) of images to the nearest reference; the limit is 1."""
        # By products of matrices, the distance of equal vectors would not be 0.
        mode = "donot_use_mm_for_euclid_dist"
        nearest = torch.cdist(means, self.references, compute_mode=mode).amin(dim=1)  # (N,)
        return nearest / self.limit


def fit_familiar(means: torch.Tensor, cases: torch.Tensor) -> Familiar:
    """Remember training images, and find the limit.

    Args:
        means: (n, k) mean inputs of the training images.
        cases: (n,) the patient of each. Those of one patient only are compared with each other.
    """
    step = -(-len(means) // MOST_REFERENCES)
    kept, whose = means[::step], cases[::step]  # (m, k), (m,)
    other = whose[:, None] != whose  # (m, m)
    if not other.any():
        other = ~torch.eye(len(kept), dtype=torch.bool)
    apart = torch.cdist(kept, kept).masked_fill(~other, torch.inf).amin(dim=1)  # (m,)
    limit = torch.quantile(apart, USUAL).item() if torch.isfinite(apart).all() else 0.0
    # Images that are all alike leave no distance: then any other one is unlike them.
    return Familiar(kept.contiguous(), max(limit, _LEAST))


_LEAST = 1e-6

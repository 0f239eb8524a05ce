"""Cache rows to padded batches of sequences."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """The feature sequences of N images, one after another.

    Attributes:
        features: (P, D) float32.
        offsets: (N + 1,) int64; image i owns rows `offsets[i]:offsets[i + 1]`.
    """

    features: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def from_arrays(cls, features: NDArray[np.floating], offsets: NDArray[np.int64]) -> "Sequences":
        """From a cache's arrays, (P, D) float16 or float32 and (N + 1,)."""
        return cls(
            torch.from_numpy(features.astype(np.float32)),
            torch.from_numpy(offsets.astype(np.int64)),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather some images.

        Args:
            images: (B,) positions.

        Returns:
            Features (B, T, D), zero beyond each sequence's end, T the longest length; and the
            lengths (B,).
        """
        starts = self.offsets[images]  # (B,)
        lengths = self.offsets[images + 1] - starts  # (B,)
        steps = torch.arange(int(lengths.max()))  # (T,)
        inside = steps < lengths[:, None]  # (B, T)
        rows = torch.where(inside, starts[:, None] + steps, 0)  # (B, T)
        return self.features[rows] * inside[..., None], lengths

    def patches_of(self, images: torch.Tensor) -> torch.Tensor:
        """The features of all patches of some images, (p, D), in the order of the cache."""
        chosen = torch.zeros(len(self), dtype=torch.bool)  # (N,)
        chosen[images] = True
        return self.features[chosen.repeat_interleave(self.offsets.diff())]

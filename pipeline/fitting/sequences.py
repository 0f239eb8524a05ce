"""Cache rows to padded batches of sequences."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """The sequences of N images, one after another.

    Attributes:
        values: (P, k) features or inputs of all patches.
        offsets: (N + 1,) int64; image i owns rows `offsets[i]:offsets[i + 1]`.
    """

    values: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def from_arrays(cls, values: NDArray[np.floating], offsets: NDArray[np.int64]) -> "Sequences":
        """From a cache's arrays, (P, D) float16 or float32 and (N + 1,); nothing is copied."""
        return cls(torch.from_numpy(values), torch.from_numpy(offsets.astype(np.int64)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gather some images.

        Args:
            images: (…) positions.

        Returns:
            Values (…, T, k), zero beyond each sequence's end, T the longest length; and which
            steps (…, T) are inside, or None if all are.
        """
        starts = self.offsets[images]  # (…)
        lengths = self.offsets[images + 1] - starts  # (…)
        longest = int(lengths.max())
        steps = torch.arange(longest)  # (T,)
        if int(lengths.min()) == longest:
            return self.values[starts[..., None] + steps], None
        inside = steps < lengths[..., None]  # (…, T)
        rows = torch.where(inside, starts[..., None] + steps, 0)  # (…, T)
        return self.values[rows] * inside[..., None], inside

    def patches_of(self, images: torch.Tensor) -> torch.Tensor:
        """The values of all patches of some images, (p, k), in the order of the cache."""
        chosen = torch.zeros(len(self), dtype=torch.bool)  # (N,)
        chosen[images] = True
        return self.values[chosen.repeat_interleave(self.offsets.diff())]

    def means(self) -> torch.Tensor:
        """(N, k) the mean of each image's patches."""
        lengths = self.offsets.diff()  # (N,)
        image = torch.arange(len(self)).repeat_interleave(lengths)  # (P,)
        sums = torch.zeros(len(self), self.values.shape[1]).index_add_(0, image, self.values)
        return sums / lengths[:, None]

    def permuted(self, generator: torch.Generator) -> "Sequences":
        """The same images, the patches of each in a random order."""
        image = torch.arange(len(self)).repeat_interleave(self.offsets.diff())  # (P,)
        # Sorting by image and then by a random key shuffles within images only.
        keys = torch.rand(len(image), generator=generator, dtype=torch.float64)
        return Sequences(self.values[torch.argsort(image + keys)], self.offsets)

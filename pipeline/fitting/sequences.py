"""Cache rows to padded batches of sequences."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """The sequences of N images, one after another.

    A sequence of more than `most` patches is read in parts. Part r of k holds every k-th patch
    from the r-th on, so that each part is of the whole image, and their lengths differ by one at
    most.

    Attributes:
        values: (P, k) features or inputs of all patches.
        offsets: (N + 1,) int64; image i owns rows `offsets[i]:offsets[i + 1]`.
        most: patches of a part; 0 for no limit.
    """

    values: torch.Tensor
    offsets: torch.Tensor
    most: int = 0

    @classmethod
    def from_arrays(cls, values: NDArray[np.floating], offsets: NDArray[np.int64]) -> "Sequences":
        """From a cache's arrays, (P, D) float16 or float32 and (N + 1,); nothing is copied."""
        return cls(torch.from_numpy(values), torch.from_numpy(offsets.astype(np.int64)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def parts(self) -> torch.Tensor:
        """(N,) in how many parts each sequence is read."""
        lengths = self.offsets.diff()
        return -(-lengths // self.most) if self.most else torch.ones_like(lengths)

    @cached_property
    def has_parts(self) -> bool:
        """Whether a sequence is read in more than one part."""
        return bool((self.parts > 1).any())

    @cached_property
    def longest_part(self) -> int:
        """Patches of the longest part."""
        return int((-(-self.offsets.diff() // self.parts)).max())

    def draw(
        self, images: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gather a part of each of some images, at random where there are several; see `batch`."""
        if not self.has_parts:
            return self.batch(images)
        parts = self.parts[images]  # (…)
        drawn = torch.rand(images.shape, generator=generator, dtype=torch.float64)
        return self.batch(images, (drawn * parts).long())

    def batch(
        self, images: torch.Tensor, part: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gather some images.

        Args:
            images: (…) positions.
            part: (…) which part of each; None where all have one only.

        Returns:
            Values (…, T, k), zero beyond each sequence's end, T the longest length; and which
            steps (…, T) are inside, or None if all are.
        """
        starts, stops = self.offsets[images], self.offsets[images + 1]  # (…)
        stride = self.parts[images]  # (…)
        starts = starts if part is None else starts + part
        lengths = -((starts - stops) // stride)  # (…)
        longest = int(lengths.max())
        steps = torch.arange(longest)  # (T,)
        rows = starts[..., None] + steps * stride[..., None]  # (…, T)
        if int(lengths.min()) == longest:
            return self.values[rows], None
        inside = steps < lengths[..., None]  # (…, T)
        return self.values[torch.where(inside, rows, 0)] * inside[..., None], inside

    def all_parts(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every part of some images (n,): which of these it is of (q,), and its number (q,)."""
        parts = self.parts[images]  # (n,)
        place = torch.arange(len(images)).repeat_interleave(parts)  # (q,)
        first = (parts.cumsum(0) - parts)[place]  # (q,)
        return place, torch.arange(len(place)) - first

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
        return Sequences(self.values[torch.argsort(image + keys)], self.offsets, self.most)

"""One of several jobs that extract a data set together: which images are its own."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache import ImageRow, ImageTable, ShardPlace
from pipeline.dataset.images import ImageError
from pipeline.errors import UsageError
from pipeline.extraction.patches import grid
from pipeline.extraction.recipe import PatchOptions

MOST_PARTS = 100_000

_DECODING = 0.5
"""What reading an image costs, in patches: an image that fails is not free."""


@dataclass(frozen=True)
class Part:
    """Part `number`, counted from 1, of `total`."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `I/N`, or `I-of-N` as Snakemake names it.

        Raises:
            UsageError: it is neither, or there is no such part.
        """
        found = re.fullmatch(r"([0-9]{1,6})(?:/|-of-)([0-9]{1,6})", text)
        number, total = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= total <= MOST_PARTS:
            raise UsageError(
                f"shard {text[:40]!r}: expected I/N, such as 3/20, I from 1 to N, N at most "
                f"{MOST_PARTS:,}"
            )
        return cls(number, total)

    def rows(self, rows: Sequence[ImageRow], options: PatchOptions) -> Sequence[ImageRow]:
        """Its images: consecutive ones, of about as many patches as each other part has.

        Raises:
            UsageError: there are fewer images than parts.
        """
        if len(rows) < self.total:
            raise UsageError(
                f"shard {self.number}/{self.total}: the manifest has {len(rows)} images only: "
                "choose fewer shards"
            )
        starts = part_starts(costs_of(rows, options), self.total)
        return rows[starts[self.number - 1] : starts[self.number]]

    def place(self, rows: Sequence[ImageRow]) -> ShardPlace:
        """Its place in the cache of all `rows`."""
        text = f"{ImageTable.from_rows(rows).sha256()} in {self.total}"
        plan = hashlib.sha256(text.encode()).hexdigest()
        return ShardPlace(self.number - 1, self.total, plan)


def costs_of(rows: Sequence[ImageRow], options: PatchOptions) -> NDArray[np.float64]:
    """(N,) the work that each image is, in patches."""
    known: dict[tuple[int, int], float] = {}
    costs = []
    for row in rows:
        size = (row.width, row.height)
        if size not in known:
            known[size] = _DECODING + _patches(*size, options)
        costs.append(known[size])
    return np.array(costs)


def _patches(width: int, height: int, options: PatchOptions) -> int:
    try:
        patches = grid(width, height, options.patch_size, options.stride, options.edge)
    except ImageError:
        return 0
    return len(patches) * len(options.views)


def part_starts(costs: NDArray[np.float64], parts: int) -> list[int]:
    """Where each part begins, and the end: (parts + 1,), each part with an image or more.

    Args:
        costs: (N,) of the images, N ≥ parts.
        parts: how many.
    """
    middles = np.cumsum(costs) - costs / 2  # (N,)
    wanted = np.searchsorted(middles, costs.sum() * np.arange(parts) / parts).tolist()
    starts = [0]
    for number, start in enumerate(wanted[1:], 1):
        least, most = starts[-1] + 1, len(costs) - (parts - number)
        starts.append(min(max(start, least), most))
    return [*starts, len(costs)]

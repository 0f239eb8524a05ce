"""One of several jobs that extract a data set together: which images are its own."""

import hashlib
import re
from array import array
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import ImageRow, ShardPlace
from cache.table_writer import has_twice, id_hash
from pipeline.dataset.images import ImageError
from pipeline.dataset.manifest import iterate_manifest, read_manifest
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

    def read(self, manifest: Path, options: PatchOptions) -> list[ImageRow]:
        """Its images: consecutive ones, of about as many patches as each other part has.

        The manifest is read twice, so that memory holds one part's images only.

        Raises:
            UsageError: the manifest is wrong, or there are fewer images than parts.
            ImageTableError: a value in it is not allowed.
        """
        costs, ids = array("d"), array("Q")
        cost = _Cost(options)
        for _, row in iterate_manifest(manifest):
            costs.append(cost.of(row))
            ids.append(id_hash(row.image_id))
        if has_twice(ids):
            read_manifest(manifest)  # says which image is there twice
        if len(costs) < self.total:
            raise UsageError(
                f"shard {self.number}/{self.total}: the manifest has {len(costs)} images only: "
                "choose fewer shards"
            )
        starts = part_starts(np.frombuffer(costs), self.total)
        mine = islice(iterate_manifest(manifest), starts[self.number - 1], starts[self.number])
        return [row for _, row in mine]

    def place(self, manifest: Path) -> ShardPlace:
        """Its place in the cache of all images of a manifest."""
        with manifest.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        plan = hashlib.sha256(f"{content} in {self.total}".encode()).hexdigest()
        return ShardPlace(self.number - 1, self.total, plan)


class _Cost:
    """What images cost, in patches."""

    def __init__(self, options: PatchOptions) -> None:
        self._options = options
        self._known: dict[tuple[int, int], float] = {}

    def of(self, row: ImageRow) -> float:
        """What one image costs."""
        size = (row.width, row.height)
        if size not in self._known:
            self._known[size] = _DECODING + _patches(*size, self._options)
        return self._known[size]


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

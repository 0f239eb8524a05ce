"""The shard folder of an extraction: what is done, what remains, what outlives it."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cache import CacheError, Failure, FeatureCache, ImageRow, ImageTable, Recipe, ShardPlace, check
from cache.files import clear_unfinished, link_durably

log = logging.getLogger(__name__)

PIXELS_PER_SHARD = 400_000_000
"""Of several images, so that an interruption costs one large image, and not many."""

_MERGED = "merged.h5"


@dataclass(frozen=True)
class Shard:
    """One piece of an extraction: some consecutive images, and the file for their features."""

    path: Path
    place: ShardPlace
    rows: Sequence[ImageRow]

    def is_done(self) -> bool:
        """Whether its file is sound and holds every image, with statistics.

        Images that failed are tried again, so a shard with failures is not done.
        """
        if not self.path.is_file():
            return False
        try:
            check(self.path)
            with FeatureCache(self.path) as cache:
                whole = cache.has_statistics and cache.images.rows() == list(self.rows)
                return whole and cache.shard == self.place
        except CacheError:
            return False

    def failures(self) -> list[Failure]:
        """The images of a finished shard that have no features."""
        with FeatureCache(self.path) as cache:
            return cache.failures


class ShardFolder:
    """The folder beside an output where its shards wait to be merged.

    After that it holds a second name of the output, whose features are known to the next run.
    Shards of different recipes lie in different subfolders, so that a mistyped option costs
    nothing that was computed before.
    """

    def __init__(self, out: Path, recipe: Recipe) -> None:
        self._out = out
        self.root = out.with_name(out.name + ".shards")
        self.path = self.root / recipe.fingerprint[:16]

    def plan(self, rows: Sequence[ImageRow], images_per_shard: int) -> list[Shard]:
        """Divide a manifest into shards, of fewer images where these are large."""
        plan = hashlib.sha256(ImageTable.from_rows(rows).sha256().encode()).hexdigest()
        starts = _starts(rows, images_per_shard)
        return [
            Shard(
                self.path / f"{plan[:8]}-{number:05d}-of-{len(starts):05d}.h5",
                ShardPlace(number, len(starts), plan),
                rows[start:stop],
            )
            for number, (start, stop) in enumerate(pairwise([*starts, len(rows)]))
        ]

    def files(self) -> list[Path]:
        """Files that may hold features of this recipe: shards, and the output of an earlier run."""
        found = sorted(self.path.glob("*.h5"))
        if self._out.is_file() and not any(file.samefile(self._out) for file in found):
            found.append(self._out)
        return found

    def clear_unfinished(self) -> None:
        """Remove the half-written files of killed runs; the caller holds the output's lock."""
        clear_unfinished(self._out)
        for file in self.root.rglob(".*.part"):
            file.unlink(missing_ok=True)

    def keep_only_output(self, done: Sequence[Shard] = ()) -> None:
        """Replace the shards by a second name of the output, which takes no space.

        It survives the deletion of the output, which Snakemake does before it runs a job again,
        and if a job was killed: when images are added or touched, only what is new is encoded.
        What other recipes left unfinished stays; the second name of an output that this one
        replaced does not. On a file system without hard links, the shards `done` stay instead, or
        all if none is named.
        """
        try:
            link_durably(self.path / _MERGED, self._out)
            keep = {_MERGED}  # only now, as a job that is killed may lose its output
        except OSError as error:
            log.debug("%s: no second name can be kept (%s)", self._out, error)
            keep = {shard.path.name for shard in done} or {file.name for file in self.files()}
        for file in self.path.glob("*.h5"):
            if file.name not in keep:
                file.unlink()
        for folder in self.root.iterdir():
            if folder != self.path and {file.name for file in folder.glob("*.h5")} == {_MERGED}:
                shutil.rmtree(folder)

    def is_tidy(self) -> bool:
        """Whether no run left anything here, but for the second name of the output."""
        left = [*self.path.glob("*.h5"), *self.root.glob("lock"), *self.root.rglob(".*.part")]
        return not any(file.name != _MERGED for file in left)

    def remove(self) -> None:
        """Remove all of it; the caller holds the lock and has nothing left to write."""
        shutil.rmtree(self.root)


def _starts(rows: Sequence[ImageRow], most: int) -> list[int]:
    """Where each shard begins: at most `most` images each, and `PIXELS_PER_SHARD` if several."""
    starts, pixels = [0], 0
    for number, row in enumerate(rows):
        own = row.width * row.height
        if number - starts[-1] == most or (number > starts[-1] and pixels + own > PIXELS_PER_SHARD):
            starts.append(number)
            pixels = 0
        pixels += own
    return starts

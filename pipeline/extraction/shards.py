"""The shard folder of an extraction: what is done, what can be reused, what remains."""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import (
    CacheError,
    FeatureCache,
    ImageRow,
    ImageTable,
    Recipe,
    RecipeError,
    ShardPlace,
    check,
)

log = logging.getLogger(__name__)

_MERGED = "merged.h5"


@dataclass(frozen=True)
class Shard:
    """One piece of an extraction: some consecutive images, and the file for their features."""

    path: Path
    place: ShardPlace
    rows: Sequence[ImageRow]


class ShardFolder:
    """The folder beside an output where its shards wait to be merged.

    After that it holds a second name of the output, whose features are known to the next run.
    Shards of different recipes lie in different subfolders, so that a mistyped option costs
    nothing that was computed before.
    """

    def __init__(self, out: Path, recipe: Recipe) -> None:
        self._root = out.with_name(out.name + ".shards")
        self._fingerprint = recipe.fingerprint
        self.path = self._root / recipe.fingerprint[:16]

    def plan(self, rows: Sequence[ImageRow], images_per_shard: int) -> list[Shard]:
        """Divide a manifest into shards."""
        plan = hashlib.sha256(ImageTable.from_rows(rows).sha256().encode()).hexdigest()
        starts = range(0, len(rows), images_per_shard)
        return [
            Shard(
                self.path / f"{plan[:8]}-{number:05d}-of-{len(starts):05d}.h5",
                ShardPlace(number, len(starts), plan),
                rows[start : start + images_per_shard],
            )
            for number, start in enumerate(starts)
        ]

    def sound_files(self) -> list[Path]:
        """The shards of this recipe whose every value is right; any other file is removed."""
        sound = []
        for path in sorted(self.path.glob("*.h5")):
            try:
                check(path)
                self._check_recipe(path)
                sound.append(path)
            except CacheError as error:
                log.warning("discarding a shard, its images are encoded again: %s", error)
                path.unlink()
        return sound

    def _check_recipe(self, path: Path) -> None:
        with FeatureCache(path) as cache:
            if cache.fingerprint != self._fingerprint:
                raise RecipeError(f"{path}: made by another recipe than its folder's name says")

    def keep_only(self, merged: Path) -> None:
        """Replace the shards by a second name of the merged cache, which takes no space.

        It survives the deletion of the output, which Snakemake does before it runs a job again:
        when images are added or touched, only what is new is encoded. What other recipes left
        unfinished stays; the second name of an output that this one replaced does not.
        """
        for folder in self._root.iterdir():
            if folder == self.path or {file.name for file in folder.glob("*.h5")} == {_MERGED}:
                shutil.rmtree(folder)
        self.path.mkdir()
        try:
            (self.path / _MERGED).hardlink_to(merged)
        except OSError as error:
            log.debug("%s: no second name can be kept (%s)", merged, error)
            self.path.rmdir()
            if not any(self._root.iterdir()):
                self._root.rmdir()


def is_done(shard: Shard) -> bool:
    """Whether a sound file holds the features of every image of the shard."""
    if not shard.path.is_file():
        return False
    with FeatureCache(shard.path) as cache:
        return cache.shard == shard.place and cache.images.rows() == list(shard.rows)


class KnownFeatures:
    """Features found in shards of the same recipe, by the content of their image."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._places: dict[str, tuple[Path, int]] = {}
        self._open: FeatureCache | None = None
        for path in files:
            with FeatureCache(path) as cache:
                for position, digest in enumerate(cache.images["sha256"].tolist()):
                    self._places[digest] = (path, position)

    def __contains__(self, row: ImageRow) -> bool:
        return row.sha256 in self._places

    def get(self, row: ImageRow) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
        """Features (n, D) and coordinates (n, 2) of an image."""
        path, position = self._places[row.sha256]
        if self._open is None or self._open.path != path:
            self.close()
            self._open = FeatureCache(path)
        return self._open.sequence(position), self._open.coords(position)

    def close(self) -> None:
        """Close the file that was read last."""
        if self._open is not None:
            self._open.close()
            self._open = None


def unknown_rows(shards: Sequence[Shard], known: KnownFeatures) -> Iterator[ImageRow]:
    """The images of some shards that must be encoded, in order."""
    return (row for shard in shards for row in shard.rows if row not in known)

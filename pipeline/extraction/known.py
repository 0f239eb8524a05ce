"""Features that need not be computed again: of the same recipe, by the content of their image."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import (
    CacheError,
    FeatureCache,
    ImageRow,
    ImageStatistics,
    Recipe,
    RecipeError,
    Statistics,
)
from cache.proof import stored_statistics
from cache.salvage import intact_images, proved_rows
from cache.sequences import read_rows

log = logging.getLogger(__name__)


class KnownFeatures:
    """The images whose features lie in some caches, each proved by its digest.

    From a damaged file, the images that the damage did not reach are taken.

    Args:
        recipe: of the features.
        statistics: whether images are taken with their statistics, from files that hold them, or
            without.
    """

    def __init__(self, recipe: Recipe, *, statistics: bool = True) -> None:
        self._recipe, self._with_statistics = recipe, statistics
        self._places: dict[str, tuple[Path, int]] = {}
        self._contents: dict[str, str] = {}
        self._open: FeatureCache | None = None
        self._statistics: Statistics | None = None

    def add(self, path: Path, manifest: Sequence[ImageRow] = ()) -> None:
        """Learn what a file holds.

        Args:
            path: a cache or shard, damaged or not.
            manifest: rows to put in the place of a damaged image table, if they are the same.

        Raises:
            CacheError: nothing in it can be used.
        """
        with FeatureCache(path, seal="absent") as cache:
            differences = self._recipe.differences(cache.recipe)
            if differences:
                raise RecipeError(f"{path}: made by another recipe: {'; '.join(differences)}")
            if self._with_statistics and len(cache) and not cache.has_statistics:
                version = cache.attributes["format_version"]
                raise CacheError(f"{path}: holds no statistics of its images (format {version})")
            rows, intact = proved_rows(cache, manifest), intact_images(cache)
        for position in intact:
            self._places.setdefault(rows[position].sha256, (path, position))
            self._contents[rows[position].image_id] = rows[position].sha256
        if len(intact) < len(rows):
            log.warning("%s: %d of %d images are damaged", path, len(rows) - len(intact), len(rows))

    def add_all(self, paths: Iterable[Path]) -> None:
        """Learn what files hold; those of which nothing can be used are named in the log."""
        for path in paths:
            try:
                self.add(path)
            except CacheError as error:
                log.warning("not used, its images are encoded again: %s", error)

    def __contains__(self, row: ImageRow) -> bool:
        return row.sha256 in self._places

    def changed(self, rows: Sequence[ImageRow]) -> list[str]:
        """The ids among `rows` that were known with another content."""
        return [r.image_id for r in rows if self._contents.get(r.image_id, r.sha256) != r.sha256]

    def get(
        self, row: ImageRow
    ) -> tuple[NDArray[np.floating], NDArray[np.int32], ImageStatistics | None]:
        """Features (n, D), coordinates (n, 2) and statistics of an image."""
        path, position = self._places[row.sha256]
        if self._open is None or self._open.path != path:
            self.close()
            self._open = FeatureCache(path, seal="absent")
            self._statistics = stored_statistics(self._open) if self._with_statistics else None
        start, stop = self._open.stored_offsets[position : position + 2]
        features, coords = read_rows(self._open, int(start), int(stop))
        return features, coords, self._statistics[position] if self._statistics else None

    def close(self) -> None:
        """Close the file that was read last."""
        if self._open is not None:
            self._open.close()
            self._open = None

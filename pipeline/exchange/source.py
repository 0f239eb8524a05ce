"""A cache as an export reads it: one view, image after image."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import FeatureCache, ImageRow, Recipe
from pipeline.errors import UsageError
from pipeline.interrupts import Interruption
from pipeline.progress import Advance

_TURNED = ("transpose", "rot90", "rot270", "antitranspose")


@dataclass(frozen=True, eq=False)
class Image:
    """One image of an export.

    Attributes:
        row: its row of the image table, with the size of the view.
        features: (n, D) float16 or float32.
        coords: (n, 2) int32, x and y of each patch's top-left pixel.
    """

    row: ImageRow
    features: NDArray[np.floating]
    coords: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Source:
    """The images of one view of an open cache.

    Attributes:
        cache: the cache.
        view: position of the view in the cache's recipe.
        interruption: looked at before each image.
        advance: told of each image.
    """

    cache: FeatureCache
    view: int
    interruption: Interruption
    advance: Advance

    @property
    def recipe(self) -> Recipe:
        """The recipe of this view alone."""
        return dataclasses.replace(self.cache.recipe, views=(self.cache.recipe.views[self.view],))

    @property
    def rows(self) -> list[ImageRow]:
        """The images, in the cache's order, with the size of the view."""
        view = self.cache.recipe.views[self.view]
        return [in_view(row, view) for row in self.cache.images.rows()]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(N + 1,) rows at which the images of this view begin, one after another."""
        return self.cache.offsets // len(self.cache.recipe.views)

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted(set(self.cache.images["label"].tolist()))

    def images(self) -> Iterator[Image]:
        """Read one image after another.

        Raises:
            CacheDamagedError: a checksum is wrong.
            StoppedError: a signal came.
        """
        for position, row in enumerate(self.rows):
            if self.interruption:
                raise self.interruption.error("nothing was exported; run the same command again")
            features = self.cache.sequence(position, self.view)
            yield Image(row, features, self.cache.coords(position, self.view))
            self.advance(1)


def in_view(row: ImageRow, view: str) -> ImageRow:
    """The row of an image with the width and height that it has in a view."""
    return row._replace(width=row.height, height=row.width) if view in _TURNED else row


def find_view(path: Path, recipe: Recipe, view: str | None) -> int:
    """The position of the view to export; the only one if none is named.

    Raises:
        UsageError: there is no such view, or there are several and none is named.
    """
    if view is None and len(recipe.views) == 1:
        return 0
    if view in recipe.views:
        return recipe.views.index(view)
    found = f"holds the views {', '.join(recipe.views)}"
    asked = "of which other tools know only one" if view is None else f"not {view}"
    raise UsageError(f"{path}: {found}, {asked}: choose with --view {recipe.views[0]}")

"""Read the file of one image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import ImageRow, Recipe
from pipeline.exchange.describe import as_pixels, describe
from pipeline.exchange.foreign_file import ForeignFileError, opened, read_coords, read_features
from pipeline.exchange.layouts import LAYOUTS
from pipeline.exchange.origin import Origin
from pipeline.exchange.source import in_view


@dataclass(frozen=True, eq=False)
class Imported:
    """What a file holds.

    Attributes:
        row: the image.
        recipe: how the features were made.
        features: (n, D) float16 or float32, as in the file.
        coords: (n, 2) int32, pixels.
    """

    row: ImageRow
    recipe: Recipe
    features: NDArray[np.floating]
    coords: NDArray[np.int32]


def read_image(path: Path, row: ImageRow, origin: Origin) -> Imported:
    """Read a file and check it.

    Args:
        path: the file.
        row: the image that it is of, with the size that the manifest gives.
        origin: where the files come from.

    Raises:
        ForeignFileError: it cannot be taken; the message says why, without its name.
    """
    layout = LAYOUTS[origin.tool]
    with opened(path) as file:
        features = read_features(file, layout.features)
        coords = as_pixels(read_coords(file, layout.coords, len(features)), origin.mpp)
        described = describe(file, origin.tool, origin.mpp)
    recipe = origin.recipe(described, features.shape[1], features.dtype.name)
    _check_inside(coords, in_view(row, recipe.views[0]))
    return Imported(row, recipe, features, coords)


def _check_inside(coords: NDArray[np.int32], row: ImageRow) -> None:
    """Patches outside of the image show a manifest, or a size of a pixel, that is not theirs."""
    x, y = coords.max(axis=0).tolist()
    if row.width and row.height and (x >= row.width or y >= row.height):
        raise ForeignFileError(
            f"patches reach ({x}, {y}), the image has {row.width} × {row.height} pixels: check "
            "that manifest and files belong together, and --mpp if it was given"
        )


def stored(image: Imported, recipe: Recipe) -> NDArray[np.floating]:
    """The features of an image in the type of a recipe.

    Args:
        image: the image.
        recipe: that of the images before it.

    Raises:
        ForeignFileError: they were made by another recipe, or lose digits in that type.
    """
    differences = [
        line for line in recipe.differences(image.recipe) if not line.startswith("dtype:")
    ]
    if differences:
        raise ForeignFileError(
            "not made as those of the images before: " + "; ".join(differences) + ": import each "
            "kind into a cache of its own"
        )
    with np.errstate(over="ignore"):
        rounded: NDArray[np.floating] = image.features.astype(recipe.dtype)
    if not np.array_equal(rounded, image.features):
        raise ForeignFileError(
            f"features are {image.features.dtype} and change in {recipe.dtype}, in which the "
            "others are: export again, or convert the files to one type"
        )
    return rounded

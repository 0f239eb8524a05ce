"""Export as TRIDENT lays its patch features."""

import re
from pathlib import Path

import numpy as np

from cache import ImageRow, Recipe
from pipeline.exchange.h5_files import Arrays, Attributes, Content, write_h5
from pipeline.exchange.layouts import encoder_name
from pipeline.exchange.options import Facts, Options
from pipeline.exchange.source import Source

_UNKNOWN = "None"
"""What TRIDENT itself writes for an attribute without a value."""


def write_trident(source: Source, folder: Path, options: Options) -> Facts:
    """Write `features_<encoder>/<image_id>.h5`: features float32, coords int64, attributes."""
    del options
    encoder = encoder_name(source.recipe.encoder)
    files = folder / f"features_{re.sub(r'[^A-Za-z0-9._-]', '_', encoder)}"
    files.mkdir()
    for image in source.images():
        arrays: Arrays = {
            "features": image.features.astype(np.float32),
            "coords": image.coords.astype(np.int64),
        }
        named: Attributes = {"name": image.row.image_id, "savetodir": files.name}
        attributes: dict[str, Attributes] = {
            "features": {**named, "encoder": encoder},
            "coords": {**named, **_grid(source.recipe, image.row)},
        }
        write_h5(files / f"{image.row.image_id}.h5", Content(arrays, attributes))
    return {"files": files.name}


def _grid(recipe: Recipe, row: ImageRow) -> Attributes:
    """Patches are cut from the image as it is: both magnifications are its own."""
    magnification = row.magnification or _UNKNOWN
    return {
        "patch_size": recipe.patch_size,
        "patch_size_level0": recipe.patch_size,
        "level0_magnification": magnification,
        "target_magnification": magnification,
        "overlap": recipe.patch_size - recipe.stride,
        "level0_width": row.width,
        "level0_height": row.height,
    }

"""Export as plain arrays and text."""

import io
from pathlib import Path

import numpy as np

from cache.layout import COORD_DTYPE
from pipeline.exchange.options import Facts, Options
from pipeline.exchange.source import Source


def write_numpy(source: Source, folder: Path, options: Options) -> Facts:
    """Write `features.npy` (P, D), `coords.npy` (P, 2), `offsets.npy` (N + 1,) and `recipe.json`.

    Image i has rows `offsets[i]` up to `offsets[i + 1]`, and line i of `images.csv`.
    """
    del options
    recipe, patches = source.recipe, int(source.offsets[-1])
    dtype = np.dtype(recipe.dtype).newbyteorder("<")
    with (
        (folder / "features.npy").open("wb") as features,
        (folder / "coords.npy").open("wb") as coords,
    ):
        features.write(_header((patches, recipe.feature_dim), dtype))
        coords.write(_header((patches, 2), COORD_DTYPE))
        for image in source.images():
            features.write(image.features.tobytes())
            coords.write(image.coords.tobytes())
    np.save(folder / "offsets.npy", source.offsets)
    (folder / "recipe.json").write_text(recipe.to_json() + "\n", encoding="utf-8")
    return {}


def _header(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bytes:
    """What a .npy file begins with: rows can follow one image at a time."""
    memory = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        memory, {"descr": dtype.str, "fortran_order": False, "shape": shape}
    )
    return memory.getvalue()

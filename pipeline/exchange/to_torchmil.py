"""Export as torchmil's `ProcessedMILDataset` reads bags."""

from pathlib import Path

import numpy as np

from pipeline.exchange.options import Facts, Options
from pipeline.exchange.source import Source


def write_torchmil(source: Source, folder: Path, options: Options) -> Facts:
    """Write `features`, `labels` and `coords`, a folder each, with `<id>.npy` an image.

    Features are float32 (n, D), as its networks take them; a label is int64 (1,), the position
    in `classes` of `export.json`; coordinates are int64 (n, 2), in pixels.
    """
    del options
    for name in ("features", "labels", "coords"):
        (folder / name).mkdir()
    classes = source.labels
    for image in source.images():
        file = f"{image.row.image_id}.npy"
        label = np.array([classes.index(image.row.label)], np.int64)
        np.save(folder / "features" / file, image.features.astype(np.float32))
        np.save(folder / "labels" / file, label)
        np.save(folder / "coords" / file, image.coords.astype(np.int64))
    # torchmil joins patches at most `dist_thr` apart: here neighbours, diagonal ones included.
    return {"classes": classes, "dist_thr": 1.5 * source.recipe.stride}

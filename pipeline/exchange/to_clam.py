"""Export as CLAM lays its patch features."""

from pathlib import Path

import numpy as np

from pipeline.exchange.h5_files import Content, write_h5
from pipeline.exchange.options import Facts, Options
from pipeline.exchange.source import Source
from pipeline.tables import write_table


def write_clam(source: Source, folder: Path, options: Options) -> Facts:
    """Write `h5_files/<id>.h5`, `pt_files/<id>.pt` and `dataset.csv`: float32, coords int32."""
    import torch

    del options
    h5_files, pt_files = folder / "h5_files", folder / "pt_files"
    h5_files.mkdir()
    pt_files.mkdir()
    for image in source.images():
        name, features = image.row.image_id, image.features.astype(np.float32)
        write_h5(h5_files / f"{name}.h5", Content({"features": features, "coords": image.coords}))
        torch.save(torch.from_numpy(features), pt_files / f"{name}.pt")
    rows = [(r.case or r.slide or r.image_id, r.image_id, r.label) for r in source.rows]
    write_table(folder / "dataset.csv", ("case_id", "slide_id", "label"), rows)
    return {}

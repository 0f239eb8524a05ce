"""Export as STAMP lays its tile features: coordinates in micrometres."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import ImageRow
from pipeline.errors import PipelineError, UsageError
from pipeline.exchange.h5_files import Attributes, Content, write_h5
from pipeline.exchange.layouts import encoder_name
from pipeline.exchange.micrometres import to_micrometres, to_pixels
from pipeline.exchange.options import Facts, Options
from pipeline.exchange.source import Image, Source
from pipeline.tables import write_table

_LAYOUT_VERSION = "2.1.0"
"""The release whose layout this is; STAMP refuses files of a release later than its own."""


def write_stamp(source: Source, folder: Path, options: Options) -> Facts:
    """Write `features/<id>.h5`, `clini.csv` and `slide.csv`: features in the cache's type.

    Raises:
        UsageError: the size of a pixel is not stated.
        PipelineError: a patient has images of several labels.
    """
    mpp = options.mpp
    if mpp is None:
        raise UsageError(
            "--mpp is missing: STAMP's coordinates are micrometres, and the cache does not know "
            "the size of a pixel: state it, such as --mpp 0.5"
        )
    _write_tables(folder, source.rows)
    files = folder / "features"
    files.mkdir()
    patch_size = source.recipe.patch_size
    attributes: Attributes = {
        "extractor": encoder_name(source.recipe.encoder),
        "unit": "um",
        "tile_size_um": patch_size * mpp,
        "tile_size_px": patch_size,
        "stamp_version": _LAYOUT_VERSION,
        "feat_type": "tile",
    }
    for image in source.images():
        arrays = {"feats": image.features, "coords": _micrometres(image, mpp)}
        write_h5(files / f"{image.row.image_id}.h5", Content(arrays, {"/": attributes}))
    return {}


def _micrometres(image: Image, mpp: float) -> NDArray[np.float32]:
    lengths = to_micrometres(image.coords, mpp)
    if not np.array_equal(to_pixels(lengths, mpp), image.coords):
        raise PipelineError(
            f"{image.row.image_id}: coordinates up to {int(image.coords.max()):,} pixels of {mpp} "
            "micrometres cannot be told apart in float32, which STAMP takes: export --to trident"
        )
    return lengths


def _write_tables(folder: Path, rows: Sequence[ImageRow]) -> None:
    patients = [row.case or row.slide or row.image_id for row in rows]
    labels: dict[str, str] = {}
    for patient, row in zip(patients, rows, strict=True):
        if labels.setdefault(patient, row.label) != row.label:
            raise PipelineError(
                f"{row.image_id}: label {row.label!r}, another image of patient {patient!r} has "
                f"{labels[patient]!r}: STAMP takes one label a patient: correct it with `pipeline "
                "cache relabel`, or export --to trident"
            )
    write_table(folder / "clini.csv", ("PATIENT", "label"), sorted(labels.items()))
    files = [f"{row.image_id}.h5" for row in rows]
    write_table(folder / "slide.csv", ("PATIENT", "FILENAME"), zip(patients, files, strict=True))

"""A whole run on a small data set, from images to metrics, as the workflow leaves it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cache import ImageRow
from pipeline.dataset.manifest import write_manifest
from pipeline.evaluation.evaluate import evaluate
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.recipe import PatchOptions
from pipeline.fitting.fit import fit_lstm
from pipeline.fitting.options import FitOptions
from pipeline.splits.make import make_splits
from pipeline.splits.table import write_splits

PATCH = 32
SIZE = (100, 70)  # three by two patches, and what does not fill one


@dataclass(frozen=True)
class SmallRun:
    """A folder as of the workflow, and the weights that its features were made with."""

    folder: Path
    weights: Path

    @property
    def fits(self) -> Path:
        return self.folder / "fits"

    def model(self, fold: int) -> Path:
        return self.fits / f"fold{fold}/model.safetensors"


def tissue(seed: int, label: str, size: tuple[int, int] = SIZE) -> Image.Image:
    """Blots of the colours of a stain, larger and darker if malignant."""
    random = np.random.default_rng(seed)
    width, height = size
    pixels = np.full((height, width, 3), (225, 185, 215), np.float64)
    y, x = np.mgrid[:height, :width]
    for _ in range(40):
        centre = random.uniform(0, 1, 2) * (width, height)
        radius = random.uniform(2, 4) * (1.6 if label == "malignant" else 1.0)
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        pixels[inside] = (110, 70, 150)
    pixels += random.normal(0, 6, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_tissue(path: Path, seed: int, label: str, **row: object) -> ImageRow:
    """Write an image; its row has the path's name, relative to the folder above it."""
    image = tissue(seed, label)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = str(path.relative_to(path.parents[1]))
    fields = {"subtype": "", "slide": "", "case": "", "magnification": 100, **row}
    return ImageRow(path.stem, name, label, *fields.values(), image.width, image.height, digest)  # type: ignore[arg-type]


def make_run(
    folder: Path,
    weights: Path,
    labels: Sequence[str] = ("benign", "malignant"),
    patches: PatchOptions | None = None,
    companions: bool = True,
) -> SmallRun:
    """Images of 12 cases, features of a random encoder, three folds."""
    rows = []
    for i in range(24):
        case = i % 12
        label = labels[case % len(labels)]
        kind = {"subtype": f"kind{case % 3}", "slide": f"s{case}", "case": f"c{case}"}
        rows.append(write_tissue(folder / f"images/image{i:02}.png", i, label, **kind))
    write_manifest(folder / "manifest.csv", rows)
    chosen = patches or PatchOptions(patch_size=PATCH, stride=PATCH, layers=("conv2_2",))
    options = ExtractOptions(patches=chosen, device="cpu", threads=1)
    extract(folder / "manifest.csv", weights, folder / "features.h5", options)
    write_splits(folder / "splits.csv", make_splits(rows, folds=3))
    fit = FitOptions(hidden=4, components=4, members=2, steps=30, companions=companions)
    fit_lstm(folder / "features.h5", folder / "splits.csv", folder / "fits", fit)
    evaluate(folder / "fits", folder / "metrics.json", "made to test with")
    return SmallRun(folder, weights)

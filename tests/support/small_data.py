"""Small data sets and weights to test with."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from cache import ImageRow
from pipeline.dataset.manifest import write_manifest


def describe_image(path: Path) -> ImageRow:
    """The row of an image file, without case and slide."""
    with Image.open(path) as image:
        width, height = image.size
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRow(path.stem, str(path), "benign", "", "", "", 100, width, height, digest)


def write_image(path: Path, seed: int, width: int = 70, height: int = 64) -> ImageRow:
    """Write an image of noise; its row has its name, size and digest."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return describe_image(path)._replace(path=path.name)


def write_study(folder: Path, images: int, cases: int = 6, **size: int) -> list[ImageRow]:
    """Write `images` images of `cases` cases, every other one malignant, and their manifest."""
    rows = []
    for i in range(images):
        case = i % cases
        row = write_image(folder / f"image{i:03}.png", i, **size)
        label = "malignant" if case % 2 else "benign"
        rows.append(row._replace(label=label, slide=f"s{case}", case=f"c{case}"))
    write_manifest(folder / "manifest.csv", rows)
    return rows

"""Time of stage two with all baselines, five folds, on a cache of the size of BreakHis 100X.

    .venv/bin/python tests/benchmarks/stage_two.py [--repeats 3] [--images 7909]

The features are random: 2,081 images of 82 slides, six patches each of 512 features. It is timed
from the command to the files on the disk, start-up included: one fold, five folds, and five folds
with all baselines.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cache import ImageRow, ImageStatistics, Recipe, write_cache
from pipeline.splits.make import make_splits
from pipeline.splits.table import write_splits

IMAGES, SLIDES, PATCHES, DIM = 2081, 82, 6, 512


def recipe() -> Recipe:
    return Recipe(
        encoder="random",
        weights="random(seed=0)",
        weights_sha256="0" * 64,
        layer="none",
        pooling="none",
        feature_dim=DIM,
        patch_size=224,
        stride=224,
        scan_order="raster",
        edge_policy="drop",
        colour="none",
        normalisation="none",
        precision="float32",
        dtype="float16",
        views=("identity",),
    )


def rows(images: int = IMAGES) -> list[ImageRow]:
    found = []
    for i in range(images):
        slide = i % SLIDES
        label = "benign" if slide < 24 else "malignant"  # as many slides of each as BreakHis has
        name = f"image{i:04}"
        found.append(
            ImageRow(name, name, label, "", f"s{slide}", f"c{slide}", 100, 700, 460, f"{i:064x}")
        )
    return found


def make(folder: Path, count: int = IMAGES) -> tuple[Path, Path]:
    """The cache and the splits."""
    random = np.random.default_rng(0)
    coords = np.stack(np.meshgrid([0, 224, 448], [0, 224]), -1).reshape(-1, 2).astype(np.int32)
    images = rows(count)
    with write_cache(folder / "features.h5", recipe(), {"made": "by a benchmark"}) as writer:
        for i, row in enumerate(images):
            shift = 0.2 * (row.label == "malignant")
            features = random.gamma(1.0, size=(PATCHES, DIM)).astype(np.float32) + shift
            colour = random.normal(size=12).astype(np.float32)
            bits = random.integers(0, 256, 32, dtype=np.uint8)
            writer.append(row, features, coords, ImageStatistics(colour, bits, f"{i:064x}"))
    write_splits(folder / "splits.csv", make_splits(images))
    return folder / "features.h5", folder / "splits.csv"


def seconds(folder: Path, *options: str) -> float:
    words = ["fit-lstm", "--cache", folder / "features.h5", "--splits", folder / "splits.csv"]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline", *words, "--out", folder / "fits", *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


KINDS = {
    "one fold, the LSTM alone": ["--no-companions", "--fold", "0"],
    "five folds, the LSTM alone": ["--no-companions"],
    "five folds, with all baselines": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), options.images)
        for _ in range(options.repeats):
            for kind, words in KINDS.items():
                times[kind].append(seconds(Path(name), *words))
    print(f"{options.images:,} images × {PATCHES} patches × {DIM} features\n")
    print("| what is fitted | median, s | repeats, s |\n|---|---|---|")
    for kind, found in times.items():
        shown = ", ".join(f"{one:.1f}" for one in found)
        print(f"| {kind} | {statistics.median(found):.1f} | {shown} |")


if __name__ == "__main__":
    main()

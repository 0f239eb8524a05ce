"""The cache's own speed, against plain files of the same bytes.

    .venv/bin/python tests/benchmarks/cache_speed.py [--images 7909] [--repeats 5]

Features are random, of the default recipe's length: 6 patches of 1,792 numbers an image, as
float16. Ways alternate; the file is in the page cache, as it is right after extraction.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from stage_two import recipe

from cache import FeatureCache, ImageRow, write_cache
from cache.bulk import read_unchecked

DIM, PATCHES = 1792, 6


def main() -> None:
    """Time everything and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=7909)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        report(Path(folder), options.images, options.repeats)


def report(folder: Path, images: int, repeats: int) -> None:
    """The tables."""
    features = np.random.default_rng(0).random((images * PATCHES, DIM), np.float32).astype("f2")
    raw, file = folder / "raw", folder / "cache.h5"
    writing = measured(
        {
            "numpy.tofile, flushed": lambda: plain(raw, features),
            "plain HDF5, image by image, flushed": lambda: plain_hdf5(folder / "p.h5", features),
            "`write_cache`": lambda: write(file, features),
        },
        repeats,
    )
    show(f"Writing {features.nbytes / 1e6:.0f} MB, {images} images", writing)
    cache = FeatureCache(file)
    dataset = cache._datasets["features"]
    reading = measured(
        {
            "numpy.fromfile": lambda: np.fromfile(raw, "f2"),
            "`cache.bulk.read_unchecked`": lambda: read_unchecked(file, dataset),
            "`FeatureCache.features`: HDF5 and its checksums": cache.features,
            "`FeatureCache.load`: all digests checked": lambda: FeatureCache(file).load(),
        },
        repeats,
    )
    show("Reading all of it", reading)
    opening = measured({"open": lambda: FeatureCache(file).close()}, 20)["open"]
    some = np.random.default_rng(0).integers(0, images, 200).tolist()
    single = measured({"one": lambda: [cache.sequence(i) for i in some]}, repeats)["one"]
    print(f"Opening: {statistics.median(opening) * 1e3:.1f} ms. One image's sequence: ", end="")
    print(f"{statistics.median(single) / len(some) * 1e3:.2f} ms.\n")


def measured(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, in turn; a first round is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(repeats + 1):
        for way, function in ways.items():
            began = time.perf_counter()
            function()
            if number:
                seconds[way].append(time.perf_counter() - began)
    return seconds


def show(title: str, seconds: dict[str, list[float]]) -> None:
    """A table with ratios to the first way, of each round."""
    print(f"{title}:\n\n| | median, s | speed, of the first (least to most) |\n|---|---|---|")
    first = next(iter(seconds.values()))
    for way, taken in seconds.items():
        ratios = sorted(a / b for a, b in zip(first, taken, strict=True))
        middle = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {way} | {statistics.median(taken):.3f} | {middle} |")
    print()


def plain(path: Path, features: np.ndarray) -> None:
    """Bytes to a file, and to the disk."""
    with path.open("wb") as file:
        features.tofile(file)
        os.fsync(file.fileno())


def plain_hdf5(path: Path, features: np.ndarray) -> None:
    """What one would write: a growing dataset without checksums, digests or anything else."""
    with h5py.File(path, "w") as file:
        found = file.create_dataset("x", (0, DIM), "f2", maxshape=(None, DIM), chunks=(73, DIM))
        for start in range(0, len(features), PATCHES):
            found.resize(start + PATCHES, axis=0)
            found[start:] = features[start : start + PATCHES]
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def write(path: Path, features: np.ndarray) -> None:
    """A cache: digests, checksums, read back, sealed, flushed, renamed."""
    coords = np.zeros((PATCHES, 2), np.int32)
    with write_cache(path, replace(recipe(), feature_dim=DIM), {}) as writer:
        for start in range(0, len(features), PATCHES):
            name = f"i{start // PATCHES:07}"
            row = ImageRow(name, name, "benign", "", name, name, 100, 700, 460, f"{start:064x}")
            writer.append(row, features[start : start + PATCHES], coords)


if __name__ == "__main__":
    main()

"""Time and memory of fitting one fold to images of hundreds to thousands of patches.

    .venv/bin/python tests/benchmarks/long_sequences.py [--images 60] [--patches 6 500 2000 8000]

The features are random, 512 a patch. The LSTM alone, with the defaults, so that longer sequences
are read in parts of 512; each length is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from large_images import most_memory
from stage_two import DIM, recipe, rows

from cache import write_cache
from pipeline.splits.make import make_splits
from pipeline.splits.table import write_splits


def main() -> None:
    """Run all lengths and print a table; or, as one of the processes, its length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--patches", type=int, nargs="+", default=[6, 500, 2000, 8000])
    parser.add_argument("--job", type=Path)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(job(options.job)))
        return
    print(f"{options.images} images\n\n| patches an image | features, MB | s | most memory, MB |")
    print("|---|---|---|---|")
    for patches in options.patches:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), options.images, patches)
            words = [sys.executable, __file__, "--job", name]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
            seconds, memory = json.loads(done.stdout.splitlines()[-1])
            size = 2e-6 * DIM * options.images * patches
            print(f"| {patches:,} | {size:.0f} | {seconds:.1f} | {memory:.0f} |")


def make(folder: Path, count: int, patches: int) -> None:
    """The cache and the splits."""
    random = np.random.default_rng(0)
    coords = np.stack([np.arange(patches) % 90, np.arange(patches) // 90], axis=1) * 224
    images = rows(count)
    with write_cache(folder / "features.h5", recipe(), {"made": "by a benchmark"}) as writer:
        for row in images:
            shift = 0.2 * (row.label == "malignant")
            writer.append(row, random.random((patches, DIM), np.float32) + shift, coords)
    write_splits(folder / "splits.csv", make_splits(images))


def job(folder: Path) -> tuple[float, float]:
    """Seconds of one fold, and megabytes."""
    from pipeline.fitting.fit import fit_lstm
    from pipeline.fitting.options import FitOptions

    began = time.perf_counter()
    options = FitOptions(companions=False)
    fit_lstm(folder / "features.h5", folder / "splits.csv", folder / "fits", options, fold=0)
    return time.perf_counter() - began, most_memory()


if __name__ == "__main__":
    main()

"""How time and memory grow with the number of images.

    .venv/bin/python tests/benchmarks/growth.py [--most 100000]

Stage one encodes images of 48 × 48 pixels with an encoder that answers at once, each number of
images in a process of its own; stage two is fitted on random features, 6 × 512 an image, one fold
of one member without baselines. Memory is the most that a process held, above that of the smallest
run, so that libraries do not count.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from stage_two import recipe

from cache import ImageRow, write_cache

SIDE = 48
STEPS = 50


def main() -> None:
    """Run every size in a process and print the tables; or, as such a process, run one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=100_000)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        print(json.dumps({"one": one_extraction, "two": one_fit}[options.one[0]](options.one[1])))
        return
    sizes = [n for n in (100, 1_000, 10_000, 100_000, 1_000_000) if n <= options.most]
    for stage, make in (("one", make_images), ("two", make_features)):
        print(f"Stage {stage}:\n\n| images | s | ms an image | most memory, MB | above the first |")
        print("|---|---|---|---|---|")
        first = 0.0
        for number in sizes:
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                make(Path(folder), number)
                seconds, memory = run(stage, folder)
            first = first or memory
            each = f"{seconds / number * 1e3:.2f} | {memory:.0f} | {memory - first:.0f}"
            print(f"| {number:,} | {seconds:.1f} | {each} |", flush=True)
        print()


def run(stage: str, folder: str) -> tuple[float, float]:
    """Seconds and megabytes of one run."""
    command = [sys.executable, __file__, "--one", stage, folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def most_memory() -> float:
    """MB, of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def row_of(number: int, path: str, digest: str) -> ImageRow:
    """Row of one of many images, ten of each of many cases."""
    label = "malignant" if number // 10 % 2 else "benign"
    case = f"c{number // 10}"
    return ImageRow(f"i{number:07}", path, label, "", case, case, 100, SIDE, SIDE, digest)


def make_images(folder: Path, number: int) -> None:
    """Files, a thousand a folder, and their manifest."""
    import hashlib

    from pipeline.dataset.manifest import write_manifest

    rng, rows = np.random.default_rng(0), []
    for i in range(number):
        path = folder / f"{i // 1000}/{i}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(row_of(i, str(path.relative_to(folder)), digest))
    write_manifest(folder / "manifest.csv", rows)


def one_extraction(folder: str) -> tuple[float, float]:
    """Extract with an encoder that answers at once."""
    from safety_cost import Instant

    from pipeline.extraction import extract as stage
    from pipeline.extraction.recipe import PatchOptions
    from pipeline.weights.weights_file import publish_weights, random_weights

    root = Path(folder)
    publish_weights(random_weights(0), root / "w.safetensors")
    stage.make_encoder = lambda *_: Instant()
    options = stage.ExtractOptions(PatchOptions(32, 32), "cpu", images_per_shard=512)
    began = time.perf_counter()
    stage.extract(root / "manifest.csv", root / "w.safetensors", root / "f.h5", options)
    return time.perf_counter() - began, most_memory()


def make_features(folder: Path, number: int) -> None:
    """A cache and splits."""
    from pipeline.splits.make import make_splits
    from pipeline.splits.table import write_splits

    rng, rows = (
        np.random.default_rng(0),
        [row_of(i, f"{i}.png", f"{i:064x}") for i in range(number)],
    )
    with write_cache(folder / "f.h5", replace(recipe()), {}) as writer:
        for row in rows:
            writer.append(row, rng.random((6, 512), np.float32), np.zeros((6, 2), np.int32))
    write_splits(folder / "s.csv", make_splits(rows, folds=5, group_by="case", seed=0))


def one_fit(folder: str) -> tuple[float, float]:
    """Fit one fold, with a number of steps that does not depend on the images."""
    from pipeline.fitting.fit import fit_lstm
    from pipeline.fitting.options import FitOptions

    root = Path(folder)
    options = FitOptions(companions=False, steps=STEPS, checks=1, members=1)
    began = time.perf_counter()
    fit_lstm(root / "f.h5", root / "s.csv", root / "fits", options, fold=0)
    return time.perf_counter() - began, most_memory()


if __name__ == "__main__":
    main()

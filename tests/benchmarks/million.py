"""A million images in 200 shards, merged: time, memory and disk, on this machine.

    .venv/bin/python tests/benchmarks/million.py [--images 1000000] [--shards 200]

Each shard is a process of its own, as a job of a cluster is, one after another; the encoder
answers at once with as many features as the default recipe has. 1,000 image files of 96 × 64
pixels, six patches, are each named by many rows of the manifest, so reading, decoding, digests and
writing are real. Needs 45 KB of disk an image.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from large_images import most_memory
from PIL import Image

from cache import ImageRow
from pipeline.tables import write_table

FILES, SIZE = 1000, (96, 64)
MERGES = {"merged": "merge", "virtual": "merge without copying"}


def main() -> None:
    """Run everything and print a table; or, as one of the processes, its part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--job", nargs=3)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(job(*options.job)))
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        began = time.perf_counter()
        make(folder, options.images)
        made = time.perf_counter() - began
        parts = [f"{number}/{options.shards}" for number in range(1, options.shards + 1)]
        shards = [run("extract", folder, part) for part in parts]
        merged = {name: run(name, folder, "-") for name in MERGES}
        report(folder, options.images, made, shards, merged)


def report(
    folder: Path,
    images: int,
    made: float,
    shards: list[tuple[float, float]],
    merged: dict[str, tuple[float, float]],
) -> None:
    """Print what was measured."""
    total, most = sum(seconds for seconds, _ in shards), max(memory for _, memory in shards)
    manifest = (folder / "manifest.csv").stat().st_size / 1e9
    print(
        f"{images:,} images in {len(shards)} shards; manifest {manifest:.2f} GB; making the images"
    )
    print(f"and the manifest took {made:.0f} s\n")
    print("| | s | ms an image | most memory of a process, MB |\n|---|---|---|---|")
    print(
        f"| all shards, one after another | {total:.0f} | {1e3 * total / images:.2f} | {most:.0f} |"
    )
    for name, (seconds, memory) in merged.items():
        size = (folder / f"{name}.h5").stat().st_size / 1e9
        shown = f"| {MERGES[name]}, to {size:.2f} GB "
        print(f"{shown}| {seconds:.0f} | {1e3 * seconds / images:.2f} | {memory:.0f} |")


def run(what: str, folder: Path, part: str) -> tuple[float, float]:
    """Seconds and megabytes of one process."""
    command = [sys.executable, __file__, "--job", what, str(folder), part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def make(folder: Path, images: int) -> None:
    """Image files, and a manifest that names each many times."""
    rng, digests = np.random.default_rng(0), []
    (folder / "images").mkdir()
    for number in range(FILES):
        path = folder / f"images/{number}.png"
        Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    rows = (
        ImageRow(
            *(f"i{n:07}", f"images/{n % FILES}.png", ("benign", "malignant")[n // 100 % 2], ""),
            *(f"s{n // 100}", f"c{n // 100}", 100, *SIZE, digests[n % FILES]),
        )
        for n in range(images)
    )
    write_table(folder / "manifest.csv", ImageRow._fields, rows)


def job(what: str, folder: str, part: str) -> tuple[float, float]:
    """Extract a part with an encoder that answers at once, or merge all."""
    from safety_cost import Instant

    from pipeline.caches.merge import merge_shards
    from pipeline.extraction import extract as stage
    from pipeline.extraction.part import Part
    from pipeline.extraction.recipe import PatchOptions
    from pipeline.weights.weights_file import publish_weights, random_weights

    root, began = Path(folder), time.perf_counter()
    if what in MERGES:
        merge_shards([root / "shards"], root / f"{what}.h5", virtual=what == "virtual")
        return time.perf_counter() - began, most_memory()
    weights = root / "w.safetensors"
    if not weights.exists():
        publish_weights(random_weights(0), weights)
    stage.make_encoder = lambda *_: Instant()
    chosen = Part.parse(part)
    options = stage.ExtractOptions(PatchOptions(32, 32), "cpu", images_per_shard=512, part=chosen)
    stage.extract(root / "manifest.csv", weights, root / f"shards/{chosen.number:05}.h5", options)
    return time.perf_counter() - began, most_memory()


if __name__ == "__main__":
    main()

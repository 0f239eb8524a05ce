"""Memory and time of one image from 5,000 to 20,000 pixels a side, as VGG16 encodes it.

    .venv/bin/python tests/benchmarks/large_images.py [--sides 5000 10000 14000 20000]

The image is a tiled JPEG pyramid in a TIFF file: glass, with 2,000 × 2,000 pixels of tissue in its
middle, so that about as many patches are encoded at each size. Each size is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TISSUE = 2000


def main() -> None:
    """Run all sizes and print a table; or, as one of the processes, its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10_000, 14_000, 20_000])
    parser.add_argument("--job", type=Path)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(job(options.job)))
        return
    names = ["side, pixels", "megapixels", "file, MB", "patches", "encoded", "index, s"]
    print(" | ".join(["", *names, "extract, s", "most memory, MB", ""]).strip())
    print("|---" * 8 + "|")
    for side in options.sides:
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name), side)


def measure(folder: Path, side: int) -> None:
    """One size, in processes of their own: one makes the image, one reads it."""
    make = f"import large_images as b; b.make(b.Path({str(folder)!r}), {side})"
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", make], check=True, cwd=here)
    words = [sys.executable, __file__, "--job", str(folder)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    patches, index, extract, memory = json.loads(done.stdout.splitlines()[-1])
    size = (folder / "images/b/slide.tif").stat().st_size / 1e6
    print(
        f"| {side:,} | {side * side / 1e6:.0f} | {size:.0f} | {(side // 224) ** 2:,} | {patches} "
        f"| {index:.1f} | {extract:.1f} | {memory:.0f} |"
    )


def make(folder: Path, side: int) -> None:
    """A slide, and a small image of another class."""
    import pyvips

    from pipeline.weights.weights_file import publish_weights, random_weights

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (TISSUE, TISSUE, 3)) + np.array([190, 110, 160])
    tissue = pyvips.Image.new_from_array(noise.astype(np.uint8))
    place = (side - TISSUE) // 2
    slide = tissue.embed(
        *(place, place, side, side), extend="background", background=[243, 240, 242]
    )
    for name in ("a", "b"):
        (folder / "images" / name).mkdir(parents=True)
    tissue.crop(0, 0, 224, 224).pngsave(str(folder / "images/a/small.png"))
    slide.tiffsave(str(folder / "images/b/slide.tif"), tile=True, pyramid=True, compression="jpeg")
    publish_weights(random_weights(0), folder / "w.safetensors")


def job(folder: Path) -> tuple[int, float, float, float]:
    """Patches, seconds of both steps, and megabytes."""
    from pipeline.dataset.index import index_dataset
    from pipeline.extraction.extract import ExtractOptions, extract
    from pipeline.extraction.recipe import PatchOptions

    manifest, began = folder / "manifest.csv", time.perf_counter()
    index_dataset(folder / "images", manifest)
    indexed = time.perf_counter()
    options = ExtractOptions(PatchOptions(min_tissue=0.1), "cpu")
    result = extract(manifest, folder / "w.safetensors", folder / "f.h5", options)
    extracted = time.perf_counter() - indexed
    return result.patches, indexed - began, extracted, most_memory()


def most_memory() -> float:
    """MB of this process; `ru_maxrss` would include its parent's before it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1e3


if __name__ == "__main__":
    main()

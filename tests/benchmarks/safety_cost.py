"""What the cache's safety costs: extraction against a loop that writes features with none of it.

Both decode, describe and encode images by the same code. The plain loop appends to an HDF5 file:
no digest of the image or of the features, no checksum, no shards, no reading back, no flush, no
rename. Runs alternate in one process:

    .venv/bin/python tests/benchmarks/safety_cost.py --dataset ../shared/data/BreaKHis_v1 \
        --weights ../shared/weights/vgg16_imagenet_features.safetensors --images 48 --repeats 3

and prints a report in Markdown. The second and third table have an encoder that answers at once,
so that what remains is the cost itself.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from cache import ImageRow
from pipeline.ahead import ahead, usable_cpus
from pipeline.dataset.images import decode
from pipeline.dataset.index import index_dataset
from pipeline.dataset.manifest import image_path, read_manifest, write_manifest
from pipeline.dataset.picture import WholePicture
from pipeline.dataset.statistics import image_statistics
from pipeline.extraction import extract as stage
from pipeline.extraction.engines.choose import choose_backend, make_encoder
from pipeline.extraction.engines.encoder import Encoder, Pending
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.stream import ImageFeatures, encode_image
from pipeline.weights.weights_file import load_weights

PATCHES = PatchOptions()


class Instant:
    """An encoder that takes no time."""

    engine, device_name, batch_size, in_flight, side_by_side = "none", "none", 6, 1, True

    def submit(self, patches: np.ndarray) -> Pending:
        """Zeros."""
        features = np.zeros((len(patches), PATCHES.vgg16_dim), np.float32)
        return lambda: features


Make = Callable[..., Encoder]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        index_dataset(options.dataset, folder / "all.csv")
        rows = read_manifest(folder / "all.csv")
        write_manifest(folder / "manifest.csv", rows[:: max(1, len(rows) // options.images)])
        write_manifest(folder / "many.csv", rows)
        print(f"{usable_cpus()} CPUs, torch {torch.__version__}, {options.repeats} repeats\n")
        compare("VGG16", make_encoder, folder / "manifest.csv", options)
        compare("an encoder that takes no time", instant, folder / "many.csv", options)
        stage.IMAGES_PER_SHARD["cpu"] = stage.IMAGES_PER_SHARD["cuda"]
        compare("the same, in shards as on CUDA", instant, folder / "many.csv", options)


def instant(*_: object) -> Encoder:
    """In place of `make_encoder`."""
    return Instant()


def compare(title: str, make: Make, manifest: Path, options: argparse.Namespace) -> None:
    """Time both ways in turn and print them."""
    images = len(read_manifest(manifest))
    ways: dict[str, Callable[[], None]] = {
        "plain loop": lambda: plain(manifest, options.weights, make),
        "extraction": lambda: safe(manifest, options.weights, make),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways:
        ways[way]()  # not counted: reads the images from the disk for the first time
    for repeat in range(options.repeats):
        for way in sorted(ways, reverse=repeat % 2 == 1):
            began = time.perf_counter()
            ways[way]()
            seconds[way].append(time.perf_counter() - began)
    print(f"{title}, {images} images:\n")
    print("| | median, s | least, s | most, s | images a second |\n|---|---|---|---|---|")
    for way, taken in seconds.items():
        figures = (statistics.median(taken), min(taken), max(taken))
        shown = " | ".join(f"{figure:.2f}" for figure in (*figures, images / figures[0]))
        print(f"| {way} | {shown} |")
    pairs = list(zip(seconds["extraction"], seconds["plain loop"], strict=True))
    ratio = statistics.median(safe / plain for safe, plain in pairs)
    each = statistics.median(safe - plain for safe, plain in pairs) / images
    print(f"\nMedian of the paired ratios {ratio:.3f}, of the differences {each * 1e3:.2f} ms")
    print("an image.\n")


def safe(manifest: Path, weights: Path, make: Make) -> None:
    """What `pipeline extract` does."""
    out = manifest.with_name("safe.h5")
    stage.make_encoder = make
    stage.extract(manifest, weights, out, stage.ExtractOptions(PATCHES, "cpu"))
    out.unlink()
    shutil.rmtree(f"{out}.shards")


def plain(manifest: Path, weights: Path, make: Make) -> None:
    """The loop that one would write."""
    out = manifest.with_name("plain.h5")
    workers = usable_cpus()
    network = make(load_weights(weights), choose_backend("cpu"), PATCHES, workers)
    rows = read_manifest(manifest)

    def load(row: ImageRow) -> ImageFeatures:
        picture = WholePicture(decode(image_path(manifest, row).read_bytes()), "")
        image = ImageFeatures(row, picture, PATCHES)
        image.statistics = image_statistics(picture.pixels)
        encode_image(image, network)
        return image

    dim = PATCHES.vgg16_dim
    with h5py.File(out, "w") as file:
        features = file.create_dataset(
            "features",
            (0, dim),
            "f2",
            maxshape=(None, dim),
            chunks=(256, dim),
        )
        coords = file.create_dataset("coords", (0, 2), "i4", maxshape=(None, 2), chunks=(8192, 2))
        ends = [0]
        for image in ahead(load, rows, workers, workers):
            ends.append(ends[-1] + len(image.coords))
            features.resize(ends[-1], axis=0)
            coords.resize(ends[-1], axis=0)
            features[ends[-2] :] = image.features
            coords[ends[-2] :] = image.coords
        file["offsets"] = ends
        file["ids"] = [row.image_id for row in rows]
    out.unlink()


if __name__ == "__main__":
    main()

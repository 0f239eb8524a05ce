"""One new image, from its file to a probability, in a process that is warm.

    .venv/bin/python tests/benchmarks/one_image.py ../shared [--repeats 20]

The classifier has random weights, which take as long as any.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.ahead import usable_cpus
from pipeline.dataset.index import index_dataset
from pipeline.dataset.manifest import image_path, read_manifest
from pipeline.extraction.engines.choose import choose_backend, make_encoder
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.stream import ImageFeatures, encode_image, load_image
from pipeline.fitting.networks import LstmNetwork, NetworkSizes
from pipeline.fitting.options import FitOptions
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.training import predict
from pipeline.fitting.whitening import fit_whitening
from pipeline.weights.weights_file import load_weights

PATCHES = PatchOptions()


def main() -> None:
    """Time a few images, each alone, and print the median."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    weights = load_weights(options.shared / "weights/vgg16_imagenet_features.safetensors")
    encoder = make_encoder(weights, choose_backend("cpu"), PATCHES, usable_cpus())
    manifest = Path("one_image.csv")
    try:
        index_dataset(options.shared / "data/BreaKHis_v1", manifest)
        rows = read_manifest(manifest)[: options.repeats + 1]
        files = [image_path(manifest, row) for row in rows]
    finally:
        manifest.unlink()
        manifest.with_name("one_image.problems.csv").unlink(missing_ok=True)
    random = torch.rand(500, PATCHES.feature_dim, generator=torch.Generator().manual_seed(0))
    whitening = fit_whitening(random, np.arange(256), FitOptions())
    network = LstmNetwork(NetworkSizes(4, 32)).eval()
    network.initialise(torch.Generator().manual_seed(0))
    seconds = []
    for row, file in zip(rows, files, strict=True):
        began = time.perf_counter()
        image = load_image(file, row, PATCHES)
        assert isinstance(image, ImageFeatures)
        encode_image(image, encoder, PATCHES.patch_size, threads=usable_cpus())
        inputs = whitening.apply(torch.from_numpy(image.features))  # (6, 32)
        sequence = Sequences(inputs, torch.tensor([0, len(inputs)]))
        predict(network, sequence, torch.tensor([0])).mean(dim=0).sigmoid()
        seconds.append(time.perf_counter() - began)
    middle, least, most = statistics.median(seconds[1:]), min(seconds[1:]), max(seconds[1:])
    print(f"{usable_cpus()} CPUs, {encoder.engine}: {middle:.2f} s ({least:.2f} to {most:.2f})")


if __name__ == "__main__":
    main()

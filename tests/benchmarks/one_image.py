"""One new image in a process that is warm: to a probability, and to all that the app shows.

    .venv/bin/python tests/benchmarks/one_image.py ../shared [--repeats 20]

The models have random weights, which take as long as any: five folds of four members.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.ahead import usable_cpus
from pipeline.app.service import AppOptions, Service
from pipeline.extraction.recipe import PatchOptions, vgg16_recipe
from pipeline.fitting.familiar import Familiar
from pipeline.fitting.model_file import Model
from pipeline.fitting.networks import LstmNetwork, NetworkSizes
from pipeline.fitting.options import FitOptions
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.whitening import fit_whitening
from pipeline.prediction.ensemble import Ensemble
from pipeline.prediction.reader import Reader
from pipeline.weights.weights_file import Weights, load_weights

PATCHES = PatchOptions()
FOLDS, MEMBERS, INPUTS = 5, 4, 32


def main() -> None:
    """Time some images, each alone, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    weights = load_weights(options.shared / "weights/vgg16_imagenet_features.safetensors")
    ensemble = Ensemble(tuple(random_model(weights, fold) for fold in range(FOLDS)))
    reader = Reader.of(ensemble.recipe, weights, "cpu")
    service = Service(ensemble, reader, None, AppOptions())
    service.warm()
    files = sorted((options.shared / "data/BreaKHis_v1").rglob("*.png"))[: options.repeats]
    ways: dict[str, Callable[[Path], object]] = {
        "one model, a probability": lambda file: predict(
            Ensemble(ensemble.models[:1]), reader, file
        ),
        "five models, a probability": lambda file: predict(ensemble, reader, file),
        "five models, all that the app shows": lambda file: service.answer(
            file.name, file.read_bytes()
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for file in files:
        for name, way in ways.items():
            began = time.perf_counter()
            way(file)
            seconds[name].append(time.perf_counter() - began)
    print(f"{usable_cpus()} CPUs, {reader.encoder.engine}, {len(files)} images\n")
    print("| from the file to | median, s | least | most |\n|---|---|---|---|")
    for name, found in seconds.items():
        print(f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} | {max(found):.2f} |")


def predict(ensemble: Ensemble, reader: Reader, file: Path) -> object:
    seen = reader.read_one(file.name, file.read_bytes())
    return ensemble.judge(Sequences.from_arrays(seen.features, np.array([0, len(seen.features)])))


def random_model(weights: Weights, fold: int) -> Model:
    generator = torch.Generator().manual_seed(fold)
    features = torch.rand(500, PATCHES.vgg16_dim, generator=generator)
    network = LstmNetwork(NetworkSizes(MEMBERS, INPUTS)).eval()
    network.initialise(generator)
    return Model(
        whitening=fit_whitening(features, np.arange(256), FitOptions()),
        network=network,
        familiar=Familiar(torch.randn(2000, INPUTS, generator=generator), 1.0),
        recipe=vgg16_recipe(PATCHES, weights.name, weights.sha256, "float32"),
        classes=("benign", "malignant"),
        target="label",
        fold=fold,
        protocol="none",
        temperature=1.0,
        threshold=0.5,
        sequence_length=FitOptions().sequence_length,
    )


if __name__ == "__main__":
    main()

"""Every figure of the README's page "How to read these numbers", and the table of levers.

    .venv/bin/python tests/benchmarks/honest_numbers.py ../shared results/honest-numbers

It takes the 242 BreakHis images and the weights from the first folder, extracts their features
once (all layers), fits five folds for each of five seeds, case-disjoint, in every variant of the
table below, and writes `table.md` and the files it was made from to the second folder. What is
there already is not made again. About an hour on two CPU cores.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from honest_table import HEADER, draws, line, measured
from numpy.typing import NDArray
from PIL import Image

from pipeline.fitting.record import read_fits

ALL_LAYERS = "conv1_2,conv2_2,conv3_3,conv4_3,conv5_3,pool5"

PLAIN = (
    "--layers=pool5 --pooled=mean --compression=none --components=0 --projection=128 --hidden=64"
)
"""The plain reproduction: 512 pooled features, centred and scaled, a small bidirectional LSTM."""

CACHES: dict[str, tuple[str, list[str]]] = {
    "features": ("as they are", ["--layers", ALL_LAYERS, "--pooling", "mean+sd"]),
    "views": ("as they are", ["--layers", "conv2_2", "--views", "identity,rot180"]),
    "overlap": ("as they are", ["--layers", "conv2_2", "--stride", "112"]),
    "macenko": ("macenko", ["--layers", "conv2_2"]),
    "grey": ("grey", ["--layers", "conv2_2"]),
}
"""Caches that are made: from which version of the images, with which options."""

VARIANTS: dict[str, tuple[str, str]] = {
    "default": ("features", ""),
    "plain reproduction, 100 steps": ("features", f"{PLAIN} --checks=1"),
    "plain reproduction, stopped by one validation part": (
        "features",
        f"{PLAIN} --members=1 --steps=200 --checks=40",
    ),
    "layers: conv1_2": ("features", "--layers=conv1_2"),
    "layers: conv3_3": ("features", "--layers=conv3_3"),
    "layers: conv4_3": ("features", "--layers=conv4_3"),
    "layers: conv5_3": ("features", "--layers=conv5_3"),
    "layers: pool5": ("features", "--layers=pool5"),
    "layers: conv1_2 + conv2_2": ("features", "--layers=conv1_2,conv2_2"),
    "layers: conv2_2 + conv3_3": ("features", "--layers=conv2_2,conv3_3"),
    "layers: all six": ("features", "--layers=all"),
    "means only": ("features", "--pooled=mean"),
    "deviations only": ("features", "--pooled=sd"),
    "no logarithm": ("features", "--compression=none"),
    "not whitened": ("features", "--components=0"),
    "16 components": ("features", "--components=16"),
    "64 components": ("features", "--components=64"),
    "projection of 32": ("features", "--projection=32"),
    "hidden 16": ("features", "--hidden=16"),
    "hidden 64": ("features", "--hidden=64"),
    "one direction": ("features", "--one-direction"),
    "dropout 0": ("features", "--dropout=0"),
    "dropout 0.6": ("features", "--dropout=0.6"),
    "weight decay 0.1": ("features", "--weight-decay=0.1"),
    "1 member": ("features", "--members=1"),
    "50 steps": ("features", "--steps=50"),
    "300 steps": ("features", "--steps=300"),
    "overlapping patches, stride 112": ("overlap", ""),
    "two views: as it is and turned by 180°": ("views", ""),
    "Macenko stain normalisation": ("macenko", ""),
    "grey images": ("grey", ""),
    "layer chosen in each fold by its images set aside, from pool5": (
        "features",
        "--layers=pool5 " + " ".join(f"--try=layers={name}" for name in ALL_LAYERS.split(",")[:-1]),
    ),
}


def run(*words: object) -> None:
    """Run a verb of the pipeline."""
    subprocess.run([sys.executable, "-m", "pipeline", *map(str, words)], check=True)


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luminance (H, W) of RGB pixels, three times."""
    luminance = pixels @ np.array([0.299, 0.587, 0.114])  # (H, W)
    return np.repeat(luminance[..., None], 3, axis=2).round().astype(np.uint8)


def macenko(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Normalise the stains: Macenko et al., ISBI 2009, to the reference of that paper's code."""
    density = -np.log((pixels.reshape(-1, 3) + 1.0) / 256)  # (n, 3)
    tissue = density[(density > 0.15).all(axis=1)]
    plane = np.linalg.eigh(np.cov(tissue.T))[1][:, [2, 1]]  # (3, 2)
    plane = plane * np.where(plane[0] < 0, -1, 1)
    angles = np.arctan2(tissue @ plane[:, 1], tissue @ plane[:, 0])
    ends = np.percentile(angles, [1, 99])
    stains = plane @ np.stack([np.cos(ends), np.sin(ends)])  # (3, 2)
    stains = stains[:, np.argsort(-stains[0])]  # haematoxylin has more red
    amounts = np.linalg.lstsq(stains, density.T, rcond=None)[0]  # (2, n)
    reference = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
    most = np.array([1.9705, 1.0308]) / np.percentile(amounts, 99, axis=1)
    normal = 256 * np.exp(-(reference @ (amounts * most[:, None]))).T - 1
    return np.clip(normal, 0, 255).reshape(pixels.shape).astype(np.uint8)


CHANGES: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "macenko": macenko,
    "grey": grey,
}


def images(kind: str, shared: Path, out: Path) -> Path:
    """The folder of the images in one version."""
    source = shared / "data/BreaKHis_v1"
    if kind == "as they are":
        return source
    folder = out / kind
    for path in sorted(source.rglob("*.png")):
        copy = folder / path.relative_to(source)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(CHANGES[kind](np.asarray(Image.open(path).convert("RGB")))).save(copy)
    return folder


def make_cache(name: str, shared: Path, out: Path) -> None:
    """Extract one cache, if it is not there."""
    kind, options = CACHES[name]
    manifest = out / f"{kind.replace(' ', '_')}.csv"
    if not manifest.exists():
        run("index", images(kind, shared, out), "--out", manifest)
    weights = shared / "weights/vgg16_imagenet_features.safetensors"
    run(
        *("extract", "--manifest", manifest, "--weights", weights),
        *("--out", out / f"{name}.h5", *options),
    )


def fit(name: str, out: Path) -> Path:
    """Fit one variant, if it is not there; its folder."""
    cache, options = VARIANTS[name]
    folder = out / "fits" / "".join(c if c.isalnum() else "_" for c in name)
    if not (folder / "fold24/fit.json").exists():
        extra = [] if name == "default" or name.startswith("plain") else ["--no-companions"]
        words = ["--cache", out / f"{cache}.h5", "--splits", out / "splits.csv", "--out", folder]
        run("fit-lstm", *words, *options.split(), *extra)
    return folder


def main() -> None:
    """Make what is not there, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for name in CACHES:
        make_cache(name, arguments.shared, out)
    if not (out / "splits.csv").exists():
        run("split", out / "as_they_are.csv", "--out", out / "splits.csv", "--repeats", "5")
    folders = {name: fit(name, out) for name in VARIANTS}
    levels = out / "fits" / "image_level"
    if not (levels / "fold24/fit.json").exists():
        splits = out / "image_level.csv"
        options = ["--repeats", "5", "--group-by", "image"]
        run("split", out / "as_they_are.csv", "--out", splits, *options)
        run("fit-lstm", "--cache", out / "features.h5", "--splits", splits, "--out", levels)
    for name, folder in {"default": folders["default"], "image-level": levels}.items():
        run("evaluate", "--fits", folder, "--out", out / f"{name}.json")
    table = "\n".join(lines(folders))
    (out / "table.md").write_text(f"{table}\n")
    print(table)


def lines(folders: dict[str, Path]) -> Iterator[str]:
    """The table of all variants, then that of the baselines."""
    default = read_fits(folders["default"])
    resampling = draws(default.predictions)
    base = measured(default.predictions, resampling)
    yield HEADER
    for name, folder in folders.items():
        found = measured(read_fits(folder).predictions, resampling)
        yield line(name, found, None if name == "default" else base, resampling)
    for name in ("default", *(name for name in folders if name.startswith("plain"))):
        for companion, predictions in read_fits(folders[name]).companions.items():
            found = measured(predictions, resampling)
            yield line(f"{companion} beside {name}", found, base, resampling)


if __name__ == "__main__":
    main()

"""Stage one from image files to a verified cache, against what one would use instead.

    .venv/bin/python tests/benchmarks/stage_one.py ../shared [--images 32] [--repeats 3]

Each peer is installed into an environment of its own under results/peers/ and runs the loop in
peers/loop.py: decode, cut, encode, keep the mean over the last layer. `pipeline extract` does all
that it does by default: three layers, means and deviations, statistics, digests, reading back.
Whole commands are timed, in turn, each with the start of its interpreter; agreement is that of the
last layer's means, stored as float32, with the plain torch loop.
"""

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from cache import FeatureCache
from pipeline.ahead import usable_cpus
from pipeline.dataset.manifest import image_path, read_manifest, write_manifest

PEERS = {
    "torch": ["torch==2.13.0"],
    "onnxruntime": ["onnxruntime", "onnx"],
    "openvino": ["openvino", "onnx"],
}
COMMON = ["numpy", "pillow", "safetensors"]
PEERS_FOLDER = Path("results/peers")
OURS = {"pipeline extract": "ncnn", "pipeline extract --engine torch": "torch"}


def installed(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made if it is not there."""
    folder = PEERS_FOLDER / peer
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        packages = [*PEERS[peer], *COMMON]
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", *packages], check=True)
        (folder / "done").touch()
    return (folder / "bin/python").absolute()


def timed(words: list[object]) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    return time.perf_counter() - began


class Work:
    """A few real images, and what encodes them."""

    def __init__(self, shared: Path, images: int, folder: Path) -> None:
        self.weights = shared / "weights/vgg16_imagenet_features.safetensors"
        self.folder = folder
        pipeline("index", shared / "data/BreaKHis_v1", "--out", folder / "all.csv")
        rows = read_manifest(folder / "all.csv")
        chosen = rows[:: max(1, len(rows) // images)][:images]
        self.rows = chosen
        write_manifest(folder / "manifest.csv", chosen)
        files = [str(image_path(folder / "all.csv", row).absolute()) for row in chosen]
        (folder / "files.txt").write_text("\n".join(files) + "\n")

    def ours(self, engine: str, number: int) -> float:
        """Seconds of `pipeline extract`."""
        out = self.folder / f"{engine}{number}.h5"
        words = ["extract", "--manifest", self.folder / "manifest.csv", "--weights", self.weights]
        words += ["--out", out, "--engine", engine, "--device", "cpu", "--dtype", "float32"]
        return timed([sys.executable, "-m", "pipeline", *words])

    def theirs(self, peer: str) -> float:
        """Seconds of a peer's loop."""
        script = Path(__file__).parent / "peers/loop.py"
        words = [peer, self.weights, self.folder / "files.txt", self.folder / f"{peer}.npy"]
        return timed([installed(peer), script, *words])

    def agreement(self, way: str) -> float:
        """The largest difference of a last layer's mean from plain torch, by the largest mean."""
        expected = np.load(self.folder / "torch.npy")  # (images, 6, 512)
        if way in OURS:
            with FeatureCache(self.folder / f"{OURS[way]}0.h5") as cache:
                found = cache.load()[:, 384:896].reshape(expected.shape)
        else:
            found = np.load(self.folder / f"{way}.npy")
        return float(np.abs(found - expected).max() / np.abs(expected).max())


def pipeline(*words: object) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "pipeline", *map(str, words)], check=True)


def busy(work: Work) -> float:
    """The share of all CPUs' time, from first image to verified cache, that convolutions take."""
    from pipeline.extraction.engines import ncnn_encoder
    from pipeline.extraction.extract import ExtractOptions, extract

    taken: list[float] = []
    lock, maps = threading.Lock(), ncnn_encoder.NcnnEncoder._maps

    def clocked(self: ncnn_encoder.NcnnEncoder, patch: np.ndarray) -> list:
        began = time.perf_counter()
        found = maps(self, patch)
        with lock:
            taken.append(time.perf_counter() - began)
        return found

    ncnn_encoder.NcnnEncoder._maps = clocked  # type: ignore[method-assign]
    out = work.folder / "busy.h5"
    options = ExtractOptions(device="cpu", engine="ncnn")
    seconds = extract(work.folder / "manifest.csv", work.weights, out, options).seconds
    return sum(taken) / (seconds * usable_cpus())


def main() -> None:
    """Run all ways in turn, in another order each time, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for peer in PEERS:
        installed(peer)
    with tempfile.TemporaryDirectory() as name:
        work = Work(arguments.shared, arguments.images, Path(name))
        seconds: dict[str, list[float]] = {way: [] for way in (*OURS, *PEERS)}
        for number in range(arguments.repeats):
            for way in random.Random(number).sample(sorted(seconds), len(seconds)):
                taken = work.ours(OURS[way], number) if way in OURS else work.theirs(way)
                seconds[way].append(taken)
                print(f"{way}: {taken:.1f} s", file=sys.stderr)
        print(f"{usable_cpus()} CPUs, {platform.platform()}, {len(work.rows)} images,")
        print(f"{arguments.repeats} repeats; load before: {os.getloadavg()[0]:.1f}\n")
        print("| | images a second | times as fast | least, most | difference of features |")
        print("|---|---|---|---|---|")
        for way, taken in seconds.items():
            rate = len(work.rows) / statistics.median(taken)
            pairs = zip(taken, seconds["pipeline extract"], strict=True)
            ratios = [theirs / ours for theirs, ours in pairs]
            span = f"{min(ratios):.2f}, {max(ratios):.2f}"
            shown = f"{statistics.median(ratios):.2f} | {span} | {work.agreement(way):.0e}"
            print(f"| {way} | {rate:.2f} | {shown} |")
        print(f"\nConvolutions take {busy(work):.1%} of all CPUs' time.")


if __name__ == "__main__":
    main()

"""What a second experiment costs with the cache, against extracting the features again.

Times whole commands, start of the interpreter included, interleaved in one run:

    .venv/bin/python tests/benchmarks/second_experiment.py --dataset ../shared/data/BreaKHis_v1 \
        --weights ../shared/weights/vgg16_imagenet_features.safetensors --repeats 3

and prints a report in Markdown.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PIPELINE = [sys.executable, "-m", "pipeline"]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(measure(options, Path(folder)))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds of each command in each repeat."""
    manifest, splits, cache = folder / "manifest.csv", folder / "splits.csv", folder / "f.h5"
    run("index", options.dataset, "--out", manifest)
    run("split", manifest, "--out", splits)
    seconds: dict[str, list[float]] = {"--help": [], "extract": [], "fit-lstm": [], "evaluate": []}
    for repeat in range(options.repeats):
        cache.unlink(missing_ok=True)
        shutil.rmtree(f"{cache}.shards", ignore_errors=True)  # or nothing would be encoded again
        fits = folder / "fits"
        shutil.rmtree(fits, ignore_errors=True)
        commands = {
            "--help": [],
            "extract": ["--manifest", manifest, "--weights", options.weights, "--out", cache],
            "fit-lstm": [
                *("--cache", cache, "--splits", splits, "--out", fits),
                *("--hidden", 32 + 16 * repeat),
            ],
            "evaluate": ["--fits", fits, "--out", folder / "metrics.json"],
        }
        for verb, arguments in commands.items():
            seconds[verb].append(run(verb, *arguments))
    return seconds


def run(verb: str, *arguments: object) -> float:
    """Run one command of the pipeline and time it."""
    began = time.perf_counter()
    command = [*PIPELINE, verb, *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def report(seconds: dict[str, list[float]]) -> None:
    """Print the medians, their spread and the ratio."""
    print(f"{os.cpu_count()} CPUs, {platform.platform()}, torch {version('torch')}\n")
    print("| command | median, s | least, s | most, s |\n|---|---|---|---|")
    for verb, found in seconds.items():
        median = statistics.median(found)
        print(f"| `pipeline {verb}` | {median:.2f} | {min(found):.2f} | {max(found):.2f} |")
    again = [
        (extract + fit) / fit
        for extract, fit in zip(seconds["extract"], seconds["fit-lstm"], strict=True)
    ]
    print(
        f"\nA second experiment from the cache is {statistics.median(again):.0f} times as fast as "
        f"one that extracts again ({min(again):.0f} to {max(again):.0f}, {len(again)} repeats)."
    )


if __name__ == "__main__":
    main()

"""All benchmarks, one after another, into one report.

    .venv/bin/python tests/benchmarks/run_all.py ../shared results/benchmarks.md

The first folder holds real images (`data/BreaKHis_v1`) and weights (`weights/`). About two hours on
two CPU cores, which should have nothing else to do; `--quick` takes about half an hour and leaves
out the table of levers.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "ncnn", "numpy", "h5py", "scikit-learn", "pillow")


def main() -> None:
    """Run them all; a benchmark that fails is named in the report, and in the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    shared, quick = options.shared, options.quick
    real = ["--dataset", shared / "data/BreaKHis_v1"]
    real += ["--weights", shared / "weights/vgg16_imagenet_features.safetensors"]
    benchmarks: dict[str, list[object]] = {
        "stage_one": [shared, "--images", 16 if quick else 48, "--repeats", 1 if quick else 3],
        "stage_two": ["--repeats", 1 if quick else 3],
        "one_image": [shared],
        "cache_speed": [],
        "growth": ["--most", 10_000 if quick else 100_000],
        "million": ["--images", 4_000 if quick else 24_000, "--shards", 4 if quick else 12],
        "large_images": ["--sides", *((5000, 14_000) if quick else (5000, 10_000, 14_000, 20_000))],
        "long_sequences": ["--patches", *((6, 2000) if quick else (6, 500, 2000, 8000))],
        "safety_cost": [*real, "--images", 24, "--repeats", 1 if quick else 5],
        "second_experiment": [*real, "--repeats", 1 if quick else 2],
    }
    if not quick:
        benchmarks["honest_numbers"] = [shared, "results/honest-numbers"]
    parts = [heading()]
    failed = []
    for name, words in benchmarks.items():
        began = time.perf_counter()
        code, text = run(name, words)
        failed += [name] if code else []
        minutes = (time.perf_counter() - began) / 60
        parts += [f"## {name}\n", text or "It failed.\n", f"({minutes:.0f} minutes)\n"]
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text("\n".join(parts))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def heading() -> str:
    """Machine and versions."""
    cpus = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{cpus} CPUs, {platform.platform()}, Python {platform.python_version()}"
    return f"# Benchmarks, {time.strftime('%Y-%m-%d')}\n\n{machine}; {versions}\n"


def run(name: str, words: list[object]) -> tuple[int, str]:
    """The exit code and what a benchmark prints."""
    print(f"{name} …", file=sys.stderr)
    command = [sys.executable, Path(__file__).with_name(f"{name}.py"), *words]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


if __name__ == "__main__":
    main()

"""The whole workflow on real images, under both protocols."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.dataset.breakhis import parse_name

ROOT = Path(__file__).parents[2]
EVERY = 4


def write_study(folder: Path, shared: Path) -> Path:
    """A CSV file of every fourth image, and the settings of a run on it."""
    files = sorted((shared / "data/BreaKHis_v1").rglob("*.png"))[::EVERY]
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "image_id", "label", "subtype", "slide", "case", "magnification"])
        for path in files:
            name = parse_name(path.name)
            assert name is not None
            row = (name.label, name.subtype, name.slide, name.case, name.magnification)
            writer.writerow([path.resolve(), path.stem, *row])
    return folder / "images.csv"


def run(folder: Path, dataset: Path, weights: Path, group_by: str) -> dict[str, object]:
    settings = {
        "dataset": str(dataset),
        "weights": {"from": str(weights)},
        "split": {"group_by": group_by},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "snakemake", "--cores", "8", "-s", ROOT / "Snakefile"]
    more = ["--directory", folder, "--configfile", folder / "settings.json"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout[-1500:])
    metrics: dict[str, object] = json.loads((folder / "results/images/metrics.json").read_text())
    return metrics


@pytest.mark.slow
def test_real_images_go_through_and_an_image_level_split_looks_better_than_it_is(tmp_path, shared):
    dataset = write_study(tmp_path, shared)
    weights = (shared / "weights/vgg16_imagenet_features.safetensors").resolve()
    honest = run(tmp_path, dataset, weights, "case")
    cache = tmp_path / "results/images/features.h5"
    extracted = cache.stat().st_mtime_ns
    leaking = run(tmp_path, dataset, weights, "image")
    assert cache.stat().st_mtime_ns == extracted, "the second experiment extracted again"
    assert (honest["weights"], honest["leaks"], leaking["leaks"]) == ("imagenet", False, True)
    assert honest["images"] == leaking["images"] == 61
    assert leaking["pooled"]["accuracy"] > honest["pooled"]["accuracy"] + 0.1

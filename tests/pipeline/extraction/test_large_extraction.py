"""Images too large for memory go the whole way, and others are not changed by that."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
from click.testing import CliRunner
from PIL import Image
from small_data import describe_image, write_image, write_study

from cache import FeatureCache, verify
from pipeline.cli import main
from pipeline.dataset.manifest import write_manifest
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.shards import PIXELS_PER_SHARD, ShardFolder

DIGESTS = ("features_sha256", "index_sha256", "digests_sha256", "statistics_sha256")


def read_all_by_bands(monkeypatch):
    for place in ("dataset.picture", "extraction.encoding"):
        monkeypatch.setattr(f"pipeline.{place}.MAX_PIXELS", 0)
    monkeypatch.setattr("pipeline.dataset.large_images._BAND_BYTES", 20 * 3 * 100)


@pytest.mark.parametrize("engine", ["ncnn", "torch"])
@pytest.mark.parametrize(
    "options", [{}, {"edge": "pad", "views": ("rot90", "identity")}, {"min_tissue": 0.855}]
)
def test_an_image_read_by_bands_has_the_features_of_one_decoded_whole(
    tmp_path, weights_file, monkeypatch, engine, options
):
    write_study(tmp_path, images=3, width=104, height=140)
    patches = PatchOptions(32, 32, layers=("conv1_2",), **options)
    chosen = ExtractOptions(patches, "cpu", engine, allow_failures=3, images_per_shard=3)
    manifest = tmp_path / "manifest.csv"
    extract(manifest, weights_file, tmp_path / "whole.h5", chosen)
    read_all_by_bands(monkeypatch)
    extract(manifest, weights_file, tmp_path / "bands.h5", chosen)
    assert not verify(tmp_path / "bands.h5")
    with FeatureCache(tmp_path / "whole.h5") as one, FeatureCache(tmp_path / "bands.h5") as other:
        for name in DIGESTS:
            assert one.attributes[name] == other.attributes[name]


@pytest.mark.parametrize("engine", ["ncnn", "torch"])
def test_a_large_image_that_is_damaged_far_down_costs_itself_only(
    tmp_path, weights_file, monkeypatch, engine
):
    rows = write_study(tmp_path, images=3, width=104, height=140)
    damaged = tmp_path / "damaged.png"
    write_image(damaged, 9, 104, 140)
    content = bytearray(damaged.read_bytes())
    content[-5000] ^= 255
    damaged.write_bytes(content)
    row = describe_image(damaged)._replace(path=damaged.name)
    write_manifest(tmp_path / "manifest.csv", [rows[0], row, *rows[1:]])
    read_all_by_bands(monkeypatch)
    patches = PatchOptions(32, 32, layers=("conv1_2",))
    options = ExtractOptions(patches, "cpu", engine, allow_failures=1)
    result = extract(tmp_path / "manifest.csv", weights_file, tmp_path / "f.h5", options)
    assert [failure.image_id for failure in result.failures] == ["damaged"]
    assert "damaged image" in result.failures[0].reason
    assert result.images == 3


def test_shards_hold_fewer_images_where_these_are_large(tmp_path):
    small = write_image(tmp_path / "a.png", 0)
    large = small._replace(width=20_000, height=PIXELS_PER_SHARD // 20_000)
    rows = [small, small, large, large, small, small, small]
    named = [row._replace(image_id=f"i{number}") for number, row in enumerate(rows)]
    recipe = PatchOptions(32, 32, layers=("conv1_2",))
    from pipeline.extraction.recipe import vgg16_recipe

    folder = ShardFolder(tmp_path / "f.h5", vgg16_recipe(recipe, "custom", "a" * 64, "float32"))
    lengths = [len(shard.rows) for shard in folder.plan(named, 2)]
    assert lengths == [2, 1, 1, 2, 1]


def test_images_of_any_kind_are_indexed_extracted_and_predicted_together(tmp_path, monkeypatch):
    """PNG, JPEG, TIFF and a pyramid, of different sizes, some of them read by bands."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(24):
        label = ("benign", "malignant")[number % 2]
        Path(label).mkdir(exist_ok=True)
        side = 64 + 32 * (number % 3)
        pixels = rng.integers(0, 128 if number % 2 else 256, (side, 2 * side, 3), dtype=np.uint8)
        stem = f"{label}/i{number:02}"
        if number % 4 == 3:
            tiles = {"tile": True, "tile_width": 64, "tile_height": 64}
            vips = pyvips.Image.new_from_array(pixels)
            vips.tiffsave(f"{stem}.tif", pyramid=True, compression="deflate", **tiles)
        else:
            Image.fromarray(pixels).save(f"{stem}{('.png', '.jpg', '.tiff')[number % 4]}")
    for place in ("dataset.picture", "extraction.encoding"):
        monkeypatch.setattr(f"pipeline.{place}.MAX_PIXELS", 100 * 190)
    monkeypatch.setattr("pipeline.dataset.images.MAX_PIXELS", 100 * 190)
    monkeypatch.setattr("pipeline.dataset.reduce.SHOWN_SIDE", 64)

    def run(line):
        done = CliRunner().invoke(main, line.split())
        assert done.exit_code == 0, done.output
        return done.output

    run("index . --out manifest.csv")
    run("weights --random 0 --out w.safetensors")
    size = "--patch-size 32 --stride 32 --layers conv1_2 --device cpu --threads 2"
    run(f"extract --manifest manifest.csv --weights w.safetensors --out features.h5 {size}")
    run("split manifest.csv --out splits.csv --folds 3 --group-by image")
    few = "--no-companions --steps 20 --checks 1 --members 2"
    run(f"fit-lstm --cache features.h5 --splits splits.csv --out fits {few}")
    run("evaluate --fits fits --out metrics.json")
    run("report . --out report.html")
    largest = "malignant/i11.tif malignant/i05.jpg benign/i02.tiff"
    run(f"predict fits {largest} --out p.csv --weights w.safetensors --device cpu --overlay o")
    assert len(list(Path("o").glob("*.png"))) == 3
    assert json.loads(Path("metrics.json").read_text())["images"] == 24
    with FeatureCache("features.h5") as cache:
        assert sorted(set(np.diff(cache.offsets).tolist())) == [8, 18, 32]


MEASURE = """
import json, sys
from pathlib import Path
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.recipe import PatchOptions
from pipeline.dataset.index import index_dataset
folder = Path(sys.argv[1])
index_dataset(folder / "images", folder / "manifest.csv")
options = ExtractOptions(PatchOptions(min_tissue=0.1), "cpu")
result = extract(folder / "manifest.csv", Path(sys.argv[2]), folder / "f.h5", options)
status = Path("/proc/self/status").read_text()  # ru_maxrss would include that of the parent
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps([result.patches, int(peak) / 1e6]))
"""


def large_slide(side):
    """A slide of glass with tissue in its middle."""
    rng = np.random.default_rng(0)
    tissue = rng.integers(0, 60, (2000, 2000, 3)) + np.array([190, 110, 160])
    image = pyvips.Image.new_from_array(tissue.astype(np.uint8))
    return image.embed(9000, 9000, side, side, extend="background", background=[243, 240, 242])


SAVE = {
    "pyramid.tif": lambda i, p: i.tiffsave(p, tile=True, pyramid=True, compression="jpeg"),
    "one strip.tif": lambda i, p: i.tiffsave(p, compression="none", tile_height=20_000),
    "slide.jpg": lambda i, p: i.jpegsave(p),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVE)
def test_20000_by_20000_pixels_go_through_in_less_than_2_gigabytes(tmp_path, weights_file, name):
    """One such image, and a small one of another class; VGG16, most patches without tissue."""
    write_image(tmp_path / "images/benign/small.png", 0, 300, 300)
    (tmp_path / "images/malignant").mkdir()
    SAVE[name](large_slide(20_000), str(tmp_path / "images/malignant" / name))
    words = [sys.executable, "-c", MEASURE, str(tmp_path), str(weights_file)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    patches, gigabytes = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {patches} patches, {gigabytes:.2f} GB")
    assert 81 <= patches <= 1 + 121
    assert gigabytes < 2

"""Views: whole images turned and mirrored, whose features are those of such images."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_data import describe_image, write_study

import cache
from cache import FeatureCache, check, verify
from pipeline.dataset.manifest import read_manifest, write_manifest
from pipeline.dataset.statistics import image_statistics
from pipeline.errors import UsageError
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.patches import grid
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.repair import Sources, repair
from pipeline.extraction.views import VIEWS, view_of

SIDES = st.integers(1, 60)


def options(edge: str = "drop", views: tuple[str, ...] = VIEWS) -> ExtractOptions:
    patches = PatchOptions(32, 32, edge, "float32", layers=("conv1_2",), views=views)
    return ExtractOptions(patches, "cpu", threads=1, images_per_shard=3)


def formulas() -> dict[str, str]:
    """What the table of FORMAT.md says: view → the image's pixel at (x, y) of the view."""
    text = (Path(cache.__file__).parent / "FORMAT.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\([^)]*\))[^|]*\| . × . \|$", text, re.MULTILINE)
    return {name: formula.replace("−", "-") for name, formula in rows}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_what_format_md_says(view):
    assert set(formulas()) == set(VIEWS)
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    seen = view_of(image, view)
    column_of, row_of = formulas()[view].strip("()").split(", ")
    for y, x in np.ndindex(seen.shape[:2]):
        at = {"x": x, "y": y, "W - 1 - x": 4 - x, "W - 1 - y": 4 - y}
        at |= {"H - 1 - x": 2 - x, "H - 1 - y": 2 - y}
        assert seen[y, x].tolist() == image[at[row_of], at[column_of]].tolist()


def test_all_views_of_an_image_differ():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert len({view_of(image, view).tobytes() for view in VIEWS}) == len(VIEWS) == 8


@given(SIDES, SIDES, st.integers(1, 30), st.integers(1, 30), st.sampled_from(["drop", "pad"]))
def test_a_turned_image_has_as_many_patches(width, height, side, stride, edge):
    if edge == "drop" and min(width, height) < side:
        return
    upright, turned = (
        grid(width, height, side, stride, edge),
        grid(height, width, side, stride, edge),
    )
    assert len(upright) == len(turned)


@pytest.mark.slow
@pytest.mark.parametrize("edge", ["drop", "pad"])
def test_each_view_has_the_features_of_an_image_so_turned(tmp_path, weights_file, edge):
    rows = write_study(tmp_path, images=2, width=70, height=104)
    extract(tmp_path / "manifest.csv", weights_file, tmp_path / "f.h5", options(edge))
    check(tmp_path / "f.h5")
    for view in VIEWS:
        folder = tmp_path / view
        folder.mkdir()
        for row in rows:
            pixels = np.asarray(Image.open(tmp_path / row.path))
            Image.fromarray(np.ascontiguousarray(view_of(pixels, view))).save(folder / row.path)
        turned = [describe_image(folder / row.path) for row in rows]
        write_manifest(folder / "manifest.csv", turned)
        plain = options(edge, ("identity",))
        extract(folder / "manifest.csv", weights_file, folder / "f.h5", plain)
    with FeatureCache(tmp_path / "f.h5") as found:
        assert found.recipe.views == VIEWS
        for number, view in enumerate(VIEWS):
            with FeatureCache(tmp_path / view / "f.h5") as expected:
                for i in range(2):
                    np.testing.assert_array_equal(found.sequence(i, number), expected.sequence(i))
                    np.testing.assert_array_equal(found.coords(i, number), expected.coords(i))
        pixels = np.asarray(Image.open(tmp_path / rows[1].path))
        assert found.statistics[1].pixels_sha256 == image_statistics(pixels).pixels_sha256


def test_a_damaged_view_costs_its_image_and_is_encoded_again(tmp_path, weights_file):
    write_study(tmp_path, images=4)
    extract(tmp_path / "manifest.csv", weights_file, tmp_path / "f.h5", options())
    with FeatureCache(tmp_path / "f.h5") as sound:
        before = sound.load()
        assert sound.all_views().tolist() == [v for _ in range(4) for v in range(8) for _ in "abcd"]
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["features"][40, 3] += 1
    sources = Sources(tmp_path / "manifest.csv", weights_file, "cpu", 1)
    result = repair(tmp_path / "f.h5", sources)
    assert (result.encoded, result.identical) == (1, True)
    assert verify(tmp_path / "f.h5") == []
    with FeatureCache(tmp_path / "f.h5") as mended:
        np.testing.assert_array_equal(mended.load(), before)


def test_other_views_are_another_recipe(tmp_path, weights_file):
    write_study(tmp_path, images=2)
    manifest = tmp_path / "manifest.csv"
    extract(manifest, weights_file, tmp_path / "f.h5", options())
    assert len(read_manifest(manifest)) == 2
    with pytest.raises(UsageError, match=r"views: \('identity',\)"):
        extract(manifest, weights_file, tmp_path / "f.h5", options(views=("identity",)))


@pytest.mark.parametrize("views", [(), ("half",), ("identity", "identity")])
def test_views_that_there_are_not_are_refused(views):
    with pytest.raises(UsageError, match=r"views .*expected one or more of identity, flip_x"):
        PatchOptions(views=views)

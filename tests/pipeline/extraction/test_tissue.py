"""Patches without tissue are left out by a rule of their pixels, which the recipe names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_data import describe_image, write_study

from cache import FeatureCache, verify
from pipeline.dataset.manifest import write_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.recipe import PatchOptions, options_of, vgg16_recipe
from pipeline.extraction.tissue import min_tissue_of, scan_order, tissue_share

PINK, GLASS, INK = (220, 150, 190), (244, 240, 243), (40, 42, 45)


def patch(*colours):
    """Bands of equal width, of a colour each."""
    return np.repeat(np.array(colours, np.uint8), 32 // len(colours), axis=0)[:, None].repeat(32, 1)


@pytest.mark.parametrize(
    ("colours", "share"),
    [([PINK], 1), ([GLASS], 0), ([INK], 0), ([PINK, GLASS], 0.5), ([PINK, GLASS, INK, INK], 0.25)],
)
def test_glass_and_ink_are_no_tissue(colours, share):
    assert tissue_share(patch(*colours)) == share


@pytest.mark.parametrize(
    ("colour", "is_tissue"),
    [
        ((236, 220, 236), True),
        ((237, 221, 237), False),
        ((100, 115, 110), False),
        ((100, 116, 110), True),
    ],
)
def test_the_limits_are_those_of_the_format(colour, is_tissue):
    """FORMAT.md: green at most 220, and largest minus smallest value at least 16."""
    assert tissue_share(patch(colour)) == is_tissue


@given(st.integers(1, 10_000).map(lambda n: n / 10_000))
def test_the_least_share_comes_back_from_its_recipe(share):
    assert min_tissue_of(scan_order(share)) == share
    options = PatchOptions(min_tissue=share)
    assert options_of(vgg16_recipe(options, "custom", "a" * 64, "float32")) == options


def test_no_least_share_is_the_order_of_always():
    assert scan_order(0) == "raster"
    assert min_tissue_of("raster") == 0


@pytest.mark.parametrize("share", [-0.1, 1.1, 0.00001, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UsageError, match="expected 0 to 1"):
        PatchOptions(min_tissue=share)


def test_views_cannot_be_combined_with_it():
    with pytest.raises(UsageError, match="leave out --min-tissue or --views"):
        PatchOptions(min_tissue=0.1, views=("identity", "flip_x"))


def write_picture(folder, number, *rows):
    """An image of patches of 32 pixels, of a colour each, in a manifest."""
    pixels = np.concatenate([np.concatenate([patch(c) for c in row], axis=1) for row in rows])
    name = f"picture{number}.png"
    Image.fromarray(pixels).save(folder / name)
    return describe_image(folder / name)._replace(path=name)


def sequence_of(cache, image):
    mine = slice(*cache.offsets[image : image + 2])
    return cache.load()[mine], cache.all_coords()[mine].tolist()


def test_patches_without_tissue_are_left_out_and_the_others_keep_their_features(
    tmp_path, weights_file
):
    rows = [
        write_picture(tmp_path, 0, [GLASS, PINK, GLASS], [PINK, INK, PINK]),
        write_picture(tmp_path, 1, [PINK, GLASS], [GLASS, GLASS]),
    ]
    write_manifest(tmp_path / "manifest.csv", rows)

    def run(name, share):
        options = PatchOptions(32, 32, layers=("conv1_2",), min_tissue=share)
        extract(tmp_path / "manifest.csv", weights_file, tmp_path / name, ExtractOptions(options))
        assert not verify(tmp_path / name)
        with FeatureCache(tmp_path / name) as cache:
            return [sequence_of(cache, i) for i in range(2)], cache.recipe

    some, recipe = run("some.h5", 0.5)
    everything, other = run("all.h5", 0)
    assert recipe.scan_order == "raster, tissue >= 0.5"
    assert recipe.fingerprint != other.fingerprint
    assert some[0][1] == [[32, 0], [0, 32], [64, 32]]
    assert some[1][1] == [[0, 0]]
    np.testing.assert_array_equal(some[0][0], everything[0][0][[1, 3, 5]])


def test_an_image_without_any_tissue_is_listed_with_its_reason(tmp_path, weights_file):
    rows = [*write_study(tmp_path, images=2), write_picture(tmp_path, 7, [GLASS, INK])]
    write_manifest(tmp_path / "manifest.csv", rows)
    options = ExtractOptions(PatchOptions(32, 32, layers=("conv1_2",), min_tissue=0.1))
    with pytest.raises(PipelineError, match=r"picture7.png: none of 2 patches shows tissue"):
        extract(tmp_path / "manifest.csv", weights_file, tmp_path / "f.h5", options)

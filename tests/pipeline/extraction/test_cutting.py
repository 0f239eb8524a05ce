"""Patches are the same pixels, however an image comes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset.images import ImageError
from pipeline.dataset.picture import WholePicture
from pipeline.extraction.cutting import cut_patches, lay_cuts
from pipeline.extraction.patches import grid
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.views import VIEWS, view_of

SIDES = st.integers(32, 150)


class Banded:
    """An image that comes in bands of some heights."""

    sha256 = ""

    def __init__(self, pixels, heights):
        self.pixels, self.heights = pixels, heights
        self.height, self.width = pixels.shape[:2]

    def bands(self):
        top, number = 0, 0
        while top < self.height:
            height = self.heights[number % len(self.heights)]
            yield self.pixels[top : top + height]
            top, number = top + height, number + 1


def noise(width, height):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plainly_cut(pixels, options):
    """Every view whole, mirrored at its edges far enough, and then cut."""
    coords, patches = [], []
    side = options.patch_size
    for view in options.views:
        seen = view_of(pixels, view)
        height, width = seen.shape[:2]
        corners = grid(width, height, side, options.stride, options.edge)
        mirrored = np.pad(seen, ((0, side), (0, side), (0, 0)), mode="symmetric")
        coords += corners.tolist()
        patches += [mirrored[y : y + side, x : x + side] for x, y in corners.tolist()]
    return coords, patches


@given(
    *(SIDES, SIDES, st.integers(32, 150), st.integers(10, 200)),
    st.sampled_from(["drop", "pad"]),
    st.lists(st.sampled_from(VIEWS), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
def test_patches_are_those_of_the_whole_image_whatever_the_bands(
    width, height, side, stride, edge, views, heights
):
    options = PatchOptions(side, stride, edge, views=tuple(views))
    if edge == "drop" and min(width, height) < side:
        return
    pixels = noise(width, height)
    coords, expected = plainly_cut(pixels, options)
    cuts = lay_cuts(width, height, options)
    assert cuts.coords.tolist() == coords
    for picture in (Banded(pixels, heights), WholePicture(pixels, "")):
        found = dict(cut_patches(picture, cuts))
        assert sorted(found) == list(range(len(expected)))
        for number, patch in enumerate(expected):
            np.testing.assert_array_equal(found[number], patch)


def test_only_rows_that_are_still_needed_are_held():
    pixels = noise(64, 3200)
    sizes = []
    for _, patch in cut_patches(Banded(pixels, [16]), lay_cuts(64, 3200, PatchOptions(32, 32))):
        held = patch.base
        while held.base is not None and isinstance(held.base, np.ndarray):
            held = held.base
        sizes.append(len(held))
    assert len(sizes) == 200
    assert max(sizes) <= 64


def test_watchers_see_every_row_once_even_if_no_patch_needs_the_last():
    seen = []
    pixels = noise(64, 100)
    list(cut_patches(Banded(pixels, [7]), lay_cuts(64, 100, PatchOptions(64, 64)), [seen.append]))
    np.testing.assert_array_equal(np.concatenate(seen), pixels)


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ImageError, match="smaller than a patch"):
        lay_cuts(64, 40, PatchOptions(64, 64))

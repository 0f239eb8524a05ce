"""The picture of what patches contribute."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extraction.patches import grid
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.views import VIEWS, unview, view_of
from pipeline.prediction.overlay import (
    AGAINST,
    FOR,
    Legend,
    contribution_map,
    draw_overlay,
    scale_of,
    signed,
)
from pipeline.prediction.reader import Seen

LEGEND = Legend(["name: called malignant", "second line"], "for malignant")


def seen(width, height, options, grey=128):
    pixels = np.full((height, width, 3), grey, np.uint8)
    coords = []
    for view in options.views:
        tall, wide = view_of(pixels, view).shape[:2]
        coords.append(grid(wide, tall, options.patch_size, options.stride, options.edge))
    coords = np.concatenate(coords)
    features = np.zeros((len(coords), 1), np.float16)
    return Seen("a.png", "", width, height, pixels, 1, coords, features)


def test_each_pixel_has_the_mean_contribution_of_the_patches_that_cover_it():
    options = PatchOptions(patch_size=32, stride=16)
    image = seen(64, 32, options)  # patches at 0, 16 and 32
    found = contribution_map(image, np.array([0.1, 0.3, -0.2]), options)
    row = found[0]
    np.testing.assert_allclose(row[:16], 0.1)
    np.testing.assert_allclose(row[16:32], 0.2)
    np.testing.assert_allclose(row[32:48], 0.05)
    np.testing.assert_allclose(row[48:], -0.2)


def test_a_pixel_without_a_patch_and_a_patch_without_a_contribution_have_none():
    options = PatchOptions(patch_size=32, stride=32)
    image = seen(70, 32, options)
    found = contribution_map(image, np.array([np.nan, 0.5]), options)
    assert np.isnan(found[:, :32]).all()
    assert (found[:, 32:64] == 0.5).all()
    assert np.isnan(found[:, 64:]).all()


@pytest.mark.parametrize("view", VIEWS)
def test_a_patch_of_a_view_is_drawn_where_it_came_from(view):
    options = PatchOptions(patch_size=32, stride=32, views=(view,))
    image = seen(64, 96, options)
    number = 1
    parts = np.zeros(len(image.coords))
    parts[number] = 1.0
    found = contribution_map(image, parts, options)
    marks = np.arange(64 * 96, dtype=np.float64).reshape(96, 64)
    x, y = image.coords[number]
    expected = unview(marks, view)[y : y + 32, x : x + 32]
    assert set(marks[found == 1.0]) == set(expected.ravel())
    np.testing.assert_array_equal(unview(unview(marks, view), view, back=True), marks)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_the_scale_covers_every_contribution_and_is_a_round_number(parts):
    scale = scale_of(np.array(parts))
    assert max(map(abs, parts)) <= scale * (1 + 1e-9)
    assert 0.02 <= scale <= 1
    assert scale in {0.02, 0.05, 0.1, 0.2, 0.5, 1.0}


def test_a_patch_for_the_class_is_orange_and_one_against_it_blue_with_signed_numbers():
    options = PatchOptions(patch_size=200, stride=200)
    image = seen(400, 200, options)
    drawn = np.asarray(draw_overlay(image, np.array([0.1, -0.1]), options, LEGEND)).astype(int)
    zoom = drawn.shape[1] / 400
    left, right = (drawn[int(150 * zoom), int(x * zoom)] for x in (100, 300))
    assert np.abs(left - (128 + np.array(FOR)) / 2).max() <= 1
    assert np.abs(right - (128 + np.array(AGAINST)) / 2).max() <= 1
    assert (signed(0.1), signed(-0.1), signed(float("nan"))) == ("+0.100", "−0.100", "–")


def luminance(colour):
    channels = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_the_two_colours_differ_for_readers_without_red_or_green_cones():
    # Viénot, Brettel and Mollon 1999: dichromats see the mean of red and green, weighted.
    def seen_by_dichromat(colour):
        return np.array([0.3 * colour[0] + 0.7 * colour[1], colour[2]])

    assert np.abs(seen_by_dichromat(FOR) - seen_by_dichromat(AGAINST)).max() > 100
    assert luminance(FOR) > 1.2 * luminance(AGAINST)


def test_images_of_any_size_and_number_of_patches_are_drawn_within_bounds():
    for width, height, size in ((32, 32, 32), (5000, 40, 40), (900, 900, 32)):
        options = PatchOptions(patch_size=size, stride=size)
        image = seen(width, height, options)
        drawn = draw_overlay(image, np.linspace(-1, 1, len(image.coords)), options, LEGEND)
        assert 600 <= drawn.width <= 1600
        assert drawn.height <= 1600 + 400

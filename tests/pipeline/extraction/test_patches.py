"""The grid of patches covers what it says, in the order it says."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.dataset.images import ImageError
from pipeline.extraction.patches import grid

lengths = st.integers(1, 300)
sides = st.integers(1, 120)


def covered(width: int, height: int, coords: np.ndarray, side: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    for x, y in coords:
        mask[y : y + side, x : x + side] = True
    return mask


def test_a_breakhis_image_has_six_patches_in_raster_order():
    expected = [[0, 0], [224, 0], [448, 0], [0, 224], [224, 224], [448, 224]]
    assert grid(700, 460, 224, 224, "drop").tolist() == expected
    assert grid(700, 456, 224, 224, "drop").tolist() == expected


def test_padding_a_breakhis_image_adds_the_right_and_lower_rest():
    coords = grid(700, 460, 224, 224, "pad")
    assert len(coords) == 12
    assert coords.max(axis=0).tolist() == [672, 448]


@given(lengths, lengths, sides, sides)
def test_dropping_keeps_every_patch_inside(width, height, side, stride):
    assume(width >= side and height >= side)
    coords = grid(width, height, side, stride, "drop")
    assert (coords >= 0).all()
    assert (coords + side <= (width, height)).all()
    last = coords.max(axis=0)
    assert (last + stride + side > (width, height)).all(), "one more patch would have fitted"


@given(lengths, lengths, sides, sides)
def test_padding_covers_every_pixel_and_adds_no_patch_beyond(width, height, side, stride):
    assume(stride <= side)
    coords = grid(width, height, side, stride, "pad")
    assert covered(width, height, coords, side).all()
    assert (coords < (width, height)).all()


@given(lengths, lengths, sides, sides, st.sampled_from(["drop", "pad"]))
def test_patches_are_distinct_and_in_raster_order(width, height, side, stride, edge):
    assume(edge == "pad" or (width >= side and height >= side))
    keys = [(y, x) for x, y in grid(width, height, side, stride, edge).tolist()]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize(("width", "height"), [(223, 460), (700, 223), (1, 1)])
def test_an_image_smaller_than_a_patch_is_refused_unless_padded(width, height):
    with pytest.raises(ImageError, match=f"{width}×{height}.*smaller than a patch of 224.*pad"):
        grid(width, height, 224, 224, "drop")
    assert len(grid(width, height, 224, 224, "pad")) >= 1


def test_more_patches_than_memory_should_hold_are_refused_before_they_are_laid():
    with pytest.raises(ImageError, match=r"396,527,425 patches.*choose a larger stride"):
        grid(20_000, 20_024, 100, 1, "drop")

"""A batch holds the patches of its images, and nothing of others."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fitting.sequences import Sequences

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def sequences_of(lengths):
    """Patch p of all has the features p and -p."""
    patches = np.arange(sum(lengths), dtype=np.float32)
    values = np.stack([patches, -patches], axis=1)
    return Sequences.from_arrays(values, np.cumsum([0, *lengths]))


def own(data, image):
    return data.values[data.offsets[image] : data.offsets[image + 1]]


def test_a_batch_holds_the_rows_of_its_images_and_zeros():
    data = sequences_of([2, 1, 3])
    x, inside = data.batch(torch.tensor([[2, 1]]))
    assert inside.tolist() == [[[True, True, True], [True, False, False]]]
    assert torch.equal(x[0, 0], own(data, 2))
    assert torch.equal(x[0, 1, :1], own(data, 1))
    assert not x[0, 1, 1:].any()


def test_a_batch_of_equal_lengths_needs_no_mask():
    data = sequences_of([2, 1, 2])
    x, inside = data.batch(torch.tensor([2, 0]))
    assert inside is None
    assert torch.equal(x, torch.stack([own(data, 2), own(data, 0)]))


@given(LENGTHS)
def test_patches_of_all_images_are_all_patches(lengths):
    data = sequences_of(lengths)
    assert torch.equal(data.patches_of(torch.arange(len(data))), data.values)


def test_patches_of_images_are_theirs_alone():
    data = sequences_of([2, 1, 3])
    assert data.patches_of(torch.tensor([2, 0]))[:, 0].tolist() == [0, 1, 3, 4, 5]


@given(LENGTHS)
def test_means_are_those_of_each_image(lengths):
    data = sequences_of(lengths)
    expected = torch.stack([own(data, image).mean(dim=0) for image in range(len(data))])
    torch.testing.assert_close(data.means(), expected)


@given(LENGTHS, st.integers(0, 100))
def test_permuting_keeps_the_patches_of_each_image(lengths, seed):
    data = sequences_of(lengths)
    changed = data.permuted(torch.Generator().manual_seed(seed))
    assert torch.equal(changed.offsets, data.offsets)
    for image in range(len(data)):
        assert torch.equal(own(changed, image).sort(dim=0).values[:, 0], own(data, image)[:, 0])
        assert torch.equal(own(changed, image)[:, 0], -own(changed, image)[:, 1])


def test_permuting_changes_the_order():
    data = sequences_of([50, 50])
    changed = data.permuted(torch.Generator().manual_seed(0))
    assert not torch.equal(changed.values, data.values)

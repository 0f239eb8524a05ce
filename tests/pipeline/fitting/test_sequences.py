"""A batch holds the patches of its images, and nothing of others."""

from itertools import chain

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


LONG = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(LONG, st.integers(2, 9))
def test_the_parts_of_a_sequence_are_all_of_it_each_from_end_to_end(lengths, most):
    whole = sequences_of(lengths)
    data = Sequences(whole.values, whole.offsets, most)
    images = torch.arange(len(data))
    place, part = data.all_parts(images)
    x, inside = data.batch(images[place], part)
    inside = torch.ones(x.shape[:2], dtype=torch.bool) if inside is None else inside
    assert x.shape[1] == data.longest_part <= most
    for image, length in enumerate(lengths):
        read = [x[row][inside[row], 0].tolist() for row in (place == image).nonzero()[:, 0]]
        assert sorted(chain.from_iterable(read)) == own(whole, image)[:, 0].tolist()
        assert len(read) == -(-length // most)
        assert max(map(len, read)) - min(map(len, read)) <= 1
        for number, values in enumerate(read):
            assert np.diff(values).tolist() == [len(read)] * (len(values) - 1)
            assert values[0] == own(whole, image)[number, 0]


@given(LENGTHS, st.integers(0, 100))
def test_short_sequences_are_drawn_whole_and_take_no_random_numbers(lengths, seed):
    whole = sequences_of(lengths)
    data = Sequences(whole.values, whole.offsets, 6)
    generator = torch.Generator().manual_seed(seed)
    images = torch.arange(len(data))
    drawn, expected = data.draw(images, generator), whole.batch(images)
    assert torch.equal(drawn[0], expected[0])
    assert torch.rand(1, generator=generator) == torch.rand(
        1, generator=torch.Generator().manual_seed(seed)
    )


def test_every_part_of_a_long_sequence_is_drawn_about_equally_often():
    whole = sequences_of([3, 30])
    data = Sequences(whole.values, whole.offsets, 10)
    generator = torch.Generator().manual_seed(0)
    firsts = [int(data.draw(torch.tensor([1]), generator)[0][0, 0, 0]) - 3 for _ in range(600)]
    counts = np.bincount(firsts)
    assert len(counts) == 3
    assert counts.min() > 150


@given(LONG, st.integers(0, 100))
def test_permuted_sequences_are_read_in_as_many_parts(lengths, seed):
    whole = sequences_of(lengths)
    data = Sequences(whole.values, whole.offsets, 5)
    assert torch.equal(data.permuted(torch.Generator().manual_seed(seed)).parts, data.parts)

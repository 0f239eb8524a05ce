import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit import near
from pipeline.audit.near import near_pairs


def random_hashes(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


def flipped(one, bits, seed=0):
    """`one` with so many bits changed."""
    chosen = np.random.default_rng(seed).choice(256, bits, replace=False)
    content = np.unpackbits(one)
    content[chosen] ^= 1
    return np.packbits(content)


def found_in(hashes, bits):
    return {
        (i, j): d
        for pairs in near_pairs(hashes, bits)
        for i, j, d in zip(*map(np.ndarray.tolist, pairs), strict=True)
    }


def by_brute_force(hashes, bits):
    content = np.unpackbits(hashes, axis=1).astype(int)
    return {
        (i, j): int(d)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (d := np.abs(content[i] - content[j]).sum()) <= bits
    }


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 200), st.integers(0, 99), st.integers(0, 60))
def test_exactly_the_pairs_within_the_distance_are_found(n, bits, seed, flips):
    hashes = random_hashes(n, seed)
    copies = [flipped(one, flips, k) for k, one in enumerate(hashes[: n // 2])]
    hashes = np.concatenate([hashes, np.array(copies, np.uint8).reshape(-1, 32)])
    assert found_in(hashes, bits) == by_brute_force(hashes, bits)


def test_pairs_are_found_across_tiles_and_each_once(monkeypatch):
    monkeypatch.setattr(near, "_TILE", 8)
    monkeypatch.setattr(near, "_BAND", 3)
    hashes = random_hashes(37)
    hashes[36] = flipped(hashes[0], 12)
    hashes[20] = flipped(hashes[19], 40)
    hashes[5] = flipped(hashes[4], 41)
    found = list(near_pairs(hashes, 40))
    assert [(p.first.tolist(), p.second.tolist()) for p in found] == [([0], [36]), ([19], [20])]
    monkeypatch.undo()
    assert found_in(hashes, 40) == {(0, 36): 12, (19, 20): 40}


def test_of_many_equal_hashes_no_batch_is_larger_than_a_tile(monkeypatch):
    monkeypatch.setattr(near, "_TILE", 16)
    batches = [len(p.first) for p in near_pairs(np.zeros((100, 32), np.uint8), 40)]
    assert sum(batches) == 100 * 99 // 2
    assert max(batches) <= 16 * 16


@pytest.mark.parametrize("bits", [0, 255])
def test_equal_and_opposite_hashes_are_the_limits(bits):
    one = random_hashes(1)[0]
    assert found_in(np.stack([one, one, ~one]), bits) == {(0, 1): 0}

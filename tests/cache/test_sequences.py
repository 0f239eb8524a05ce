"""Damage to a few images is told from damage to all."""

import h5py
import numpy as np
import pytest
from small_caches import write

from cache import CacheDamagedError, FeatureCache, verify
from cache import sequences as module
from cache.sequences import damaged_images

LENGTHS = [2, 3, 1, 4, 2]


@pytest.fixture
def path(tmp_path, recipe):
    return write(tmp_path / "f.h5", recipe, LENGTHS)


def damaged(path) -> list[int]:
    with FeatureCache(path) as cache:
        return damaged_images(cache)


@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize("image", range(len(LENGTHS)))
def test_a_changed_feature_costs_its_image_only(path, monkeypatch, block, image):
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    assert damaged(path) == []
    with h5py.File(path, "r+") as file:
        file["features"][sum(LENGTHS[: image + 1]) - 1, 2] += 1
    assert damaged(path) == [image]
    assert any(f"image image{image}:" in line for line in verify(path))


def test_a_changed_coordinate_costs_its_image_only(path):
    with h5py.File(path, "r+") as file:
        file["coords"][5, 1] = -7
    assert damaged(path) == [2]


def test_a_changed_offset_costs_the_two_images_that_it_divides(path):
    for wrong in (3, 99, -1):
        with h5py.File(path, "r+") as file:
            file["offsets"][2] = wrong
        assert damaged(path) == [1, 2]


@pytest.mark.parametrize("dataset", ["features", "coords"])
def test_a_flipped_bit_costs_one_image_and_not_its_whole_chunk(tmp_path, recipe, dataset):
    path = write(tmp_path / "f.h5", recipe, [4000] * 20)
    with h5py.File(path) as file:
        rows, row_bytes = file[dataset].chunks[0], file[dataset][0].nbytes
        chunk = file[dataset].id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 100 * row_bytes] ^= 8
    path.write_bytes(data)
    image = (rows + 100) // 4000
    assert damaged(path) == [image]
    lines = verify(path)
    assert any(f"image image{image}:" in line for line in lines)
    assert any("checksum" in line or f"{dataset} cannot be read" in line for line in lines)


def test_a_chunk_that_is_not_there_costs_the_images_in_it(tmp_path, recipe, monkeypatch):
    path = write(tmp_path / "f.h5", recipe, [4000] * 20)
    with h5py.File(path) as file:
        rows = file["features"].chunks[0]

    def read(cache, start, stop):
        if start < 2 * rows and stop > rows:
            raise CacheDamagedError("cannot be read")
        return cache.features(start, stop), cache.all_coords(start, stop)

    with FeatureCache(path) as cache:
        monkeypatch.setattr(module, "read_rows", read)
        first, last = rows // 4000, (2 * rows - 1) // 4000
        assert damaged_images(cache) == list(range(first, last + 1))


def test_changed_digests_prove_nothing(path):
    with h5py.File(path, "r+") as file:
        file["digests"][0] = b"0" * 64
    with pytest.raises(CacheDamagedError, match="digests_sha256"):
        damaged(path)


def test_each_digest_is_that_of_the_features_and_then_the_coordinates(path):
    import hashlib

    with FeatureCache(path) as cache:
        for i, digest in enumerate(cache.digests):
            data = cache.sequence(i).tobytes() + cache.coords(i).tobytes()
            assert digest.decode() == hashlib.sha256(data).hexdigest()
        assert np.shape(cache.digests) == (len(LENGTHS),)

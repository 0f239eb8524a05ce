"""The seal over the whole file: no byte changes unnoticed."""

import h5py
import pytest
from small_caches import write

from cache import CacheDamagedError, CacheFormatError, FeatureCache, verify
from cache.file_seal import BLOCK_BYTES, file_seal_fits, write_file_seal


@pytest.fixture
def path(tmp_path, recipe):
    return write(tmp_path / "f.h5", recipe, [2, 3, 1])


def test_a_byte_that_no_value_depends_on_is_covered_too(path):
    """HDF5 does not checksum every byte of its own, and ignores some."""
    data = path.read_bytes()
    unneeded = 0
    for at in range(BLOCK_BYTES, len(data), 61):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        violations = verify(path)
        assert violations, at
        unneeded += "whole file" in violations[0] and len(violations) == 1
        with pytest.raises(CacheDamagedError, match=r"whole file|first bytes"):
            FeatureCache(path, seal="whole")
    assert unneeded


@pytest.mark.parametrize("at", [0, 7, 30, 40, 100, 101, 102, 511])
def test_every_part_of_the_block_itself_is_covered(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert verify(path)
    with pytest.raises(CacheDamagedError):
        FeatureCache(path, seal="whole")


def test_bytes_added_at_the_end_are_noticed(path):
    path.write_bytes(path.read_bytes() + b"x")
    assert verify(path)


def test_a_file_without_block_is_refused(path):
    path.write_bytes(path.read_bytes()[BLOCK_BYTES:])
    with pytest.raises(CacheFormatError, match="no file seal"):
        FeatureCache(path)


def test_sealing_again_covers_what_was_changed(path):
    with h5py.File(path, "r+") as file:
        file.create_group("notes")
    assert not file_seal_fits(path)
    write_file_seal(path)
    assert file_seal_fits(path)
    assert verify(path) == [], "objects that the format does not name are ignored"

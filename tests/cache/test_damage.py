"""A file that is not a sound cache is refused, and verification says all that is wrong."""

import errno

import h5py
import numpy as np
import pytest
from small_caches import write

from cache import (
    CacheDamagedError,
    CacheError,
    CacheFormatError,
    CacheIncompleteError,
    FeatureCache,
    check,
    opening,
    verify,
)
from cache.file_seal import write_file_seal
from cache.layout import read_attributes, write_attributes


@pytest.fixture
def path(tmp_path, recipe):
    return write(tmp_path / "f.h5", recipe, [2, 3, 1])


def change(path, **attributes):
    """Change root attributes and seal them anew."""
    with h5py.File(path, "r+") as file:
        kept = {k: v for k, v in read_attributes(file).items() if k != "complete"}
        for name in list(file.attrs):
            del file.attrs[name]
        write_attributes(file, {**kept, **attributes})


def test_text_is_not_a_cache(tmp_path):
    (tmp_path / "f.h5").write_text("not HDF5")
    with pytest.raises(CacheFormatError, match="not an HDF5 file"):
        FeatureCache(tmp_path / "f.h5")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(CacheFormatError, match="pipeline extract"):
        FeatureCache(tmp_path / "f.h5")


def test_another_hdf5_file_is_not_a_cache(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(CacheFormatError, match="not a feature cache"):
        FeatureCache(tmp_path / "f.h5")


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.9])
def test_a_file_cut_short_is_damaged(path, fraction):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises((CacheDamagedError, CacheFormatError)):
        FeatureCache(path)


def test_a_file_without_its_seal_is_incomplete(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(CacheIncompleteError, match="never finished"):
        FeatureCache(path)


def test_an_attribute_changed_after_sealing_is_noticed(path):
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = np.bytes_(b"{}")
    with pytest.raises(CacheDamagedError, match="attributes were changed"):
        FeatureCache(path)


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"format": "other"}, CacheFormatError, "other"),
        ({"format_version": "2.0"}, CacheFormatError, r"version 2\.0"),
        ({"fingerprint": "0" * 64}, CacheDamagedError, "fingerprint"),
        ({"recipe": "{}"}, CacheDamagedError, "missing"),
        ({"recipe": "["}, CacheDamagedError, "JSON"),
        ({"failures": "[1]"}, CacheDamagedError, "triples"),
        ({"failures": "{}"}, CacheDamagedError, "triples"),
        ({"provenance": "[]"}, CacheDamagedError, "object of texts"),
        ({"provenance": "[" * 100_000}, CacheDamagedError, "cannot be read"),
        ({"shard": '{"number": 2, "total": 2, "plan": "p"}'}, CacheDamagedError, "shard 2 of 2"),
        ({"shard": '{"number": 0}'}, CacheDamagedError, "not a place"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(path, attributes, error, message):
    change(path, **attributes)
    with pytest.raises(error, match=message):
        FeatureCache(path)


def test_a_later_minor_version_is_read(path):
    change(path, format_version="1.7")
    write_file_seal(path)
    assert verify(path) == []


@pytest.mark.parametrize(
    ("dataset", "index", "value", "message"),
    [
        ("features", (0, 0), 9.0, "features_sha256"),
        ("features", (5, 3), np.nan, "not finite"),
        ("coords", (1, 0), 9, "index_sha256"),
        ("offsets", 1, 1, "index_sha256"),
        ("offsets", 1, 5, "offsets must rise"),
        ("offsets", 0, 1, "offsets must rise"),
        ("images/label", 0, b"malignt", "manifest_sha256"),
        ("images/image_id", 0, b"image1", "more than once"),
        ("images/width", 0, -1, "out of range"),
        ("images/path", 0, b"\xff\xff", "UTF-8"),
    ],
)
def test_a_changed_value_is_found(path, dataset, index, value, message):
    with h5py.File(path, "r+") as file:
        file[dataset][index] = value
    violations = verify(path)
    assert any(message in line for line in violations), violations
    with pytest.raises(CacheDamagedError):
        check(path)
    with pytest.raises(CacheDamagedError), FeatureCache(path) as cache:
        cache.load()


def test_a_file_that_may_not_be_read_is_not_called_damaged(path, monkeypatch):
    def refuse(file):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(opening, "check_block", refuse)
    with pytest.raises(CacheError, match=r"f\.h5: cannot be read \(Permission denied\)"):
        FeatureCache(path)


def test_a_forged_text_cannot_command_a_terminal(path):
    change(path, format="\x1b[2J\n")
    for message in verify(path):
        assert message.isprintable()
    with h5py.File(path, "r+") as file:
        file["images/label"][0] = b"\x1b[2J"
        file["images/image_id"][0] = b"\x1b[2J"
    with pytest.raises(CacheFormatError) as raised:
        FeatureCache(path)
    assert str(raised.value).isprintable()


def test_every_violation_is_listed(path):
    with h5py.File(path, "r+") as file:
        file["features"][0, 0] = np.inf
        file["coords"][0, 0] = 7
        file["images/height"][2] = -5
    text = "\n".join(verify(path))
    for expected in ("features_sha256", "not finite", "index_sha256", "height", "manifest_sha256"):
        assert expected in text


@pytest.mark.parametrize("dataset", ["features", "coords", "offsets", "images/case"])
def test_a_missing_dataset_is_named(path, dataset):
    with h5py.File(path, "r+") as file:
        del file[dataset]
    with pytest.raises(CacheDamagedError, match=f"{dataset} is missing"):
        FeatureCache(path)


def test_a_dataset_of_another_type_is_named(path):
    with h5py.File(path, "r+") as file:
        del file["features"]
        file["features"] = np.zeros((6, 4), np.float64)
    with pytest.raises(CacheDamagedError, match="features is float64"):
        FeatureCache(path)


def test_a_flipped_bit_in_a_chunk_is_found(path, recipe):
    data = bytearray(path.read_bytes())
    with FeatureCache(path) as cache:
        at = bytes(data).find(cache.features().tobytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    assert verify(path)

"""A stranger's reader: what FORMAT.md says, done with h5py and the standard library alone."""

import hashlib
import itertools
import json
import struct
from pathlib import Path

import h5py
import pytest

ARCHIVES = Path(__file__).parents[1] / "data" / "archives"
COLUMNS = (
    *("image_id", "path", "label", "subtype", "slide"),
    *("case", "magnification", "width", "height", "sha256"),
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


@pytest.fixture(params=["1.0/whole", "1.0/shard", "1.1/whole", "1.1/shard"])
def path(request):
    return ARCHIVES / f"{request.param}.h5"


@pytest.fixture
def version(path) -> str:
    return path.parent.name


@pytest.fixture
def file(path):
    with h5py.File(path) as file:
        yield file


@pytest.fixture
def attributes(file) -> dict[str, str]:
    return {name: file.attrs[name].decode("utf-8") for name in file.attrs}


def test_the_file_seal_is_where_the_table_says(path):
    data = path.read_bytes()
    assert data[:37] == b"patch-feature-cache file seal\nsha256 "
    assert data[37:101].decode("ascii") == sha256(data[512:])
    assert data[101:512] == b"\n" + bytes(410)


def test_the_attributes_are_those_listed_and_sealed(attributes, version):
    sealed = {name: text for name, text in attributes.items() if name != "complete"}
    assert attributes["complete"] == sha256(canonical(sealed))
    assert (attributes["format"], attributes["format_version"]) == ("patch-feature-cache", version)
    assert attributes["fingerprint"] == sha256(attributes["recipe"].encode("utf-8"))
    for name in ("recipe", "provenance", "failures"):
        assert attributes[name].encode("ascii") == canonical(json.loads(attributes[name]))
    if "shard" in attributes:
        place = json.loads(attributes["shard"])
        assert set(place) == {"number", "total", "plan"}
        assert 0 <= place["number"] < place["total"]


def test_every_digest_is_that_of_the_bytes_that_it_names(file, attributes):
    features, coords, offsets = (file[name][:] for name in ("features", "coords", "offsets"))
    assert attributes["features_sha256"] == sha256(features.tobytes())
    assert attributes["index_sha256"] == sha256(coords.tobytes() + offsets.tobytes())
    digests = file["digests"][:]
    assert attributes["digests_sha256"] == sha256(digests.tobytes())
    for i, digest in enumerate(digests):
        rows = slice(offsets[i], offsets[i + 1])
        assert digest.decode() == sha256(features[rows].tobytes() + coords[rows].tobytes())


def test_the_image_table_has_the_digest_of_its_lines(file, attributes):
    lines = []
    for name in COLUMNS:
        values = file["images"][name][:].tolist()
        texts = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]
        lines += [name, *texts]
    assert attributes["manifest_sha256"] == sha256("".join(f"{x}\n" for x in lines).encode("utf-8"))


def test_types_shapes_and_storage_are_as_specified(file, attributes):
    recipe = json.loads(attributes["recipe"])
    images, patches = len(file["offsets"]) - 1, len(file["features"])
    assert file["features"].shape == (patches, recipe["feature_dim"])
    assert file["features"].dtype == {"float16": "<f2", "float32": "<f4"}[recipe["dtype"]]
    assert (file["coords"].shape, file["coords"].dtype) == ((patches, 2), "<i4")
    assert file["offsets"].dtype == "<i8"
    for name in COLUMNS:
        column = file["images"][name]
        assert column.shape == (images,)
        kind = h5py.check_string_dtype(column.dtype)
        if name in ("magnification", "width", "height"):
            assert column.dtype == "<i4"
        else:
            assert kind is not None
            assert (kind.encoding, column.dtype.itemsize) == ("utf-8", kind.length)
    views = len(recipe["views"])
    assert all(n % views == 0 for n in (file["offsets"][1:] - file["offsets"][:-1]))
    names: list[str] = []
    file.visititems(lambda name, found: names.append(name) if hasattr(found, "dtype") else None)
    assert all(file[name].fletcher32 and file[name].chunks for name in names)
    offsets = file["offsets"][:].tolist()
    assert offsets[0] == 0
    assert offsets[-1] == patches
    assert all(a < b for a, b in itertools.pairwise(offsets))


def test_the_superblock_is_of_hdf5_1_10_or_older(path):
    signature, version = struct.unpack("8sB", path.read_bytes()[512:521])
    assert (signature, version <= 3) == (b"\x89HDF\r\n\x1a\n", True)


def test_statistics_are_as_specified_and_proved_image_by_image(file, attributes, version):
    assert ("statistics_sha256" in attributes) == (version != "1.0") == ("statistics" in file)
    if version == "1.0":
        return
    group, images = file["statistics"], len(file["offsets"]) - 1
    assert (group["colour"].shape, group["colour"].dtype) == ((images, 12), "<f4")
    assert (group["perceptual_hash"].shape, group["perceptual_hash"].dtype) == ((images, 32), "u1")
    names = ("colour", "perceptual_hash", "pixels_sha256", "digests")
    colour, hashes, texts, digests = (group[name][:] for name in names)
    assert attributes["statistics_sha256"] == sha256(digests.tobytes())
    for i, digest in enumerate(digests):
        data = colour[i].tobytes() + hashes[i].tobytes() + texts[i]
        assert (len(data), digest.decode()) == (48 + 32 + 64, sha256(data))


def test_the_columns_are_those_of_the_table_of_layers(attributes):
    channels = {"features.3": 64, "features.8": 128, "features.30": 512}
    recipe = json.loads(attributes["recipe"])
    columns = sum(channels[layer] for layer in recipe["layer"].split(","))
    if recipe["encoder"] == "vgg16" and recipe["feature_dim"] > 5:  # the others are made up
        assert recipe["feature_dim"] == columns * len(recipe["pooling"].split("+"))

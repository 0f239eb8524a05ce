"""A damaged cache is mended at the price of the damage, and only with what is proved."""

import shutil

import h5py
import numpy as np
import pytest
from small_caches import strip_statistics
from small_data import write_study

from cache import CacheError, Failure, FeatureCache, UnknownImageError, relabel, verify
from pipeline.dataset.manifest import read_manifest, write_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.engines import choose
from pipeline.extraction.engines.ncnn_encoder import NcnnEncoder
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.repair import Sources, repair
from pipeline.weights.weights_file import publish_weights, random_weights


class Counting(NcnnEncoder):
    encoded = 0

    def encode(self, patches):
        Counting.encoded += len(patches)
        return super().encode(patches)


@pytest.fixture(scope="module")
def sound(tmp_path_factory, weights_file):
    """A cache of 8 images of 4 patches, one of which failed, with one image a chunk."""
    folder = tmp_path_factory.mktemp("repair")
    write_study(folder, images=9)
    (folder / "image003.png").write_bytes(b"not an image")
    options = ExtractOptions(
        PatchOptions(32, 32, "drop", "float32"), "cpu", images_per_shard=3, allow_failures=1
    )
    extract(folder / "manifest.csv", weights_file, folder / "f.h5", options)
    return folder


@pytest.fixture
def study(sound, tmp_path, monkeypatch):
    shutil.copytree(sound, tmp_path / "study", ignore=shutil.ignore_patterns("*.shards"))
    monkeypatch.setattr(choose, "NcnnEncoder", Counting)
    Counting.encoded = 0
    return tmp_path / "study"


@pytest.fixture
def sources(study, weights_file):
    return Sources(study / "manifest.csv", weights_file, "cpu", 1)


def content(path):
    with FeatureCache(path) as cache:
        arrays = (cache.features(), cache.all_coords(), cache.offsets)
        described = cache.statistics and cache.statistics.sha256()
        return [a.tobytes() for a in arrays], cache.images.rows(), cache.failures, described


def change(path, dataset, index, value):
    with h5py.File(path, "r+") as file:
        file[dataset][index] = value


def break_chunk(path, dataset):
    """Flip a bit in the first chunk, so that HDF5 cannot read it."""
    with h5py.File(path) as file:
        at = file[dataset].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[at + 1] ^= 16
    path.write_bytes(data)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_sound_cache_is_left_alone(study):
    before = (study / "f.h5").read_bytes()
    assert repair(study / "f.h5").summary() == "sound, nothing to repair"
    assert (study / "f.h5").read_bytes() == before
    assert not (study / "f.h5.shards").exists()


@pytest.mark.parametrize(
    ("dataset", "index", "value", "encoded"),
    [
        ("features", (5, 7), 1.5, 1),
        ("coords", (30, 0), -4, 1),
        ("offsets", 3, 9, 2),
        ("offsets", 0, 1, 1),
        ("digests", 2, b"0" * 64, 0),
        ("statistics/colour", (2, 3), 0.25, 1),
        ("statistics/perceptual_hash", (2, 3), 1, 1),
        ("statistics/pixels_sha256", 2, b"0" * 64, 1),
        ("statistics/digests", 2, b"0" * 64, 0),
        ("images/label", 1, b"benig", 0),
        ("images/width", 1, 3, 0),
    ],
)
def test_exactly_the_damaged_images_are_encoded_again(
    study, sources, dataset, index, value, encoded
):
    before = content(study / "f.h5")
    change(study / "f.h5", dataset, index, value)
    assert verify(study / "f.h5")
    result = repair(study / "f.h5", sources)
    assert (result.encoded, Counting.encoded) == (encoded, 4 * encoded)
    assert result.identical
    assert content(study / "f.h5") == before
    assert verify(study / "f.h5") == []
    assert not (study / "f.h5.shards").exists(), "there was none before"
    with FeatureCache(study / "f.h5") as cache:
        assert f"{encoded} of 8 images encoded again" in cache.provenance["repaired"]


def test_damage_where_no_value_lies_needs_no_images(study):
    before = content(study / "f.h5")
    for at in (3, 200):  # in the block of the file seal
        flip(study / "f.h5", at)
        assert repair(study / "f.h5").encoded == 0
        assert content(study / "f.h5") == before
        assert verify(study / "f.h5") == []


@pytest.mark.parametrize("dataset", ["features", "coords"])
def test_a_wrong_checksum_costs_the_image_with_the_flipped_bit_only(study, sources, dataset):
    before = content(study / "f.h5")
    break_chunk(study / "f.h5", dataset)
    assert repair(study / "f.h5", sources).encoded == 1
    assert content(study / "f.h5") == before


def test_a_cache_without_statistics_is_mended_and_gets_none(study, sources):
    strip_statistics(study / "f.h5")
    before = content(study / "f.h5")
    change(study / "f.h5", "features", (5, 7), 1.5)
    assert repair(study / "f.h5", sources).encoded == 1
    assert content(study / "f.h5") == before
    with FeatureCache(study / "f.h5") as cache:
        assert cache.statistics is None


def test_sound_shards_are_used_before_images(study, sources, weights_file):
    """A copy of the cache was made, the original's second name is still there."""
    options = ExtractOptions(PatchOptions(32, 32, "drop", "float32"), "cpu", allow_failures=1)
    extract(study / "manifest.csv", weights_file, study / "g.h5", options)
    before = content(study / "g.h5")
    shutil.copy(study / "g.h5", study / "copy.h5")
    shutil.move(study / "copy.h5", study / "g.h5")
    break_chunk(study / "g.h5", "features")
    assert repair(study / "g.h5").encoded == 0
    assert content(study / "g.h5") == before


def test_without_sources_it_says_which_images_it_needs(study, sources):
    change(study / "f.h5", "features", (5, 7), 1.5)
    damaged = (study / "f.h5").read_bytes()
    with pytest.raises(UsageError, match=r"1 images must be encoded again \(image001\): give"):
        repair(study / "f.h5")
    assert (study / "f.h5").read_bytes() == damaged


def test_other_weights_are_refused_field_by_field(study, sources, tmp_path):
    publish_weights(random_weights(1), tmp_path / "other.safetensors")
    change(study / "f.h5", "features", (5, 7), 1.5)
    with pytest.raises(UsageError, match="weights_sha256"):
        repair(study / "f.h5", Sources(sources.manifest, tmp_path / "other.safetensors", "cpu", 1))


def test_an_image_that_is_gone_leaves_the_cache_as_it_is(study, sources):
    change(study / "f.h5", "features", (5, 7), 1.5)
    damaged = (study / "f.h5").read_bytes()
    (study / "image001.png").unlink()
    with pytest.raises(PipelineError, match=r"not mended, as 1 of 1 .*\n.*image001.png"):
        repair(study / "f.h5", sources)
    assert (study / "f.h5").read_bytes() == damaged


def test_a_manifest_with_other_labels_does_not_replace_a_damaged_table(study, sources):
    rows = read_manifest(study / "manifest.csv")
    write_manifest(study / "manifest.csv", [rows[0]._replace(label="other"), *rows[1:]])
    change(study / "f.h5", "images/label", 1, b"benig")
    with pytest.raises(CacheError, match="image table is damaged"):
        repair(study / "f.h5", sources)


def test_damaged_metadata_cannot_be_mended_and_the_way_out_is_named(study, sources):
    with h5py.File(study / "f.h5", "r+") as file:
        del file.attrs["provenance"]
    with pytest.raises(CacheError, match="pipeline extract --overwrite"):
        repair(study / "f.h5", sources)


def test_overwriting_a_damaged_output_uses_what_is_intact_in_it(study, weights_file):
    change(study / "f.h5", "features", (5, 7), 1.5)
    options = ExtractOptions(
        PatchOptions(32, 32, "drop", "float32"), "cpu", allow_failures=1, overwrite=True
    )
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", options).encoded == 1
    assert verify(study / "f.h5") == []


def test_a_repaired_relabelled_cache_keeps_its_labels(study, sources):
    with FeatureCache(study / "f.h5") as cache:
        first, *others = cache.images.rows()
    relabel(study / "f.h5", [first._replace(label="other"), *others], study / "f.h5")
    change(study / "f.h5", "features", (5, 7), 1.5)
    repair(study / "f.h5", sources)
    with FeatureCache(study / "f.h5") as cache:
        assert cache.images["label"][0] == "other"
        assert cache.failures == [Failure("image003", "image003.png", cache.failures[0].reason)]
        with pytest.raises(UnknownImageError):
            cache.sequence("image003")
        assert np.isfinite(cache.load()).all()

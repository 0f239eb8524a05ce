"""A cache whose features stay in its shards gives the same bits, or refuses; never zeros."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_caches import make_recipe, make_row, write

from cache import CacheDamagedError, CacheError, FeatureCache, ShardPlace, merge, verify
from cache.file_seal import write_file_seal
from cache.layout import SEAL, attributes_seal
from cache.relabel import relabel
from cache.sequences import read_rows
from cache.sources import Source, read_sources
from cache.writer import write_cache

COUNT = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards in `shards`, merged with and without their features. Only to be read."""
    folder = tmp_path_factory.mktemp("made") / "all"
    (folder / "shards").mkdir(parents=True)
    recipe = make_recipe()
    paths = [
        write(folder / f"shards/{i:02}.h5", recipe, [1, 2 + i], place(i), statistics=True)
        for i in range(COUNT)
    ]
    merge(paths, folder / "copied.h5", {})
    merge(paths[::-1], folder / "virtual.h5", {}, virtual=True)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "all"))


@pytest.fixture(autouse=True)
def few_open(monkeypatch):
    monkeypatch.setattr("cache.sources._OPEN_AT_ONCE", 2)


def place(number, total=COUNT):
    return ShardPlace(number, total, "p")


def test_it_gives_the_bits_of_a_copy_in_every_way_of_reading(folder):
    assert verify(folder / "virtual.h5") == []
    with FeatureCache(folder / "copied.h5") as copy, FeatureCache(folder / "virtual.h5") as cache:
        assert len(cache.sources) == COUNT
        assert cache.load().tobytes() == copy.load().tobytes()
        assert cache.features().tobytes() == copy.features().tobytes()
        for start, stop in ((0, 1), (2, 9), (0, cache.patches), (cache.patches - 1, None), (5, 5)):
            assert cache.features(start, stop).tobytes() == copy.features(start, stop).tobytes()
        for image in range(len(copy)):
            assert cache.sequence(image).tobytes() == copy.sequence(image).tobytes()
        for mine, theirs in zip(read_rows(cache, 1, 60), read_rows(copy, 1, 60), strict=True):
            assert mine.tobytes() == theirs.tobytes()
        assert cache.unchecked("features", 3, 70).tobytes() == copy.features(3, 70).tobytes()
        assert cache.images.rows() == copy.images.rows()
        own = {"sources", "format_version", SEAL}
        assert {k: v for k, v in cache.attributes.items() if k not in own} == {
            k: v for k, v in copy.attributes.items() if k not in own
        }


def test_other_readers_of_hdf5_find_the_features_too(folder):
    with h5py.File(folder / "virtual.h5") as file, FeatureCache(folder / "copied.h5") as copy:
        np.testing.assert_array_equal(file["features"][:], copy.features())


def test_no_feature_is_copied(tmp_path):
    recipe = make_recipe(feature_dim=4096)
    features, coords = np.ones((60, 4096), np.float16), np.zeros((60, 2), np.int32)
    for number in range(2):
        with write_cache(tmp_path / f"{number}.h5", recipe, {}, place(number, 2)) as writer:
            writer.append(make_row(f"image{number}"), features, coords)
    merge([tmp_path / f"{n}.h5" for n in range(2)], tmp_path / "v.h5", {}, virtual=True)
    with FeatureCache(tmp_path / "v.h5") as cache:
        assert (tmp_path / "v.h5").stat().st_size < 0.1 * cache.load().nbytes


def test_the_folder_can_be_moved_as_a_whole(folder):
    moved = folder.rename(folder.with_name("elsewhere"))
    assert verify(moved / "virtual.h5") == []


def test_it_cannot_be_taken_away_from_its_shards(folder, tmp_path):
    shutil.copy(folder / "virtual.h5", tmp_path / "alone.h5")
    with pytest.raises(CacheDamagedError, match=r"shards/00.h5, which is missing: put the shards"):
        FeatureCache(tmp_path / "alone.h5")
    assert "missing" in verify(tmp_path / "alone.h5")[0]


def damage(path, at=-300):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def replace_by_another(path):
    recipe = make_recipe()
    write(path, recipe, [7, 8], place(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (replace_by_another, "another file than was merged"),
        (lambda path: path.write_bytes(b""), "another file"),
        (lambda path: path.write_bytes(path.read_bytes()[:400]), "another file"),
        (lambda path: damage(path, 60), "another file"),
    ],
)
def test_a_shard_that_is_not_the_one_merged_is_refused_at_opening(folder, change, message):
    change(folder / "shards/03.h5")
    for seal in ("present", "absent", "whole"):
        with pytest.raises(CacheDamagedError, match=message):
            FeatureCache(folder / "virtual.h5", seal=seal)


def test_a_shard_that_goes_while_the_cache_is_open_is_refused_and_not_zeros(folder):
    with FeatureCache(folder / "virtual.h5") as cache:
        (folder / "shards/03.h5").unlink()
        replace_by_another(folder / "shards/04.h5")
        for read in (cache.load, cache.features, lambda: cache.sequence(7)):
            with pytest.raises(CacheDamagedError, match=r"03.h5, which is missing"):
                read()
        with pytest.raises(CacheDamagedError, match=r"04.h5 is another file"):
            cache.sequence(8)


def test_a_flipped_bit_in_a_shard_is_noticed(folder):
    path = folder / "shards/02.h5"
    with FeatureCache(path) as shard:
        at = path.read_bytes().find(shard.features().tobytes()[:64])
    damage(path, at + 3)
    assert any("02.h5" in line for line in verify(folder / "virtual.h5"))
    with pytest.raises(CacheDamagedError, match=r"02.h5: its bytes are not"):
        FeatureCache(folder / "virtual.h5", seal="whole")
    with FeatureCache(folder / "virtual.h5") as cache, pytest.raises(CacheDamagedError):
        cache.load()


def test_shards_outside_of_the_folder_are_refused(folder, tmp_path):
    paths = sorted((folder / "shards").iterdir())
    (tmp_path / "other").mkdir()
    with pytest.raises(CacheError, match=r"not in or below .*other, .*or merge with copying"):
        merge(paths, tmp_path / "other/v.h5", {}, virtual=True)
    assert not (tmp_path / "other/v.h5").exists()


def test_a_relabelled_virtual_cache_holds_its_features(folder):
    with FeatureCache(folder / "virtual.h5") as cache:
        rows = [row._replace(case="x") for row in cache.images.rows()]
        features = cache.load()
    relabel(folder / "virtual.h5", rows, folder / "r.h5")
    shutil.rmtree(folder / "shards")
    with FeatureCache(folder / "r.h5") as cache:
        assert not cache.sources
        np.testing.assert_array_equal(cache.load(), features)


# What a stranger's file may say


def forge(path, sources=None, **fields):
    """Change the sources of a cache, or its virtual dataset, and seal it again."""
    with h5py.File(path, "r+") as file:
        attributes = {name: file.attrs[name].decode() for name in file.attrs}
        if sources is not None:
            attributes["sources"] = json.dumps(sources)
        attributes[SEAL] = attributes_seal(attributes)
        for name in ("sources", SEAL):
            del file.attrs[name]
            data = attributes[name].encode()
            dtype = h5py.string_dtype("utf-8", len(data))
            file.attrs.create(name, np.bytes_(data), dtype=dtype)
        if fields:
            shape, dtype = file["features"].shape, file["features"].dtype
            del file["features"]
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource(fields["file"], "features", shape, dtype=dtype)
            file.create_virtual_dataset("features", layout)
    write_file_seal(path)


def declared(path):
    with FeatureCache(path) as cache:
        return [list(source) for source in cache.sources]


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "../x.h5",
        "a/../../x.h5",
        "a//b.h5",
        "./a.h5",
        "",
        ".",
        "c:x.h5",
        "a\\b",
        "a\n",
    ],
)
def test_a_source_elsewhere_is_refused_and_not_opened(folder, file):
    sources = declared(folder / "virtual.h5")
    sources[0][0] = file
    forge(folder / "virtual.h5", sources)
    with pytest.raises(CacheDamagedError, match="not a file below the cache's folder"):
        FeatureCache(folder / "virtual.h5")


@pytest.mark.parametrize(
    "entry", [["a", -1, "0" * 64], ["a", 1.0, "0" * 64], ["a", 1, "0"], ["a"], 1]
)
def test_sources_that_make_no_sense_are_refused(entry):
    with pytest.raises(ValueError, match="source"):
        read_sources(json.dumps([entry]))


def test_a_virtual_dataset_of_other_files_than_declared_is_refused(folder):
    for file in ("/etc/hostname", "shards/01.h5"):
        forge(folder / "virtual.h5", file=file)
        with pytest.raises(CacheDamagedError, match="not made of its sources"):
            FeatureCache(folder / "virtual.h5")


def test_a_source_of_another_recipe_or_length_is_refused(folder):
    path = folder / "shards/00.h5"
    for recipe, lengths in ((make_recipe(stride=99), [1, 2]), (make_recipe(), [2, 2])):
        write(path, recipe, lengths, place(0))
        with h5py.File(folder / "virtual.h5") as file:
            rows = file["features"].shape[0]
            sources = json.loads(file.attrs["sources"])
        sources[0][2] = path.read_bytes()[37:101].decode()
        forge(folder / "virtual.h5", sources)
        with FeatureCache(folder / "virtual.h5") as cache:
            assert cache.patches == rows
            with pytest.raises(CacheDamagedError, match="not a shard of it"):
                cache.features()


def test_a_cache_without_sources_may_not_be_virtual(folder, recipe):
    with h5py.File(folder / "copied.h5", "r+") as file:
        shape, dtype = file["features"].shape, file["features"].dtype
        del file["features"]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource("x.h5", "features", shape, dtype=dtype)
        file.create_virtual_dataset("features", layout)
    write_file_seal(folder / "copied.h5")
    with pytest.raises(CacheDamagedError, match="not stored in chunks of this file"):
        FeatureCache(folder / "copied.h5")


def test_rows_that_are_not_those_of_the_sources_are_not_written(tmp_path, recipe):
    sources = [Source("a.h5", 5, "0" * 64)]
    with (
        pytest.raises(CacheError, match="5 patches, 1 came"),
        write_cache(tmp_path / "v.h5", recipe, {}, sources=sources) as writer,
    ):
        features = np.zeros((1, recipe.feature_dim), np.float16)
        writer.append(make_row("a"), features, np.zeros((1, 2), np.int32))
    assert not (tmp_path / "v.h5").exists()


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=8))
def test_any_json_is_sources_or_a_value_error(value):
    try:
        read_sources(json.dumps(value))
    except ValueError:
        return
    raise AssertionError(value)

"""A merged cache without features of its own gives those of its shards, or refuses: never zeros."""

import itertools
import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from opened import never_opened, replace_by_endless
from small_caches import DIM, coords_of, features_of, make_recipe, make_row, statistics_of, write

from cache import (
    CacheDamagedError,
    CacheError,
    Failure,
    FeatureCache,
    ShardPlace,
    compare,
    merge,
    merge_virtual,
    relabel,
    verify,
    write_cache,
)
from cache import virtual as module
from cache.file_seal import write_file_seal
from cache.layout import read_attributes, write_attributes
from cache.salvage import intact_images
from cache.sequences import read_rows
from cache.sources import Source, describe_source, read_sources

LENGTHS = ([1, 4], [], [6, 1, 2])  # patches of the images of each shard


def write_shards(folder):
    """Two shards with features and statistics, and between them one whose only image failed."""
    paths = []
    for number, lengths in enumerate(LENGTHS):
        path = folder / f"shards/{number}.h5"
        place = ShardPlace(number, len(LENGTHS), "p")
        with write_cache(path, make_recipe(), {"made": "by a test"}, place) as writer:
            for i, length in enumerate(lengths, 100 * number):
                row, values = make_row(f"image{i}"), features_of(i, length)
                writer.append(row, values, coords_of(length), statistics_of(i))
            if not lengths:
                writer.fail(Failure("bad", "bad.png", "empty"))
        paths.append(path)
    return paths


def small_chunks():
    """Three rows of features are a chunk."""
    return patch("cache.layout.CHUNK_BYTES", 3 * DIM * 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with small_chunks():
        shards = write_shards(folder)
        merge(shards, folder / "copied.h5", {"a": "b"})
        merge_virtual(list(reversed(shards)), folder / "virtual.h5", {"a": "b"})
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """`copied.h5` and `virtual.h5` of the same shards, of several chunks each."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture
def path(folder):
    return folder / "virtual.h5"


@pytest.fixture
def pair(folder):
    with FeatureCache(folder / "copied.h5") as copied, FeatureCache(folder / "virtual.h5") as mine:
        yield copied, mine


def same(a, b):
    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


# Reading


def test_any_rows_are_those_of_the_copied_cache(pair):
    copied, mine = pair
    assert mine.patches == copied.patches == 14
    for start, stop in itertools.combinations_with_replacement(range(15), 2):
        same(mine.features(start, stop), copied.features(start, stop))
        same(mine.part("features", start, stop), copied.part("features", start, stop))
        if start < stop:
            same(mine.unchecked("features", start, stop), copied.features(start, stop))
            same(read_rows(mine, start, stop)[0], copied.features(start, stop))
    same(mine.features(), copied.features())
    same(mine.dataset("features"), copied.features())


def test_images_load_and_tables_are_those_of_the_copied_cache(pair):
    copied, mine = pair
    for i, row in enumerate(copied.images.rows()):
        same(mine.sequence(i), copied.sequence(i))
        same(mine.sequence(row.image_id), copied.sequence(row.image_id))
        same(mine.coords(i), copied.coords(i))
    same(mine.load(), copied.load())
    assert mine.images.rows() == copied.images.rows()
    assert mine.statistics.digests() == copied.statistics.digests()
    assert mine.failures == copied.failures == [Failure("bad", "bad.png", "empty")]
    assert mine.recipe == copied.recipe
    assert mine.shard is None


def test_the_attributes_are_those_of_the_copied_cache_but_for_the_sources(pair):
    copied, mine = (cache.attributes for cache in pair)
    differing = {name for name in {*copied, *mine} if copied.get(name) != mine.get(name)}
    assert differing == {"format_version", "sources", "complete"}
    assert mine["format_version"] == "1.2"
    sources = json.loads(mine["sources"])
    assert [name for name, *_ in sources] == ["shards/0.h5", "shards/2.h5"]
    assert mine["sources"] == json.dumps(sources, separators=(",", ":"))


def test_verify_and_diff_find_nothing(folder):
    assert verify(folder / "virtual.h5") == []
    assert compare(folder / "copied.h5", folder / "virtual.h5").same
    with FeatureCache(folder / "virtual.h5", seal="whole") as cache:
        assert [source.rows for source in cache.sources] == [5, 9]


def test_loading_goes_past_the_filters(path, monkeypatch):
    monkeypatch.setattr(FeatureCache, "features", None)
    with FeatureCache(path) as cache:
        assert len(cache.load()) == 14


def test_shards_that_do_not_lie_as_expected_are_read_by_hdf5(pair, monkeypatch):
    monkeypatch.setattr(module, "read_into", lambda path, dataset, values: False)
    same(pair[1].load(), pair[0].load())


def test_hdf5_alone_gives_the_same_features(folder):
    with h5py.File(folder / "virtual.h5") as mine, h5py.File(folder / "copied.h5") as copied:
        same(mine["features"][:], copied["features"][:])
        assert mine["features"].is_virtual


def test_the_file_is_of_hdf5_1_10_or_older(path):
    """Its superblock, and the description of the virtual dataset."""
    content = path.read_bytes()
    assert content[512:520] == b"\x89HDF\r\n\x1a\n"
    assert content[520] <= 3
    description = content.index(b"GCOL") + 16 + 16  # after the heads of the heap and of its object
    assert content[description] == 0


def test_few_shards_are_open_at_once(path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_OPEN", 1)
    with FeatureCache(path) as cache:
        features = cache._datasets["features"]
        for i in (0, 4, 1, 3, 2):
            assert len(cache.sequence(i))
            assert len(features._open) == 1
        assert len(cache.load()) == 14
    assert not features._open


def test_the_features_are_not_copied(tmp_path):
    recipe, shards = make_recipe(feature_dim=512), []
    for number in range(2):
        shards.append(tmp_path / f"{number}.h5")
        with write_cache(shards[-1], recipe, {}, ShardPlace(number, 2, "p")) as writer:
            writer.append(make_row(f"i{number}"), np.ones((2000, 512), "f4"), coords_of(2000))
    merge_virtual(shards, tmp_path / "v.h5", {})
    assert sum(path.stat().st_size for path in shards) > 4_000_000
    assert (tmp_path / "v.h5").stat().st_size < 100_000


def test_features_of_all_views_are_given(tmp_path):
    recipe = make_recipe(views=("identity", "flip_x"))
    shards = [write(tmp_path / f"{n}.h5", recipe, [2, 4], ShardPlace(n, 2, "p")) for n in range(2)]
    merge(shards, tmp_path / "m.h5", {})
    merge_virtual(shards, tmp_path / "v.h5", {})
    with FeatureCache(tmp_path / "m.h5") as copied, FeatureCache(tmp_path / "v.h5") as mine:
        for image, view in itertools.product(range(4), range(2)):
            same(mine.sequence(image, view), copied.sequence(image, view))


# Where the shards are


def test_the_folder_can_be_moved_as_one(folder, tmp_path):
    folder.rename(tmp_path / "elsewhere")
    with FeatureCache(tmp_path / "elsewhere/virtual.h5", seal="whole") as cache:
        assert len(cache.load()) == 14


def test_the_file_alone_cannot_be_moved(path, tmp_path):
    path.rename(tmp_path / "virtual.h5")
    with pytest.raises(CacheDamagedError, match=r"2 are not .*shards/0\.h5 is missing.*move the"):
        FeatureCache(tmp_path / "virtual.h5")


def test_the_shards_are_found_after_a_change_of_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with FeatureCache("virtual.h5") as cache:
        monkeypatch.chdir("/")
        assert len(cache.load()) == 14


def test_shards_are_never_looked_for_in_the_working_directory(folder, tmp_path, monkeypatch):
    (tmp_path / "alone").mkdir()
    shutil.copy(folder / "virtual.h5", tmp_path / "alone")
    monkeypatch.chdir(folder)
    with pytest.raises(CacheDamagedError, match="is missing"):
        FeatureCache(tmp_path / "alone/virtual.h5")


# Shards that are not those that were merged


def remove(shard):
    shard.unlink()


def replace(shard):
    """By another one, as large, of which every digest is right."""
    size = shard.stat().st_size
    place = ShardPlace(2, len(LENGTHS), "p")
    with (
        small_chunks(),
        write_cache(shard, make_recipe(), {"made": "by a test"}, place) as writer,
    ):
        for i, length in enumerate(LENGTHS[2], 200):
            row, values = make_row(f"image{i}"), features_of(i + 1, length)
            writer.append(row, values, coords_of(length), statistics_of(i))
    assert shard.stat().st_size == size


def truncate(shard):
    os.truncate(shard, shard.stat().st_size - 1)


def break_seal(shard):
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)


def make_folder(shard):
    shard.unlink()
    shard.mkdir()


def make_pipe(shard):
    shard.unlink()
    os.mkfifo(shard)


def overwrite(shard):
    shard.write_bytes(bytes(shard.stat().st_size))


WRONG = {
    remove: r"2\.h5 is missing",
    replace: r"2\.h5 is another file \(file seal ",
    truncate: r"2\.h5 has [\d,]+ bytes, expected [\d,]+",
    break_seal: r"2\.h5 is another file|2\.h5: damaged in its first bytes",
    make_folder: r"2\.h5 is missing",
    make_pipe: r"2\.h5 is missing",
    overwrite: r"2\.h5: not an HDF5 file",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_shard_that_is_not_the_one_merged_is_refused_at_opening(folder, path, change):
    change(folder / "shards/2.h5")
    with pytest.raises(CacheDamagedError, match=WRONG[change]) as raised:
        FeatureCache(path)
    assert "of the 2 shards that hold its features, 1 are not those" in str(raised.value)
    assert "merge again" in str(raised.value)
    assert verify(path) == [str(raised.value)]


@pytest.mark.parametrize("change", WRONG)
def test_a_shard_that_changes_after_opening_is_refused_where_it_is_read(folder, path, change):
    with FeatureCache(path) as cache:
        first = cache.sequence(0)
        change(folder / "shards/2.h5")
        for read in (
            cache.load,
            cache.features,
            lambda: cache.sequence(2),
            lambda: cache.unchecked("features", 4, 7),
        ):
            with pytest.raises(CacheDamagedError, match=WRONG[change]):
                read()
        same(cache.sequence(0), first)


@pytest.fixture
def damaged(folder):
    """The features of an image in the last shard have changed; its seal and size have not."""
    shard = folder / "shards/2.h5"
    content = bytearray(shard.read_bytes())
    content[content.index(features_of(201, 1).astype("<f2").tobytes())] ^= 1
    shard.write_bytes(content)
    return folder / "virtual.h5"


def test_damage_in_a_shard_is_found_by_whoever_reads_it(damaged):
    with FeatureCache(damaged) as cache:
        assert len(cache.sequence(0))
        for read in (cache.load, cache.features, lambda: cache.sequence(3)):
            with pytest.raises(CacheDamagedError, match=r"shards/2\.h5: features cannot be read"):
                read()


def test_damage_in_a_shard_is_found_by_reading_it_whole(damaged):
    with pytest.raises(CacheDamagedError, match=r"shards/2\.h5: its bytes are not those"):
        FeatureCache(damaged, seal="whole")


def test_verify_names_the_damaged_shard_and_the_image(damaged):
    lines = verify(damaged)
    assert any("source" in line and "shards/2.h5: its bytes are not" in line for line in lines)
    assert any("image image201: its features" in line for line in lines)
    assert not any("image image0:" in line for line in lines)


def test_what_the_other_shards_hold_can_be_saved(folder, path):
    (folder / "shards/2.h5").unlink()
    with FeatureCache(path, seal="absent") as cache:
        assert intact_images(cache) == [0, 1]
        assert len(read_rows(cache, 0, 5)[0]) == 5
        with pytest.raises(CacheError, match=r"2\.h5"):
            cache.features()


def test_single_images_of_a_damaged_shard_can_be_saved(damaged):
    with FeatureCache(damaged, seal="absent") as cache:
        assert intact_images(cache) == [0, 1, 2, 4]


def test_a_flipped_bit_of_the_file_itself_is_refused_at_opening(path):
    """Among others those of the description of the features, which has no checksum."""
    content = path.read_bytes()
    start = content.index(b"GCOL")  # where HDF5 keeps the description
    for at in [*range(start, start + 100), *range(0, len(content), 199)]:
        changed = bytearray(content)
        changed[at] ^= 8
        path.write_bytes(changed)
        with pytest.raises(CacheError):
            FeatureCache(path)


# A stranger's file


def sources_of(path):
    with FeatureCache(path) as cache:
        return [list(source) for source in cache.sources]


def forge(path, sources=None, parts=None, **attributes):
    """Rewrite what the file declares of its features, with every seal as it should be.

    `parts` are (file, dataset, first row of the source, first row, rows) of the virtual dataset.
    """
    with h5py.File(path, "r+") as file:
        if parts is not None:
            del file["features"]
            layout = h5py.VirtualLayout((14, DIM), "<f2")
            for name, dataset, first, start, rows in parts:
                source = h5py.VirtualSource(name, dataset, (first + rows, DIM), "<f2")
                layout[start : start + rows] = source[first:] if first else source
            file.create_virtual_dataset("features", layout)
        kept = {k: v for k, v in read_attributes(file).items() if k != "complete"}
        if sources is not None:
            kept["sources"] = json.dumps(sources)
        for name in list(file.attrs):
            del file.attrs[name]
        write_attributes(file, {**kept, **attributes})
    write_file_seal(path)


ZERO, TWO = ("shards/0.h5", "features", 0, 0, 5), ("shards/2.h5", "features", 0, 5, 9)

PARTS = {
    "an undeclared file": [ZERO, ("secret.h5", "features", 0, 5, 9)],
    "an absolute path": [ZERO, ("{folder}/secret.h5", "features", 0, 5, 9)],
    "a path that leads out": [ZERO, ("../data/secret.h5", "features", 0, 5, 9)],
    "the file itself": [ZERO, (".", "coords", 0, 5, 9)],
    "another dataset": [ZERO, ("shards/2.h5", "coords", 0, 5, 9)],
    "another order": [
        ("shards/2.h5", "features", 0, 0, 9),
        ("shards/0.h5", "features", 0, 9, 5),
    ],
    "other rows": [ZERO, ("shards/2.h5", "features", 1, 5, 9)],
    "fewer rows": [ZERO, ("shards/2.h5", "features", 0, 5, 8)],
    "rows left out": [ZERO],
    "a file more": [
        *(ZERO, ("shards/2.h5", "features", 0, 5, 4)),
        ("secret.h5", "features", 0, 9, 5),
    ],
}


@pytest.mark.parametrize("kind", PARTS)
def test_features_that_are_not_the_declared_rows_are_refused_unopened(folder, path, kind):
    secret = folder / "secret.h5"
    shutil.copy(folder / "shards/2.h5", secret)
    forge(path, parts=[(name.format(folder=folder), *rest) for name, *rest in PARTS[kind]])
    files = [secret, *(folder / "shards").iterdir()]
    with never_opened(*files), pytest.raises(CacheDamagedError, match="is not the rows of the 2"):
        FeatureCache(path)
    with never_opened(secret):
        assert verify(path)


def test_the_parts_that_the_forger_changes_are_otherwise_right(path):
    forge(path, parts=[ZERO, TWO])
    assert verify(path) == []


def test_features_as_long_as_an_undeclared_file_are_refused_unopened(folder, path):
    secret = folder / "secret.h5"
    shutil.copy(folder / "shards/2.h5", secret)
    for sources in ([["secret.h5", 14, secret.stat().st_size, "0" * 64]], sources_of(path)):
        with h5py.File(path, "r+") as file:
            stored = "features" in file and not file["features"].is_virtual
            if not stored:
                del file["features"]
                file["features"] = np.zeros((14, DIM), "<f2")
            replace_by_endless(file, "features", "secret.h5")
        forge(path, sources)
        with never_opened(secret), pytest.raises(CacheDamagedError, match="is not the rows of"):
            FeatureCache(path)


def test_undeclared_virtual_features_are_refused(folder, path):
    with h5py.File(path, "r+") as file:
        del file.attrs["sources"]
    forge(path)
    shards = list((folder / "shards").iterdir())
    with never_opened(*shards), pytest.raises(CacheDamagedError, match="not stored in chunks"):
        FeatureCache(path)


def test_any_other_virtual_dataset_is_refused_unopened(folder, path):
    with h5py.File(path, "r+") as file:
        del file["coords"]
        layout = h5py.VirtualLayout((14, 2), "<i4")
        layout[:9] = h5py.VirtualSource("shards/2.h5", "coords", (9, 2), "<i4")
        file.create_virtual_dataset("coords", layout)
    forge(path)
    shards = list((folder / "shards").iterdir())
    with never_opened(*shards), pytest.raises(CacheDamagedError, match="coords is not stored"):
        FeatureCache(path)


def test_features_that_are_stored_although_sources_are_declared_are_refused(path):
    with h5py.File(path, "r+") as file:
        del file["features"]
        file.create_dataset("features", data=np.zeros((14, DIM), "<f2"), chunks=(1, DIM))
    forge(path)
    with pytest.raises(CacheDamagedError, match="is not the rows of the 2 sources"):
        FeatureCache(path)


@pytest.mark.parametrize("dtype", [">f2", "<f4", "<i2"])
def test_virtual_features_of_another_type_are_refused(path, dtype):
    with h5py.File(path, "r+") as file:
        del file["features"]
        layout = h5py.VirtualLayout((14, DIM), dtype)
        for name, dataset, _, start, rows in (ZERO, TWO):
            layout[start : start + rows] = h5py.VirtualSource(name, dataset, (rows, DIM), dtype)
        file.create_virtual_dataset("features", layout)
    forge(path)
    with pytest.raises(CacheDamagedError, match="expected float16"):
        FeatureCache(path)


SEAL = "0" * 64
SOURCES = {
    "absolute": [["/etc/passwd", 14, 1, SEAL]],
    "leads out": [["../data/secret.h5", 14, 1, SEAL]],
    "leads out later": [["shards/../../secret.h5", 14, 1, SEAL]],
    "the folder": [[".", 14, 1, SEAL]],
    "empty": [["", 14, 1, SEAL]],
    "not plain": [["./secret.h5", 14, 1, SEAL]],
    "doubled": [["shards//secret.h5", 14, 1, SEAL]],
    "a rule of HDF5's": [["%b.h5", 14, 1, SEAL]],
    "backslash": [["a\\b.h5", 14, 1, SEAL]],
    "control": [["a\x1b.h5", 14, 1, SEAL]],
    "twice": [["secret.h5", 7, 1, SEAL], ["secret.h5", 7, 1, SEAL]],
    "none": [],
    "no list": {"a": 1},
    "too short": [["secret.h5", 14, SEAL]],
    "no rows": [["secret.h5", 0, 1, SEAL]],
    "true": [["secret.h5", True, 1, SEAL]],
    "a fraction": [["secret.h5", 14.0, 1, SEAL]],
    "beyond all": [["secret.h5", 2**63, 1, SEAL]],
    "no name": [[5, 14, 1, SEAL]],
    "no seal": [["secret.h5", 14, 1, "x"]],
    "upper case": [["secret.h5", 14, 1, "A" * 64]],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources_that_make_no_sense_or_lie_elsewhere_are_refused_unopened(folder, path, kind):
    with pytest.raises(ValueError, match="source"):
        read_sources(json.dumps(SOURCES[kind]))
    secret = folder / "secret.h5"
    shutil.copy(folder / "shards/2.h5", secret)
    parts = None
    if isinstance(SOURCES[kind], list) and kind in ("leads out", "twice", "not plain"):
        parts = [(name, "features", 0, 0, rows) for name, rows, *_ in SOURCES[kind]]
    forge(path, SOURCES[kind], parts)
    with never_opened(secret), pytest.raises(CacheDamagedError, match="source"):
        FeatureCache(path)


def test_a_file_that_is_part_and_whole_is_refused(path):
    forge(path, shard='{"number":0,"plan":"p","total":1}')
    with pytest.raises(CacheDamagedError, match="is a shard, but declares sources"):
        FeatureCache(path)


def link_out(file):
    del file["features"]
    file["features"] = h5py.ExternalLink("secret.h5", "features")


def virtual_in_turn(file):
    del file["features"]
    file["features"] = np.zeros((9, DIM), "<f2")
    replace_by_endless(file, "features", "../secret.h5")


def stored_outside(file):
    del file["features"]
    external = [("../secret.h5", 0, 9 * DIM * 2)]
    file.create_dataset("features", (9, DIM), "<f2", external=external)


def fewer_rows(file):
    del file["features"]
    file.create_dataset(
        "features", (8, DIM), "<f2", chunks=(1, DIM), maxshape=(None, DIM), fletcher32=True
    )


@pytest.mark.parametrize("change", [link_out, virtual_in_turn, stored_outside, fewer_rows])
@pytest.mark.parametrize("seal", ["present", "absent"])
def test_a_forged_source_leads_no_further(folder, path, change, seal):
    secret, shard = folder / "secret.h5", folder / "shards/2.h5"
    shutil.copy(shard, secret)
    with h5py.File(shard, "r+") as file:
        change(file)
    write_file_seal(shard)
    forged = [*sources_of_forged(path)[:1], [*describe_source(shard, folder, 9)]]
    forge(path, forged)
    with never_opened(secret), FeatureCache(path, seal=seal) as cache:
        for read in (cache.load, cache.features, lambda: cache.unchecked("features", 5, 9)):
            with pytest.raises(CacheDamagedError, match=r"2\.h5: dataset features"):
                read()


def sources_of_forged(path):
    with FeatureCache(path, seal="absent") as cache:
        return [list(source) for source in cache.sources]


# Merging


def test_shards_elsewhere_are_refused_with_what_to_do(folder, tmp_path):
    shards = sorted((folder / "shards").iterdir())
    with pytest.raises(CacheError, match=r"0\.h5: not in or below .*other.*choose an --out above"):
        merge_virtual(shards, tmp_path / "other/v.h5", {})
    assert not (tmp_path / "other/v.h5").exists()


def test_shards_are_named_from_the_folder_of_the_output_however_they_are_given(folder, monkeypatch):
    monkeypatch.chdir(folder / "shards")
    for out in ("../v.h5", folder / "w.h5", "../../data/x.h5"):
        merge_virtual([folder / "shards/0.h5", Path("1.h5"), Path("2.h5")], out, {})
        with FeatureCache(out) as cache:
            assert [source.name for source in cache.sources] == ["shards/0.h5", "shards/2.h5"]


@pytest.mark.parametrize("name", ["50%.h5", "a\\b.h5", "a\tb.h5"])
def test_a_shard_whose_name_cannot_be_kept_is_refused(tmp_path, recipe, name):
    shard = write(tmp_path / name, recipe, [1], ShardPlace(0, 1, "p"))
    with pytest.raises(CacheError, match="rename it"):
        merge_virtual([shard], tmp_path / "v.h5", {})


def test_an_output_that_is_a_shard_is_refused(tmp_path, recipe):
    shard = write(tmp_path / "s.h5", recipe, [1], ShardPlace(0, 1, "p"))
    before = shard.read_bytes()
    (tmp_path / "link.h5").symlink_to(shard)
    for out in (shard, tmp_path / "link.h5"):
        with pytest.raises(CacheError, match="is a shard"):
            merge_virtual([shard], out, {})
    assert shard.read_bytes() == before


def test_shards_without_any_features_are_refused(tmp_path, recipe):
    shard = write(tmp_path / "s.h5", recipe, [], ShardPlace(0, 1, "p"))
    with pytest.raises(CacheError, match="no shard holds features: merge without --virtual"):
        merge_virtual([shard], tmp_path / "v.h5", {})


def test_a_damaged_shard_is_not_merged(damaged, folder):
    damaged.unlink()
    with pytest.raises(CacheError, match=r"2\.h5"):
        merge_virtual(sorted((folder / "shards").iterdir()), damaged, {})
    assert not damaged.exists()


def test_other_features_than_the_sources_hold_are_not_written(folder, recipe):
    source = describe_source(folder / "shards/0.h5", folder, 5)
    for values, message in ((features_of(0, 4), "4 rows"), (features_of(9, 5), "features_sha256")):
        with (
            pytest.raises(CacheError, match=message),
            write_cache(folder / "new.h5", recipe, {}, sources=[source]) as writer,
        ):
            writer.append(make_row("image0"), values, coords_of(len(values)))
    assert not (folder / "new.h5").exists()


def test_a_virtual_cache_is_no_shard(path, tmp_path):
    with pytest.raises(CacheError, match="not a shard, but a whole cache"):
        merge([path], tmp_path / "m.h5", {})


def test_relabelling_gives_a_cache_with_features_of_its_own(folder, path):
    with FeatureCache(path) as cache:
        rows, features = cache.images.rows(), cache.load()
    rows[3] = rows[3]._replace(label="malignant")
    for out in (folder / "new.h5", path):
        assert relabel(path, rows, out).images == 1
        with FeatureCache(out) as cache:
            assert cache.sources == []
            assert cache.attributes["format_version"] == "1.1"
            same(cache.load(), features)
        assert verify(out) == []


def test_many_shards_of_long_names_are_merged(tmp_path, recipe):
    """So many that their list takes more than HDF5 keeps with an object."""
    folder = tmp_path.joinpath(*["x" * 250] * 12)
    shards = [write(folder / f"{n}.h5", recipe, [1], ShardPlace(n, 25, "p")) for n in range(25)]
    merge_virtual(shards, tmp_path / "v.h5", {})
    with FeatureCache(tmp_path / "v.h5") as cache:
        assert len(cache.attributes["sources"]) > 65536
        same(cache.load(), np.concatenate([features_of(100 * n, 1) for n in range(25)], dtype="f2"))


def test_a_source_is_described_by_what_its_file_says(folder):
    shard = folder / "shards/2.h5"
    seal = shard.read_bytes()[37:101].decode()
    expected = Source("shards/2.h5", 9, shard.stat().st_size, seal)
    assert describe_source(shard, folder, 9) == expected

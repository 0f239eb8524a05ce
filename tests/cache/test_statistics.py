"""Statistics of images: what is written is what is read, and damage to them costs one image."""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_caches import coords_of, features_of, make_recipe, make_row, statistics_of, write

from cache import (
    CacheDamagedError,
    CacheError,
    FeatureCache,
    ImageStatistics,
    ShardPlace,
    compare,
    merge,
    relabel,
    verify,
    write_cache,
)
from cache.file_seal import write_file_seal
from cache.salvage import intact_images

LENGTHS = [2, 3, 1, 4, 2]

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
statistics = st.builds(
    ImageStatistics,
    colour=arrays(np.float32, 12, elements=finite),
    perceptual_hash=arrays(np.uint8, 32),
    pixels_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
)


@pytest.fixture
def path(tmp_path, recipe):
    return write(tmp_path / "f.h5", recipe, LENGTHS, statistics=True)


def same(found: ImageStatistics, expected: ImageStatistics) -> bool:
    arrays = zip(found[:2], expected[:2], strict=True)
    equal = all(mine.tobytes() == theirs.tobytes() for mine, theirs in arrays)
    return equal and found.pixels_sha256 == expected.pixels_sha256


def change(path, name, index, value):
    with h5py.File(path, "r+") as file:
        file[f"statistics/{name}"][index] = value


def intact(path) -> list[int]:
    with FeatureCache(path, seal="absent") as cache:
        return intact_images(cache)


@settings(max_examples=30)
@given(st.lists(statistics, min_size=1, max_size=6))
def test_any_statistics_come_back_as_they_were_written(images):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "f.h5"
        with write_cache(path, make_recipe(), {}) as writer:
            for i, image in enumerate(images):
                writer.append(make_row(f"image{i}"), features_of(i), coords_of(3), image)
        assert verify(path) == []
        with FeatureCache(path) as cache:
            assert len(cache.statistics) == len(images)
            assert all(same(cache.statistics[i], image) for i, image in enumerate(images))
            cache.load()


def test_a_cache_without_statistics_says_so(tmp_path, recipe):
    with FeatureCache(write(tmp_path / "f.h5", recipe, [2])) as cache:
        assert cache.statistics is None
        assert not cache.has_statistics


@pytest.mark.parametrize("first", [True, False])
def test_statistics_of_some_images_only_are_refused(tmp_path, recipe, first):
    given = [statistics_of(0), None] if first else [None, statistics_of(0)]
    with (
        pytest.raises(CacheError, match="for all images or for none"),
        write_cache(tmp_path / "f.h5", recipe, {}) as writer,
    ):
        for i, image in enumerate(given):
            writer.append(make_row(f"image{i}"), features_of(i), coords_of(3), image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": np.zeros(11, np.float32)}, "colour is float32"),
        ({"colour": np.zeros(12)}, "colour is float64"),
        ({"colour": np.full(12, np.nan, np.float32)}, "not finite"),
        ({"perceptual_hash": np.zeros(16, np.uint8)}, "perceptual_hash"),
        ({"pixels_sha256": "short"}, "pixels_sha256"),
        ({"pixels_sha256": "G" * 64}, "pixels_sha256"),
    ],
)
def test_statistics_that_make_no_sense_are_refused(tmp_path, recipe, changes, message):
    broken = statistics_of(0)._replace(**changes)
    with (
        pytest.raises(CacheError, match=message),
        write_cache(tmp_path / "f.h5", recipe, {}) as writer,
    ):
        writer.append(make_row("image0"), features_of(0), coords_of(3), broken)


DAMAGE = {
    "colour": ((3, 11), 7.5),
    "perceptual_hash": ((3, 0), 0),
    "pixels_sha256": (3, b"0" * 64),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_statistics_cost_their_image_only(path, name):
    assert intact(path) == [0, 1, 2, 3, 4]
    change(path, name, *DAMAGE[name])
    assert intact(path) == [0, 1, 2, 4]
    write_file_seal(path)
    lines = verify(path)
    assert any("image image3: its statistics are not those written" in line for line in lines)
    with pytest.raises(CacheDamagedError, match="statistics_sha256"), FeatureCache(path) as cache:
        cache.load()


@pytest.mark.parametrize("name", [*DAMAGE, "digests"])
def test_a_wrong_checksum_costs_the_image_with_the_flipped_bit_only(path, name):
    with h5py.File(path) as file:
        dataset = file[f"statistics/{name}"]
        at = dataset.id.get_chunk_info(0).byte_offset
        row_bytes = dataset[:1].nbytes
    data = bytearray(path.read_bytes())
    data[at + 2 * row_bytes] ^= 1
    path.write_bytes(data)
    assert intact(path) == ([0, 1, 2, 3, 4] if name == "digests" else [0, 1, 3, 4])
    assert any("checksum is wrong" in line for line in verify(path))
    with FeatureCache(path) as cache:
        if name == "digests":
            assert same(cache.statistics[2], statistics_of(2)), "they prove themselves together"
        else:
            with pytest.raises(CacheDamagedError):
                _ = cache.statistics


def test_an_image_with_damaged_features_and_another_with_damaged_statistics_are_both_lost(path):
    change(path, "colour", (3, 0), 9)
    with h5py.File(path, "r+") as file:
        file["features"][0, 0] = 9
    assert intact(path) == [1, 2, 4]


def test_statistics_and_their_digests_both_damaged_prove_nothing(path):
    change(path, "digests", 0, b"0" * 64)
    assert intact(path) == [0, 1, 2, 3, 4]
    change(path, "colour", (3, 0), 9)
    assert intact(path) == []
    assert any("statistics_sha256" in line for line in verify(path))


def test_values_that_the_format_does_not_allow_are_named(path):
    change(path, "colour", (1, 0), np.inf)
    change(path, "pixels_sha256", 2, b"\xff")
    lines = "\n".join(verify(path))
    for image in ("image1", "image2"):
        assert f"image {image}: its statistics make no sense" in lines


@pytest.mark.parametrize("name", [*DAMAGE, "digests"])
def test_a_missing_dataset_is_named(path, name):
    with h5py.File(path, "r+") as file:
        del file[f"statistics/{name}"]
    with pytest.raises(CacheDamagedError, match=f"statistics/{name} is missing"):
        FeatureCache(path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("colour", np.zeros((5, 11), "<f4")),
        ("colour", np.zeros((5, 12), ">f4")),
        ("perceptual_hash", np.zeros((4, 32), "u1")),
        ("pixels_sha256", np.zeros(5, "<i4")),
    ],
)
def test_a_dataset_of_another_kind_is_named(path, name, values):
    with h5py.File(path, "r+") as file:
        del file[f"statistics/{name}"]
        file["statistics"].create_dataset(name, data=values, chunks=True, fletcher32=True)
    with pytest.raises(CacheDamagedError, match=f"statistics/{name} is"):
        FeatureCache(path)


def test_a_group_that_no_attribute_declares_is_ignored(tmp_path, recipe):
    path = write(tmp_path / "f.h5", recipe, LENGTHS)
    with h5py.File(path, "r+") as file:
        file.create_group("statistics")["colour"] = np.zeros(3)
    write_file_seal(path)
    assert verify(path) == []
    with FeatureCache(path) as cache:
        assert cache.statistics is None


def test_merging_and_relabelling_keep_them(tmp_path, recipe):
    shards = [
        write(tmp_path / f"s{i}.h5", recipe, [1, 2], ShardPlace(i, 2, "p"), statistics=True)
        for i in range(2)
    ]
    merge(shards, tmp_path / "merged.h5", {})
    with FeatureCache(tmp_path / "merged.h5") as cache:
        rows = [row._replace(label="new") for row in cache.images.rows()]
    relabel(tmp_path / "merged.h5", rows, tmp_path / "new.h5")
    for name in ("merged", "new"):
        assert verify(tmp_path / f"{name}.h5") == []
        with FeatureCache(tmp_path / f"{name}.h5") as cache:
            seeds = (0, 1, 100, 101)
            assert all(same(cache.statistics[i], statistics_of(s)) for i, s in enumerate(seeds))


def test_shards_with_and_without_statistics_are_not_merged(tmp_path, recipe):
    shards = [
        write(tmp_path / f"s{i}.h5", recipe, [1], ShardPlace(i, 2, "p"), statistics=bool(i))
        for i in range(2)
    ]
    with pytest.raises(CacheError, match="for all images or for none"):
        merge(shards, tmp_path / "merged.h5", {})


def test_a_comparison_names_the_images_and_statistics_that_differ(path, tmp_path, recipe):
    other = tmp_path / "b.h5"
    with write_cache(other, recipe, {}) as writer:
        for i, length in enumerate(LENGTHS):
            image = statistics_of(i)
            if i == 2:
                image = image._replace(colour=image.colour + 1, pixels_sha256="f" * 64)
            writer.append(make_row(f"image{i}"), features_of(i, length), coords_of(length), image)
    found = compare(path, other)
    assert not found.same
    (image,) = found.images
    assert (image.image_id, image.statistics) == ("image2", ("colour", "pixels_sha256"))
    assert found.statistics is None
    assert compare(path, path).same


def test_a_comparison_tells_that_only_one_cache_holds_statistics(path, tmp_path, recipe):
    found = compare(path, write(tmp_path / "b.h5", recipe, LENGTHS))
    assert (found.statistics, found.images, found.same) == ((True, False), [], False)

"""Shards join to the cache that one run would have written."""

import sys

import numpy as np
import pytest
from small_caches import coords_of, features_of, make_recipe, make_row, write

from cache import (
    CacheError,
    Failure,
    FeatureCache,
    RecipeError,
    ShardPlace,
    merge,
    verify,
    write_cache,
)


def shards(folder, recipe, count=3, plan="p"):
    return [
        write(folder / f"s{i}.h5", recipe, [1, 2 + i], ShardPlace(i, count, plan))
        for i in range(count)
    ]


def test_merged_shards_equal_one_run_byte_for_byte(tmp_path, recipe):
    merge(reversed_list(shards(tmp_path, recipe)), tmp_path / "merged.h5", {})
    with write_cache(tmp_path / "whole.h5", recipe, {}, ShardPlace(0, 1, "p")) as writer:
        for shard in range(3):
            for i, length in enumerate([1, 2 + shard], 100 * shard):
                writer.append(make_row(f"image{i}"), features_of(i, length), coords_of(length))
    merge([tmp_path / "whole.h5"], tmp_path / "one.h5", {})
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert verify(tmp_path / "merged.h5") == []
    with FeatureCache(tmp_path / "whole.h5") as whole, FeatureCache(tmp_path / "one.h5") as one:
        names = set(whole.attributes) - {"shard", "complete"}
        assert {name: whole.attributes[name] for name in names} == {
            name: one.attributes[name] for name in names
        }
        assert whole.images.rows() == one.images.rows()


def test_tables_of_many_chunks_and_blocks_are_merged_and_verified(tmp_path, recipe, monkeypatch):
    for module, name, value in (
        ("cache.layout", "CHUNK_BYTES", 128),
        ("cache.table_writer", "BLOCK_ROWS", 3),
        ("cache.proof", "BLOCK_IMAGES", 3),
        ("cache.verify", "BLOCK_IMAGES", 3),
    ):
        monkeypatch.setattr(sys.modules[module], name, value)
    paths = [
        write(tmp_path / f"{n}.h5", recipe, [1] * 40, ShardPlace(n, 2, "p"), statistics=True)
        for n in range(2)
    ]
    merge(paths, tmp_path / "m.h5", {})
    assert verify(tmp_path / "m.h5") == []
    with FeatureCache(tmp_path / "m.h5") as merged:
        rows, statistics = merged.images.rows(), merged.statistics
        features = merged.load()
    read = 0
    for path in paths:
        with FeatureCache(path) as shard:
            mine = slice(read, read + len(shard))
            assert rows[mine] == shard.images.rows()
            assert (features[mine] == shard.load()).all()
            assert statistics.digests()[mine] == shard.statistics.digests()
            read += len(shard)


def test_two_images_of_one_id_in_different_shards_are_refused(tmp_path, recipe):
    for number in range(2):
        place = ShardPlace(number, 2, "p")
        with write_cache(tmp_path / f"{number}.h5", recipe, {}, place) as writer:
            writer.append(make_row("same"), features_of(number, 1), coords_of(1))
    with pytest.raises(CacheError, match="two images have the same id"):
        merge([tmp_path / "0.h5", tmp_path / "1.h5"], tmp_path / "m.h5", {})
    assert not (tmp_path / "m.h5").exists()


def reversed_list(items):
    return list(reversed(items))


def test_failures_of_shards_are_kept(tmp_path, recipe):
    with write_cache(tmp_path / "s.h5", recipe, {}, ShardPlace(0, 1, "p")) as writer:
        writer.append(make_row("image0"), features_of(0), coords_of(3))
        writer.fail(Failure("bad", "bad.png", "empty"))
    merge([tmp_path / "s.h5"], tmp_path / "m.h5", {})
    with FeatureCache(tmp_path / "m.h5") as cache:
        assert cache.failures == [Failure("bad", "bad.png", "empty")]
        assert cache.shard is None


def test_other_recipes_are_refused_field_by_field(tmp_path, recipe):
    paths = shards(tmp_path, recipe)
    write(paths[1], make_recipe(stride=112), [1], ShardPlace(1, 3, "p"))
    with pytest.raises(RecipeError, match="stride: 224, 112"):
        merge(paths, tmp_path / "m.h5", {})
    assert not (tmp_path / "m.h5").exists()


def test_a_missing_a_repeated_and_a_foreign_shard_are_refused(tmp_path, recipe):
    paths = shards(tmp_path, recipe)
    foreign = write(tmp_path / "x.h5", recipe, [1], ShardPlace(2, 3, "other"))
    whole = write(tmp_path / "w.h5", recipe, [1])
    for chosen, message in [
        (paths[:2], "1 of 3 shards missing"),
        ([*paths, paths[0]], "shard 0 is also"),
        ([*paths[:2], foreign], "another extraction"),
        ([whole], "not a shard"),
        ([], "no shard"),
    ]:
        with pytest.raises(CacheError, match=message):
            merge(chosen, tmp_path / "m.h5", {})


def test_a_damaged_shard_is_not_merged(tmp_path, recipe):
    paths = shards(tmp_path, recipe)
    data = bytearray(paths[1].read_bytes())
    at = bytes(data).find(features_of(100, 1).astype(np.float16).tobytes())
    data[at] ^= 1
    paths[1].write_bytes(data)
    with pytest.raises(CacheError):
        merge(paths, tmp_path / "m.h5", {})
    assert not (tmp_path / "m.h5").exists()

"""Relabelling changes what somebody said of an image, and no byte of anything else."""

import importlib
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_caches import DIM, coords_of, features_of, make_recipe, make_row, write

from cache import (
    RELABELLED,
    CacheError,
    Failure,
    FeatureCache,
    ImageTableError,
    PublishError,
    ShardPlace,
    check,
    relabel,
    write_cache,
)

MODULE = importlib.import_module("cache.relabel")  # its name in `cache` is that of the function
LENGTHS = [3, 1, 2, 4]
LOST = Failure("lost", "lost.png", "damaged image")

texts = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8)
labels = st.fixed_dictionaries(
    {
        "label": texts.filter(bool),
        "subtype": texts,
        "slide": texts,
        "case": texts,
        "magnification": st.integers(0, 2**31 - 1),
    }
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A shard with a failure and 10 patches, which nobody changes."""
    path = tmp_path_factory.mktemp("source") / "f.h5"
    with write_cache(path, make_recipe(), {"made": "by a test"}, ShardPlace(1, 3, "plan")) as out:
        for i, length in enumerate(LENGTHS):
            out.append(make_row(f"image{i}"), features_of(i, length), coords_of(length))
        out.fail(LOST)
    return path


def rows_of(path):
    with FeatureCache(path) as cache:
        return cache.images.rows()


def stored(path):
    """The bytes of every dataset but the image table, and the attributes."""
    with h5py.File(path) as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset)]
        assert {"features", "coords", "offsets"} <= set(names)
        attributes = {name: text.decode() for name, text in file.attrs.items()}
        return {name: file[name][:].tobytes() for name in names}, attributes


def all_new(rows):
    changes = {"subtype": "x", "slide": "s9", "case": "c9", "magnification": 400}
    return [row._replace(label=f"new{i}", **changes) for i, row in enumerate(rows)]


def test_no_byte_of_features_coords_and_offsets_changes_nor_any_other_attribute(source, tmp_path):
    relabel(source, all_new(rows_of(source)), tmp_path / "new.h5")
    before, attributes = stored(source)
    after, new_attributes = stored(tmp_path / "new.h5")
    assert after == before
    changed = {name for name in attributes if attributes[name] != new_attributes[name]}
    assert changed == {"manifest_sha256", "provenance", "complete"}
    assert set(new_attributes) == set(attributes)
    check(tmp_path / "new.h5")


def test_order_paths_sizes_digests_failures_and_shard_place_stay(source, tmp_path):
    rows = all_new(rows_of(source))
    relabel(source, rows, tmp_path / "new.h5")
    with FeatureCache(tmp_path / "new.h5") as cache:
        assert cache.images.rows() == rows
        assert (cache.failures, cache.shard) == ([LOST], ShardPlace(1, 3, "plan"))
        assert cache.recipe == make_recipe()


def test_blocks_smaller_than_an_image_give_the_same_file(source, tmp_path, monkeypatch):
    rows = all_new(rows_of(source))
    relabel(source, rows, tmp_path / "at_once.h5")
    monkeypatch.setattr(MODULE, "BLOCK_ROWS", 3)
    relabel(source, rows, tmp_path / "in_blocks.h5")
    assert stored(tmp_path / "in_blocks.h5")[0] == stored(tmp_path / "at_once.h5")[0]


def test_no_more_than_a_block_is_read_at_once(source, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "BLOCK_ROWS", 4)
    read, seen = FeatureCache.features, []

    def watched(self, start=0, stop=None):
        if self.path == source:
            seen.append((start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(MODULE, "check", lambda path: None)
    monkeypatch.setattr(FeatureCache, "features", watched)
    relabel(source, all_new(rows_of(source)), tmp_path / "new.h5")
    assert seen == [(0, 4), (4, 6), (6, 10)]


def test_the_provenance_keeps_what_it_held_and_lists_each_relabelling(source, tmp_path):
    file = tmp_path / "new.h5"
    rows = rows_of(source)
    digests = [stored(source)[1]["manifest_sha256"]]
    relabel(source, all_new(rows), file)
    digests.append(stored(file)[1]["manifest_sha256"])
    relabel(file, rows, file)
    with FeatureCache(file) as cache:
        assert cache.provenance["made"] == "by a test"
        entries = cache.provenance["relabelled"].split("; ")
    date = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    assert [re.fullmatch(rf"{date} from (\w+)", entry)[1] for entry in entries] == digests


def test_the_changes_are_counted_by_image_and_by_column(source, tmp_path):
    rows = rows_of(source)
    rows[0] = rows[0]._replace(label="new", subtype="x")
    rows[2] = rows[2]._replace(label="new")
    changes = relabel(source, rows, tmp_path / "new.h5")
    assert (changes.images, changes.columns) == (2, {"label": 2, "subtype": 1})


def test_a_copy_without_changes_is_no_relabelling(source, tmp_path):
    assert relabel(source, rows_of(source), tmp_path / "new.h5") == (0, {})
    assert stored(tmp_path / "new.h5") == stored(source)


def test_nothing_is_written_in_place_if_nothing_changes(tmp_path, recipe):
    file = write(tmp_path / "f.h5", recipe, LENGTHS)
    before = (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes())
    assert relabel(file, rows_of(file), file).images == 0
    assert (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) == before


def test_in_place_the_cache_is_replaced_whole(tmp_path, recipe):
    file = write(tmp_path / "f.h5", recipe, LENGTHS)
    reader = FeatureCache(file)
    relabel(file, all_new(rows_of(file)), file)
    assert reader.images["label"].tolist() == ["benign"] * 4  # the old file, until it is closed
    reader.close()
    assert [row.label for row in rows_of(file)] == ["new0", "new1", "new2", "new3"]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("moment", ["append", "finish"])
def test_in_place_the_cache_stays_as_it_was_if_writing_fails(tmp_path, recipe, monkeypatch, moment):
    file = write(tmp_path / "f.h5", recipe, LENGTHS)
    before = file.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    rows = all_new(rows_of(file))
    monkeypatch.setattr(f"cache.writer.CacheWriter.{moment}", fail)
    with pytest.raises(PublishError, match="No space left"):
        relabel(file, rows, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_cache_is_refused_before_anything_is_written(tmp_path, recipe):
    file = write(tmp_path / "f.h5", recipe, LENGTHS)
    rows = all_new(rows_of(file))
    content = bytearray(file.read_bytes())
    content[content.index(features_of(2, 2).astype(np.float16).tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(CacheError, match=re.escape(str(file))):
        relabel(file, rows, tmp_path / "sub/new.h5")
    assert not (tmp_path / "sub").exists()


def test_a_cache_that_changes_after_it_was_checked_is_not_copied(tmp_path, recipe, monkeypatch):
    file = write(tmp_path / "f.h5", recipe, LENGTHS)
    rows = all_new(rows_of(file))
    monkeypatch.setattr(
        FeatureCache, "features", lambda self, start, stop: np.zeros((stop - start, DIM), "f2")
    )
    monkeypatch.setattr(MODULE, "check", lambda path: None)
    with pytest.raises(CacheError, match="features_sha256"):
        relabel(file, rows, tmp_path / "new.h5")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("column", sorted(set(make_row("x")._fields) - set(RELABELLED)))
def test_no_other_column_may_change(source, tmp_path, column):
    rows = rows_of(source)
    changed = 1 if column in ("width", "height") else "b" * 64
    rows[1] = rows[1]._replace(**{column: changed})
    with pytest.raises(ImageTableError, match=rf"image1: {column} would change"):
        relabel(source, rows, tmp_path / "new.h5")
    assert not list(tmp_path.iterdir())


def test_rows_for_fewer_images_or_in_another_order_are_refused(source, tmp_path):
    rows = rows_of(source)
    for wrong in (rows[:-1], rows[::-1], [*rows, make_row("more")]):
        with pytest.raises(ImageTableError):
            relabel(source, wrong, tmp_path / "new.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"label": ""}, {"slide": "a\nb"}, {"magnification": -1}])
def test_values_that_the_format_does_not_allow_are_refused(source, tmp_path, change):
    rows = rows_of(source)
    rows[1] = rows[1]._replace(**change)
    with pytest.raises(ImageTableError, match="image1"):
        relabel(source, rows, tmp_path / "new.h5")
    assert not list(tmp_path.iterdir())


def test_files_of_format_1_0_can_be_relabelled(tmp_path):
    archive = Path(__file__).parents[1] / "data/archives/1.0/whole.h5"
    relabel(archive, all_new(rows_of(archive)), tmp_path / "new.h5")
    check(tmp_path / "new.h5")
    with FeatureCache(archive) as old, FeatureCache(tmp_path / "new.h5") as new:
        assert new.load().tobytes() == old.load().tobytes()
        assert new.failures == old.failures


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(labels, min_size=len(LENGTHS), max_size=len(LENGTHS)))
def test_relabelling_back_gives_the_same_table_and_the_same_bytes(source, tmp_path, changes):
    rows = rows_of(source)
    new = [row._replace(**change) for row, change in zip(rows, changes, strict=True)]
    relabel(source, new, tmp_path / "new.h5")
    assert rows_of(tmp_path / "new.h5") == new
    relabel(tmp_path / "new.h5", rows, tmp_path / "back.h5")
    datasets, attributes = stored(tmp_path / "back.h5")
    assert datasets == stored(source)[0]
    assert attributes["manifest_sha256"] == stored(source)[1]["manifest_sha256"]

"""Parts of a manifest: every image in exactly one, balanced, and merged to the same bytes."""

from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_data import write_study

from cache import CacheError, FeatureCache
from pipeline.caches.merge import merge_shards
from pipeline.dataset.manifest import read_manifest, write_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.part import Part, part_starts
from pipeline.extraction.recipe import PatchOptions

SMALL = PatchOptions(patch_size=32, stride=32, layers=("conv1_2",))


@given(st.data(), st.lists(st.floats(0.5, 100), min_size=1, max_size=60))
def test_every_image_is_in_exactly_one_part_and_no_part_is_empty(data, costs):
    parts = data.draw(st.integers(1, len(costs)))
    starts = part_starts(np.array(costs), parts)
    assert starts[0] == 0
    assert starts[-1] == len(costs)
    assert len(starts) == parts + 1
    assert all(a < b for a, b in pairwise(starts))


@given(st.lists(st.floats(0.5, 10), min_size=200, max_size=400), st.integers(2, 20))
def test_no_part_has_much_more_work_than_another(costs, parts):
    costs = np.array(costs)
    starts = part_starts(costs, parts)
    work = [costs[a:b].sum() for a, b in pairwise(starts)]
    assert max(work) - costs.sum() / parts <= 2 * costs.max()


def test_large_images_weigh_as_many_patches_as_they_have(tmp_path):
    rows = write_study(tmp_path, 2)
    large = rows[0]._replace(width=320, height=320)
    small = [rows[1]._replace(image_id=f"small{number}") for number in range(23)]
    write_manifest(tmp_path / "manifest.csv", [large, *small])  # 100 patches, and 4 each
    first, second = (Part(number, 2).read(tmp_path / "manifest.csv", SMALL) for number in (1, 2))
    assert ([row.image_id for row in first], len(second)) == ([large.image_id], 23)


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/3", "1/3/5", "1/1000000", ""]
)
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UsageError, match="expected I/N"):
        Part.parse(text)


@pytest.mark.parametrize("text", ["2/5", "2-of-5"])
def test_a_part_is_read_as_people_and_snakemake_write_it(text):
    assert Part.parse(text) == Part(2, 5)


def extracted(folder, weights_file, out, part=None, **changes):
    options = ExtractOptions(
        SMALL,
        device="cpu",
        threads=1,
        images_per_shard=2,
        part=None if part is None else Part.parse(part),
        **changes,
    )
    return extract(folder / "manifest.csv", weights_file, folder / out, options)


@pytest.fixture(scope="module")
def study(tmp_path_factory, weights_file):
    """Seven images, extracted at once and in three parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_study(folder, 7)
    extracted(folder, weights_file, "whole.h5")
    for number in (3, 1, 2):
        extracted(folder, weights_file, f"shards/{number}.h5", f"{number}/3")
    return folder


def test_merged_parts_have_the_bytes_of_an_extraction_at_once(study, tmp_path):
    merged = merge_shards([study / "shards"], tmp_path / "merged.h5")
    assert (merged.images, merged.shards) == (7, 3)
    with h5py.File(study / "whole.h5") as whole, h5py.File(tmp_path / "merged.h5") as parts:
        names = []
        whole.visititems(lambda name, found: names.append(name))
        for name in names:
            if isinstance(whole[name], h5py.Dataset):
                assert whole[name][()].tobytes() == parts[name][()].tobytes(), name
                assert whole[name].chunks == parts[name].chunks
        same = set(whole.attrs) - {"provenance", "complete"}
        assert all(whole.attrs[name] == parts.attrs[name] for name in same)
        assert "shard" not in parts.attrs


def test_each_part_is_a_cache_that_knows_its_place(study):
    with FeatureCache(study / "shards/2.h5") as part:
        assert (part.shard.number, part.shard.total) == (1, 3)
        assert part.images.rows() == Part(2, 3).read(study / "manifest.csv", SMALL)
        rows = read_manifest(study / "manifest.csv")
    parts = [Part(number, 3).read(study / "manifest.csv", SMALL) for number in (1, 2, 3)]
    assert [row for part in parts for row in part] == rows


def test_a_part_that_is_there_is_not_extracted_again_and_another_is_refused(study, weights_file):
    assert extracted(study, weights_file, "shards/1.h5", "1/3").encoded == 0
    with pytest.raises(UsageError, match=r"shard: a whole cache, 1/3"):
        extracted(study, weights_file, "shards/1.h5")
    with pytest.raises(UsageError, match=r"shard: 1/2 of the images .*, 1/3"):
        extracted(study, weights_file, "shards/1.h5", "1/2")


def test_a_missing_a_doubled_and_a_foreign_part_are_named(study, weights_file, tmp_path):
    one, two, three = (study / f"shards/{number}.h5" for number in (1, 2, 3))
    with pytest.raises(CacheError, match="1 of 3 shards missing"):
        merge_shards([one, three], tmp_path / "m.h5")
    with pytest.raises(CacheError, match="shard 0 is also"):
        merge_shards([one, one, two, three], tmp_path / "m.h5")
    extracted(study, weights_file, "other.h5", "1/2")
    with pytest.raises(CacheError, match="belongs to another extraction"):
        merge_shards([one, two, three, study / "other.h5"], tmp_path / "m.h5")
    with pytest.raises(CacheError, match="not a shard, but a whole cache"):
        merge_shards([study / "whole.h5"], tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_an_output_is_replaced_only_if_that_is_asked_for(study, tmp_path):
    (tmp_path / "m.h5").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        merge_shards([study / "shards"], tmp_path / "m.h5")
    merge_shards([study / "shards"], tmp_path / "m.h5", overwrite=True)
    with pytest.raises(UsageError, match="is a shard itself"):
        merge_shards([study / "shards"], study / "shards/1.h5", overwrite=True)


def test_failures_of_all_parts_count_together(weights_file, tmp_path):
    rows = write_study(tmp_path, 6)
    for name in (rows[0].path, rows[5].path):
        (tmp_path / name).write_bytes(b"broken")
    for number in (1, 2):
        extracted(tmp_path, weights_file, f"shards/{number}.h5", f"{number}/2", allow_failures=1)
    with pytest.raises(PipelineError, match="2 images of the shards have no features"):
        merge_shards([tmp_path / "shards"], tmp_path / "m.h5", allow_failures=1)
    merged = merge_shards([tmp_path / "shards"], tmp_path / "m.h5", allow_failures=2)
    assert (merged.images, len(merged.failures)) == (4, 2)
    assert len((tmp_path / "m.failures.csv").read_text().splitlines()) == 3


def test_an_image_that_is_named_twice_is_refused_in_every_part(tmp_path, weights_file):
    rows = write_study(tmp_path, 3)
    write_manifest(tmp_path / "manifest.csv", [*rows, rows[0]])
    with pytest.raises(UsageError, match="image000 is already on line 2"):
        extracted(tmp_path, weights_file, "s.h5", "1/2")


def test_more_parts_than_images_are_refused(tmp_path, weights_file):
    write_study(tmp_path, 2)
    with pytest.raises(UsageError, match="2 images only: choose fewer shards"):
        extracted(tmp_path, weights_file, "s.h5", "1/3")

import json

import numpy as np
import pytest
from click.testing import CliRunner
from small_caches import features_of, make_recipe
from small_data import write_study

from cache import FeatureCache, write_cache
from pipeline.audit.command import audit_files
from pipeline.audit.foreign import read_foreign
from pipeline.audit.pixels import mean_features
from pipeline.cli import main
from pipeline.dataset.images import decode
from pipeline.dataset.manifest import write_manifest
from pipeline.dataset.statistics import image_statistics
from pipeline.errors import UsageError
from pipeline.splits.make import make_splits
from pipeline.splits.table import write_splits


@pytest.fixture
def study(tmp_path):
    """A manifest of 24 images of 8 cases, with case-disjoint splits; its rows."""
    rows = write_study(tmp_path, 24, cases=8)
    write_splits(tmp_path / "splits.csv", make_splits(rows, folds=3))
    return rows


def audited(folder, **options):
    return audit_files(folder / "manifest.csv", folder / "splits.csv", **options)


def invoke(folder, *options):
    files = [str(folder / "manifest.csv"), str(folder / "splits.csv")]
    return CliRunner().invoke(main, ["audit", *files, *options])


def write_features(folder, rows, statistics=True):
    path = folder / "features.h5"
    with write_cache(path, make_recipe(), {"made": "by a test"}) as writer:
        for i, row in enumerate(rows):
            found = image_statistics(decode((folder / row.path).read_bytes()))
            coords = np.zeros((2 + i % 3, 2), np.int32)
            described = found if statistics else None
            writer.append(row, features_of(i, 2 + i % 3), coords, described)
    return path


def foreign(folder, *lines, header="image_id,fold,role"):
    (folder / "splits.csv").write_text("\n".join([header, *lines]) + "\n")


def kinds(found):
    return {(finding.kind, finding.severity, finding.count) for finding in found.findings}


class TestCommand:
    def test_a_clean_split_exits_with_0_and_a_leaking_one_with_1(self, study, tmp_path):
        assert invoke(tmp_path).exit_code == 0
        write_splits(tmp_path / "splits.csv", make_splits(study, folds=3, group_by="image"))
        result = invoke(tmp_path, "--out", str(tmp_path / "audit.json"))
        assert result.exit_code == 1
        assert result.output.startswith("LEAKS: 2 leaks")
        assert "pipeline evaluate" in result.output
        values = json.loads((tmp_path / "audit.json").read_text())
        assert values["summary"].startswith("LEAKS")

    def test_the_json_that_is_printed_is_the_one_that_is_written(self, study, tmp_path):
        result = invoke(tmp_path, "--json", "--out", str(tmp_path / "audit.json"))
        assert json.loads(result.stdout) == json.loads((tmp_path / "audit.json").read_text())

    def test_an_input_is_not_replaced(self, study, tmp_path):
        before = (tmp_path / "splits.csv").read_bytes()
        assert invoke(tmp_path, "--out", str(tmp_path / "splits.csv")).exit_code == 2
        assert (tmp_path / "splits.csv").read_bytes() == before

    def test_with_a_cache_the_claims_of_three_splits_are_put_side_by_side(self, study, tmp_path):
        cache = write_features(tmp_path, study)
        result = invoke(tmp_path, "--cache", str(cache))
        assert result.exit_code == 0, result.output
        for name in ("image-level split", "the given split", "case-disjoint split"):
            assert f"{name}  " in result.output
        values = json.loads(audited(tmp_path, cache=cache).to_json())
        assert [claim["images"] for claim in values["probe"]["claims"]] == [24] * 3

    def test_the_cache_gives_the_statistics_without_the_images(self, study, tmp_path):
        cache = write_features(tmp_path, study)
        expected = audited(tmp_path).findings
        for row in study:
            (tmp_path / row.path).unlink()
        assert audited(tmp_path, cache=cache).findings == expected == ()

    def test_a_cache_without_statistics_leaves_them_to_the_image_files(self, study, tmp_path):
        cache = write_features(tmp_path, study, statistics=False)
        (tmp_path / study[3].path).unlink()
        found = audited(tmp_path, cache=cache)
        assert found.probe is not None
        assert ("unreadable", "suspect", 1) in kinds(found)

    def test_a_cache_of_other_files_is_refused(self, study, tmp_path):
        cache = write_features(tmp_path, study)
        rows = [study[0]._replace(sha256="f" * 64), *study[1:]]
        write_manifest(tmp_path / "manifest.csv", rows)
        with pytest.raises(UsageError, match=r"1 images of the manifest are of other.*image000"):
            audited(tmp_path, cache=cache)
        write_manifest(
            tmp_path / "manifest.csv", [r._replace(image_id=f"x{r.image_id}") for r in rows]
        )
        with pytest.raises(UsageError, match="no image there"):
            audited(tmp_path, cache=cache)

    def test_images_that_the_cache_lacks_are_counted(self, study, tmp_path):
        cache = write_features(tmp_path, study[1:])
        assert kinds(audited(tmp_path, cache=cache)) == {("no_pixels", "note", 1)}

    def test_means_are_over_all_patches_of_each_image_in_the_order_asked_for(
        self, study, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("pipeline.audit.pixels._PART_BYTES", 64)  # four patches at a time
        with FeatureCache(write_features(tmp_path, study)) as cache:
            found = mean_features(cache, [5, 0, 23])
            for mean, image in zip(found, (5, 0, 23), strict=True):
                patches = cache.sequence(image).astype(np.float32)
                np.testing.assert_allclose(mean, patches.mean(axis=0), rtol=1e-6)


class TestImages:
    def test_a_copied_image_on_the_other_side_is_a_leak(self, study, tmp_path):
        roles = make_splits(study, folds=3).roles(0)
        test, train = (
            next(row for row in study if roles[row.image_id] == role) for role in ("test", "train")
        )
        (tmp_path / test.path).write_bytes((tmp_path / train.path).read_bytes())
        found = audited(tmp_path)
        assert ("same_pixels", "leak", 1) in kinds(found)
        assert ("changed", "suspect", 1) in kinds(found)

    def test_an_image_that_cannot_be_read_is_a_finding_and_not_the_end(self, study, tmp_path):
        (tmp_path / study[0].path).write_bytes(b"not an image")
        (tmp_path / study[1].path).unlink()
        found = audited(tmp_path)
        assert kinds(found) == {
            ("unreadable", "suspect", 2),
            ("changed", "suspect", 1),
            ("no_pixels", "note", 2),
        }
        [finding] = [f for f in found.findings if f.kind == "unreadable"]
        assert finding.examples[0].startswith("image000: ")


class TestForeign:
    def test_two_roles_in_one_fold_are_a_leak_if_one_is_test(self, study, tmp_path):
        lines = [f"{row.image_id},0,{'test' if row.case in 'c0c1' else 'train'}" for row in study]
        foreign(tmp_path, *lines, "image002,0,test", "image003,0,val", "image004,0,train")
        found = audited(tmp_path)
        assert kinds(found) >= {
            ("image_in_test_and_train", "leak", 1),
            ("image_in_val_and_train", "suspect", 1),
            ("image_named_twice", "note", 1),
            ("case_in_test_and_train", "leak", 1),
        }
        [finding] = [f for f in found.findings if f.kind == "image_in_test_and_train"]
        assert finding.examples == ("image002: test and train of fold 0",)

    def test_a_single_division_of_file_names_is_read(self, study, tmp_path):
        lines = [f"{row.path},{'Testing' if row.case == 'c0' else 'Training'}" for row in study]
        foreign(tmp_path, *lines, header="image_id,role")
        found = read_foreign(tmp_path / "splits.csv", study)
        assert len(found.splits.image_ids) == 24
        assert kinds(audited(tmp_path)) == {("no_validation_part", "note", 1)}

    def test_folds_keep_their_numbers_and_repeats_may_number_them_anew(self, study, tmp_path):
        def read(*lines, header):
            foreign(tmp_path, *lines, header=header)
            return read_foreign(tmp_path / "splits.csv", study)

        found = read("image000,1,test", "image000,5,train", header="image_id,fold,role")
        assert found.numbers == [1, 5]
        found = read(
            *(f"image000,{r},{f},test" for r in (1, 2) for f in (0, 1)),
            header="image_id,repeat,fold,role",
        )
        assert (found.numbers, found.splits.repeats) == ([0, 1, 2, 3], (0, 0, 1, 1))

    def test_images_that_are_not_in_the_manifest_are_counted(self, study, tmp_path):
        foreign(tmp_path, *(f"{row.image_id},0,train" for row in study), "other,0,test")
        assert ("unknown_images", "note", 1) in kinds(audited(tmp_path))

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["other,0,test"], "names none of the 24 images"),
            (["image000,0,exam"], "line 2: role is 'exam'"),
            (["image000,x,test"], "line 2: fold is 'x'"),
            (["image000,test"], "line 2: 2 fields"),
        ],
    )
    def test_what_is_no_split_is_refused_by_place_and_reason(self, study, tmp_path, lines, message):
        foreign(tmp_path, *lines)
        with pytest.raises(UsageError, match=message):
            read_foreign(tmp_path / "splits.csv", study)

"""Each kind of leak is planted in a clean study, and found."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from cache.schema import ImageRow
from cache.statistics import Statistics
from pipeline.audit.audit import audit
from pipeline.audit.pixels import pixels_in_files
from pipeline.dataset.breakhis import parse_name
from pipeline.dataset.statistics import NEAR_BITS
from pipeline.splits.make import make_splits, read_official


def study(cases=6, images=4):
    """Cases of two labels, with a slide each; every file is different."""
    return [
        ImageRow(
            f"{label[0]}{case}-{n}",
            f"{label[0]}{case}-{n}.png",
            label,
            f"{label} kind",
            f"slide {label[0]}{case}",
            f"case {label[0]}{case}",
            100,
            32,
            32,
            f"{label[0] == 'b':d}{case}{n}".rjust(64, "0"),
        )
        for label in ("benign", "malignant")
        for case in range(cases)
        for n in range(images)
    ]


def statistics_of(rows, seed=0):
    rng = np.random.default_rng(seed)
    digests = np.array([f"{n:064x}" for n in range(len(rows))], object)
    hashes = rng.integers(0, 256, (len(rows), 32), dtype=np.uint8)
    return Statistics(np.zeros((len(rows), 12), np.float32), hashes, digests)


def kinds(found):
    return {(finding.kind, finding.severity, finding.count) for finding in found.findings}


def the(found, kind, severity="leak"):
    [one] = [f for f in found.findings if (f.kind, f.severity) == (kind, severity)]
    return one


def across(rows, splits, fold=0):
    """The positions of a test image and a training image of the same label."""
    roles = splits.roles(fold)
    test = next(i for i, row in enumerate(rows) if roles[row.image_id] == "test")
    train = next(
        i
        for i, row in enumerate(rows)
        if roles[row.image_id] == "train" and row.label == rows[test].label
    )
    return test, train


def moved(splits, image_id, role, fold):
    table = [dict(roles) for roles in splits.table]
    table[fold][image_id] = role
    return replace(splits, table=tuple(table))


@pytest.fixture
def rows():
    return study()


@pytest.fixture
def splits(rows):
    return make_splits(rows, folds=3, repeats=2)


def test_clean_splits_have_no_finding_and_what_was_checked_is_said(rows, splits):
    found = audit(rows, splits, statistics_of(rows))
    assert found.findings == ()
    assert found.leaks == 0
    assert found.summary == (
        "no leak found: 0 leaks, 0 suspect, 0 notes in 48 images, 12 slides and 12 cases, 6 folds"
    )
    text = found.to_text()
    for what in ("slides", "labels", "files", "pixels", "look alike", "parts", "not known"):
        assert any(what in line and "nothing found" in line for line in found.checked), what
        assert what in text


def test_one_image_of_a_slide_on_the_other_side_is_found_at_both_levels(rows, splits):
    test, _ = across(rows, splits, fold=1)
    found = audit(rows, moved(splits, rows[test].image_id, "train", 1), statistics_of(rows))
    assert kinds(found) == {
        ("slide_in_test_and_train", "leak", 1),
        ("case_in_test_and_train", "leak", 1),
    }
    slide = the(found, "slide_in_test_and_train")
    assert slide.text == ("1 of 12 slides has images in the test part and outside of it (fold 1)")
    assert slide.examples == (f"{rows[test].slide}: 1 in train, 3 in test of fold 1",)
    assert found.summary.startswith("LEAKS: 2 leaks")


def test_blocks_of_one_case_leak_at_the_level_of_cases_only(rows, splits):
    test, train = across(rows, splits)
    rows[test] = rows[test]._replace(case="shared", slide="a")
    rows[train] = rows[train]._replace(case="shared", slide="b")
    assert ("case_in_test_and_train", "leak", 1) in kinds(audit(rows, splits, statistics_of(rows)))
    assert "slide_in_test_and_train" not in {k for k, *_ in kinds(audit(rows, splits))}


def test_a_group_in_validation_and_training_is_suspect_and_no_leak(rows, splits):
    roles = splits.roles(0)
    val = next(i for i, role in roles.items() if role == "val")
    found = audit(rows, moved(splits, val, "train", 0), statistics_of(rows))
    assert kinds(found) == {
        ("slide_in_val_and_train", "suspect", 1),
        ("case_in_val_and_train", "suspect", 1),
    }
    assert found.leaks == 0


def test_the_same_file_on_both_sides_is_a_leak(rows, splits):
    test, train = across(rows, splits)
    rows[test] = rows[test]._replace(sha256=rows[train].sha256)
    found = audit(rows, splits, statistics_of(rows))
    finding = the(found, "same_file")
    assert rows[test].image_id in finding.examples[0]
    assert rows[train].image_id in finding.examples[0]
    assert "(test)" in finding.examples[0]


def test_the_same_file_twice_in_one_case_is_suspect(rows, splits):
    rows[1] = rows[1]._replace(sha256=rows[0].sha256)
    found = audit(rows, splits, statistics_of(rows))
    assert kinds(found) == {("same_file", "suspect", 1)}
    assert the(found, "same_file", "suspect").examples == ("b0-0 = b0-1",)


def test_the_same_pixels_in_two_files_are_a_leak_across_sides(rows, splits):
    test, train = across(rows, splits)
    statistics = statistics_of(rows)
    for table in (statistics.pixels_sha256, statistics.perceptual_hash):
        table[test] = table[train]
    found = audit(rows, splits, statistics)
    assert kinds(found) == {("same_pixels", "leak", 1)}


@pytest.mark.parametrize(("column", "severity"), [("label", "suspect"), ("subtype", "note")])
def test_the_same_pixels_under_two_labels_or_subtypes_are_found(rows, splits, column, severity):
    statistics = statistics_of(rows)
    for table in (statistics.pixels_sha256, statistics.perceptual_hash):
        table[1] = table[0]
    rows[1] = rows[1]._replace(**{column: "malignant"})
    found = audit(rows, splits, statistics)
    finding = the(found, f"same_pixels_of_two_{column}s", severity)
    assert finding.examples[0].startswith("b0-0 = b0-1: ")


@pytest.mark.parametrize(("distance", "count"), [(1, 1), (NEAR_BITS, 1), (NEAR_BITS + 1, 0)])
def test_images_that_look_alike_on_both_sides_are_a_leak(rows, splits, distance, count):
    test, train = across(rows, splits)
    statistics = statistics_of(rows)
    bits = np.unpackbits(statistics.perceptual_hash[train])
    bits[:distance] ^= 1
    statistics.perceptual_hash[test] = np.packbits(bits)
    found = audit(rows, splits, statistics)
    assert [f.count for f in found.findings if f.kind == "near_duplicates"] == [1] * count
    if count:
        assert f"{distance} bits differ" in the(found, "near_duplicates").examples[0]


def test_images_that_look_alike_within_a_case_are_no_finding(rows, splits):
    statistics = statistics_of(rows)
    statistics.perceptual_hash[1] = statistics.perceptual_hash[0]
    assert audit(rows, splits, statistics).findings == ()


def test_images_that_look_alike_under_two_labels_are_found_wherever_they_are(rows, splits):
    statistics = statistics_of(rows)
    statistics.perceptual_hash[1] = statistics.perceptual_hash[0]
    rows[1] = rows[1]._replace(label="malignant")
    finding = the(audit(rows, splits, statistics), "near_duplicates_of_two_labels", "suspect")
    assert finding.examples == ("b0-0 (benign) ~ b0-1 (malignant): 0 bits differ",)


def test_blank_images_do_not_look_alike(rows, splits):
    statistics = statistics_of(rows)
    statistics.perceptual_hash[:] = 0
    assert audit(rows, splits, statistics).findings == ()


@pytest.mark.parametrize(
    ("change", "kind", "severity"),
    [
        ({"label": "malignant"}, "case_of_two_labels", "suspect"),
        ({"label": "malignant"}, "slide_of_two_labels", "suspect"),
        ({"case": "other"}, "slide_of_two_cases", "suspect"),
        ({"subtype": "other"}, "case_of_two_subtypes", "note"),
        ({"subtype": "other"}, "slide_of_two_subtypes", "note"),
    ],
)
def test_a_group_under_two_names_of_one_thing_is_found(rows, splits, change, kind, severity):
    rows[0] = rows[0]._replace(**change)
    finding = the(audit(rows, splits), kind, severity)
    assert finding.count == 1
    assert "1 image" in finding.examples[0]
    assert "3 images" in finding.examples[0]


def test_images_of_unknown_origin_are_told_apart_from_those_of_a_known_slide(rows, splits):
    rows[0] = rows[0]._replace(case="")
    assert the(audit(rows, splits), "no_case", "note").examples == ("b0-0",)
    rows[0] = rows[0]._replace(slide="")
    found = audit(rows, splits)
    assert the(found, "no_case", "suspect").count == the(found, "no_slide", "suspect").count == 1


def test_without_statistics_it_says_what_was_not_checked(rows, splits):
    found = audit(rows, splits)
    assert kinds(found) == {("no_pixels", "note", 48)}
    assert "not checked" in found.findings[0].text
    assert not any("look alike" in line for line in found.checked)


def test_statistics_of_some_images_are_compared_and_the_others_counted(rows, splits):
    test, train = sorted(across(rows, splits))
    statistics = statistics_of([rows[test], rows[train]])
    statistics.perceptual_hash[1] = statistics.perceptual_hash[0]
    found = audit(rows, splits, statistics, images=[test, train])
    assert kinds(found) == {("no_pixels", "note", 46), ("near_duplicates", "leak", 1)}


def test_folds_without_test_or_validation_part_are_found(rows, splits):
    table = [
        {i: "train" if role == "val" else role for i, role in roles.items()}
        for roles in splits.table
    ]
    table[1] = dict.fromkeys(table[1], "train")
    found = audit(rows, replace(splits, table=tuple(table)), statistics_of(rows))
    assert kinds(found) == {("no_test_part", "suspect", 1), ("no_validation_part", "note", 6)}


def test_images_that_no_fold_names_are_counted(rows, splits):
    table = [{i: r for i, r in roles.items() if i != "b0-0"} for roles in splits.table]
    found = audit(rows, replace(splits, table=tuple(table)), statistics_of(rows))
    assert kinds(found) == {("unused_images", "note", 1)}


def test_the_json_has_the_documented_keys_and_at_most_ten_examples(rows):
    splits = make_splits(rows, folds=3, group_by="image")
    values = json.loads(audit(rows, splits, statistics_of(rows)).to_json())
    assert list(values) == ["summary", "checked", "findings"]
    assert values["findings"][0]["severity"] == "leak"
    for finding in values["findings"]:
        assert list(finding) == ["kind", "severity", "count", "text", "examples"]
        assert len(finding["examples"]) <= 10


def test_every_fold_is_called_by_its_number(rows, splits):
    test, _ = across(rows, splits, fold=1)
    bad = moved(splits, rows[test].image_id, "train", 1)
    found = audit(rows, bad, numbers=range(1, 7))
    assert "(fold 2)" in the(found, "slide_in_test_and_train").text


class TestPublished:
    @pytest.fixture
    def rows(self, shared):
        lines = (shared / "data" / "folds" / "dsfold1.txt").read_text().split()
        names = [parse_name(line.split("|")[0]) for line in lines]
        return [
            ImageRow(
                *(name.image_id, f"{name.image_id}.png", name.label, name.subtype, name.slide),
                *(name.case, name.magnification, 32, 32, f"{number:064x}"),
            )
            for number, name in enumerate(names)
        ]

    def test_the_official_folds_are_told_to_divide_cases_and_one_slide(self, shared, rows):
        found = audit(rows, read_official(shared / "data" / "folds", rows))
        case = the(found, "case_in_test_and_train")
        assert case.text.startswith("10 of 70 cases have images in the test part")
        slide = the(found, "slide_in_test_and_train")
        assert slide.count == 1
        assert slide.examples[0].startswith("14-13412: ")
        assert "14-13412" in " ".join(the(found, "slide_of_two_subtypes", "note").examples)

    def test_cases_of_two_benign_subtypes_are_noted(self, rows):
        found = audit(rows, make_splits(rows))
        assert found.leaks == 0
        named = " ".join(the(found, "case_of_two_subtypes", "note").examples)
        assert "14-29960: " in named
        assert "14-21998: " in named

    def test_every_official_fold_divides_six_to_eight_cases(self, shared, rows):
        splits = read_official(shared / "data" / "folds", rows)
        for roles in splits.table:
            one = replace(splits, table=(roles,), repeats=(0,))
            assert 6 <= the(audit(rows, one), "case_in_test_and_train").count <= 8


@pytest.mark.slow
def test_the_shared_images_are_all_different(shared, tmp_path):
    rows = []
    for file in sorted((shared / "data" / "BreaKHis_v1").rglob("*.png")):
        name = parse_name(file.name)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        described = (name.label, name.subtype, name.slide, name.case, 100, 0, 0, digest)
        rows.append(ImageRow(name.image_id, str(file.resolve()), *described))
    known = pixels_in_files(tmp_path / "manifest.csv", rows)
    found = audit(rows, make_splits(rows), known.statistics, images=known.images)
    assert kinds(found) == {("case_of_two_subtypes", "note", 2)}
    assert len(rows) == 242

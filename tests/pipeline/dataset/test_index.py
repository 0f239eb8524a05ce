import csv
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import images, index
from pipeline.dataset.index import examine_dataset, index_dataset, write_problems
from pipeline.dataset.manifest import image_path, read_manifest
from pipeline.errors import PipelineError, UsageError

TREE = "histology_slides/breast/{}/SOB/{}/{}/{}X/{}.png"
BENIGN = TREE.format(
    "benign", "tubular_adenoma", "SOB_B_TA_14-4659", 100, "SOB_B_TA-14-4659-100-001"
)
BENIGN_40 = TREE.format(
    "benign", "tubular_adenoma", "SOB_B_TA_14-4659", 40, "SOB_B_TA-14-4659-40-001"
)
MALIGNANT = TREE.format(
    "malignant", "ductal_carcinoma", "SOB_M_DC_14-2523", 100, "SOB_M_DC-14-2523-100-001"
)


def draw(path, seed, size=(32, 40, 3)):
    """An image of its own for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tree(folder, *names):
    root = folder / "data"
    for seed, name in enumerate(names):
        draw(root / name, seed)
    return root


def run(root, **options):
    """Index with the manifest in a folder beside the data."""
    return examine_dataset(root, root.parent / "results" / "manifest.csv", **options)


def ids(result):
    return [row.image_id for row in result.rows]


def kinds(result):
    return {Path(problem.path).name: problem.kind for problem in result.problems}


@pytest.fixture
def breakhis(tmp_path):
    return tree(tmp_path, BENIGN, MALIGNANT, BENIGN_40)


@pytest.fixture
def classes(tmp_path):
    return tree(tmp_path, "benign/s1/a.png", "malignant/s2/b.png", "malignant/c.png")


class TestBreakHis:
    def test_rows_say_what_the_names_say_and_what_the_files_hold(self, breakhis):
        row = run(breakhis).rows[0]
        data = (breakhis / BENIGN).read_bytes()
        assert row == (
            "SOB_B_TA-14-4659-100-001",
            f"../data/{BENIGN}",
            "benign",
            "tubular_adenoma",
            "14-4659",
            "14-4659",
            100,
            40,
            32,
            hashlib.sha256(data).hexdigest(),
        )

    def test_rows_come_in_the_order_of_paths(self, breakhis):
        paths = [row.path for row in run(breakhis).rows]
        assert paths == sorted(paths)
        assert len(paths) == 3

    @pytest.mark.parametrize("level", ["histology_slides", "histology_slides/breast"])
    def test_any_level_of_the_tree_gives_the_same_images(self, breakhis, level):
        manifest = breakhis.parent / "results" / "manifest.csv"
        assert examine_dataset(breakhis / level, manifest) == examine_dataset(breakhis, manifest)

    def test_paths_lead_from_the_manifest_to_the_images(self, breakhis):
        manifest = breakhis.parent / "results" / "deep" / "manifest.csv"
        rows = index_dataset(breakhis, manifest).rows
        assert read_manifest(manifest) == rows
        assert all(image_path(manifest, row).is_file() for row in rows)

    def test_paths_hold_when_the_dataset_is_given_through_a_link(self, breakhis):
        (breakhis.parent / "link").symlink_to(breakhis)
        assert run(breakhis.parent / "link") == run(breakhis)

    def test_one_magnification_can_be_chosen(self, breakhis):
        result = run(breakhis, magnification=100)
        assert ids(result) == ["SOB_B_TA-14-4659-100-001", "SOB_M_DC-14-2523-100-001"]
        assert result.problems == []

    def test_other_magnifications_are_not_opened(self, breakhis):
        (breakhis / BENIGN_40).write_bytes(b"damaged")
        assert run(breakhis, magnification=100).problems == []

    def test_a_magnification_that_is_not_there_is_refused_with_those_that_are(self, breakhis):
        with pytest.raises(UsageError, match="magnification 200, found 40, 100"):
            run(breakhis, magnification=200)

    def test_a_name_that_is_not_of_breakhis_is_a_problem(self, breakhis):
        draw(breakhis / BENIGN.replace("001.png", "1.png"), 9)
        result = run(breakhis)
        assert kinds(result) == {"SOB_B_TA-14-4659-100-1.png": "name"}
        assert len(result.rows) == 3

    @pytest.mark.parametrize("folder", ["malignant/SOB", "benign/SOB/adenosis"])
    def test_a_name_that_its_folder_contradicts_is_a_problem(self, breakhis, folder):
        name = "SOB_B_F-14-9133-100-001.png"
        draw(breakhis / folder / name, 9)
        result = run(breakhis)
        assert kinds(result) == {name: "name"}
        assert "the name says benign, fibroadenoma" in result.problems[0].reason

    def test_the_same_name_in_two_folders_is_a_problem(self, breakhis):
        draw(breakhis / "copy" / Path(BENIGN).name, 9)
        result = run(breakhis)
        assert kinds(result) == {Path(BENIGN).name: "name"}
        assert len(result.rows) == 3

    def test_documents_above_the_images_are_passed_over(self, breakhis):
        (breakhis / "README.txt").write_text("about")
        assert run(breakhis).problems == []


class TestClassFolders:
    def test_the_folders_give_label_slide_and_case(self, classes):
        found = {row.image_id: (row.label, row.slide, row.case) for row in run(classes).rows}
        assert found == {
            "benign__s1__a": ("benign", "s1", "s1"),
            "malignant__s2__b": ("malignant", "s2", "s2"),
            "malignant__c": ("malignant", "", ""),
        }

    def test_the_innermost_folder_is_the_slide(self, classes):
        draw(classes / "benign" / "hospital" / "s9" / "d.png", 9)
        assert run(classes).rows[0].slide == "s9"

    def test_two_files_that_differ_in_their_ending_only_are_a_problem(self, classes):
        draw(classes / "malignant" / "c.tif", 9)
        result = run(classes)
        assert kinds(result) == {"c.tif": "name"}
        assert "c.png" in result.problems[0].reason

    def test_images_in_the_folder_itself_are_refused_with_the_layouts(self, classes):
        draw(classes / "loose.png", 9)
        with pytest.raises(UsageError, match=r"1 images, such as loose\.png.*class/image\.png"):
            run(classes)

    def test_a_single_label_is_refused_with_its_count(self, tmp_path):
        root = tree(tmp_path, "benign/a.png", "benign/b.png")
        with pytest.raises(UsageError, match=r"one label: benign \(2 images\), expected at least"):
            run(root)

    def test_a_magnification_is_refused_where_there_is_none(self, classes):
        with pytest.raises(UsageError, match="have no magnification"):
            run(classes, magnification=100)

    def test_a_folder_without_images_is_refused(self, tmp_path):
        (tmp_path / "data" / "benign").mkdir(parents=True)
        (tmp_path / "data" / "benign" / "a.svs").write_bytes(b"x")
        with pytest.raises(UsageError, match="no images in this folder"):
            run(tmp_path / "data")

    def test_a_dataset_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match="none: no such folder or file"):
            run(tmp_path / "none")


class TestProblems:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [(b"", "empty"), (b"text", "not a PNG"), (b"\x89PNG\r\n\x1a\n", "not a PNG")],
    )
    def test_a_file_that_cannot_be_opened_is_listed_and_the_others_are_kept(
        self, classes, content, reason
    ):
        (classes / "benign" / "bad.png").write_bytes(content)
        result = run(classes)
        assert [(p.path, p.kind) for p in result.problems] == [
            ("../data/benign/bad.png", "unreadable")
        ]
        assert reason in result.problems[0].reason
        assert len(result.rows) == 3

    def test_a_truncated_image_is_listed(self, classes):
        path = draw(classes / "benign" / "cut.png", 9)
        path.write_bytes(path.read_bytes()[:500])
        assert kinds(run(classes)) == {"cut.png": "unreadable"}

    @pytest.mark.parametrize("name", ["notes.txt", "slide.svs", "archive", "image.webp"])
    def test_a_file_that_is_no_image_by_its_name_is_listed(self, classes, name):
        (classes / "benign" / "s1" / name).write_bytes(b"x")
        assert kinds(run(classes)) == {name: "unreadable"}

    def test_a_folder_of_unknown_files_is_not_passed_over(self, classes):
        (classes / "benign" / "s7").mkdir()
        (classes / "benign" / "s7" / "slide.svs").write_bytes(b"x")
        assert kinds(run(classes)) == {"slide.svs": "unreadable"}

    @pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._a.png", ".git/a.png"])
    def test_litter_and_hidden_files_are_passed_over(self, classes, name):
        path = classes / "benign" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        assert run(classes).problems == []

    def test_a_file_that_is_too_large_is_not_read(self, classes, monkeypatch):
        monkeypatch.setattr(images, "MAX_BYTES", 10_000)
        with (classes / "benign" / "huge.png").open("wb") as file:
            file.truncate(10_001)
        result = run(classes)
        assert kinds(result) == {"huge.png": "unreadable"}
        assert "expected at most 10,000" in result.problems[0].reason

    def test_repeated_pixels_keep_the_first_in_path_order(self, classes):
        draw(classes / "benign" / "s1" / "z.bmp", 0)
        result = run(classes)
        assert kinds(result) == {"z.bmp": "repeat"}
        assert "../data/benign/s1/a.png" in result.problems[0].reason
        assert "benign__s1__a" in ids(result)

    def test_the_same_pixels_under_two_labels_leave_all_of_them_out(self, classes):
        draw(classes / "malignant" / "s2" / "z.png", 0)
        draw(classes / "malignant" / "s2" / "zz.png", 0)
        result = run(classes)
        assert kinds(result) == {"a.png": "conflict", "z.png": "conflict", "zz.png": "conflict"}
        assert ids(result) == ["malignant__c", "malignant__s2__b"]

    def test_the_same_bytes_in_another_shape_are_not_a_repeat(self, classes):
        for name, size in (("x.png", (32, 40)), ("y.png", (40, 32))):
            Image.new("RGB", size, "red").save(classes / "benign" / name)
        assert run(classes).problems == []

    def test_a_link_out_of_the_dataset_is_listed_and_not_read(self, classes):
        outside = draw(classes.parent / "outside.png", 9)
        (classes / "benign" / "link.png").symlink_to(outside)
        assert kinds(run(classes)) == {"link.png": "unreadable"}

    def test_a_link_within_the_dataset_is_a_repeat(self, classes):
        (classes / "benign" / "s1" / "z.png").symlink_to("a.png")
        assert kinds(run(classes)) == {"z.png": "repeat"}

    @pytest.mark.parametrize("target", ["..", ".", "nothing", "loop"])
    def test_links_to_folders_to_nothing_and_to_themselves_are_listed(self, classes, target):
        (classes / "benign" / "loop").symlink_to(target)
        result = run(classes)
        assert kinds(result) == {"loop": "unreadable"}
        assert len(result.rows) == 3

    def test_a_pipe_is_listed_and_not_waited_for(self, classes):
        os.mkfifo(classes / "benign" / "pipe.png")
        assert kinds(run(classes)) == {"pipe.png": "unreadable"}

    @pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[31m.png", "a\udcff.png", "a .png"])
    def test_a_name_that_no_table_can_hold_is_listed_in_a_form_that_can_be_shown(
        self, classes, name
    ):
        draw(classes / "benign" / "tmp.png", 9).rename(classes / "benign" / name)
        result = run(classes)
        assert [problem.kind for problem in result.problems] == ["name"]
        assert result.problems[0].path.isprintable()
        write_problems(classes.parent / "problems.csv", result.problems)

    def test_problems_are_written_beside_the_manifest(self, classes):
        (classes / "benign" / "bad.png").write_bytes(b"")
        result = index_dataset(classes, classes.parent / "results" / "manifest.csv")
        assert result.listing == classes.parent / "results" / "manifest.problems.csv"
        with result.listing.open() as file:
            assert [row["kind"] for row in csv.DictReader(file)] == ["unreadable"]

    def test_problems_that_are_gone_are_gone_from_their_list(self, classes):
        bad = classes / "benign" / "bad.png"
        bad.write_bytes(b"")
        manifest = classes.parent / "manifest.csv"
        index_dataset(classes, manifest)
        bad.unlink()
        assert index_dataset(classes, manifest).listing.read_text() == "path,kind,reason\n"

    def test_without_a_usable_image_the_problems_are_written_and_the_manifest_is_not(self, classes):
        for file in classes.rglob("*.png"):
            file.write_bytes(b"")
        manifest = classes.parent / "results" / "manifest.csv"
        with pytest.raises(PipelineError, match=r"none of 3 files can be used: .*problems\.csv"):
            index_dataset(classes, manifest)
        assert len(manifest.with_name("manifest.problems.csv").read_text().splitlines()) == 4
        assert not manifest.exists()

    def test_a_repeat_is_no_failure_and_everything_else_is(self, classes):
        draw(classes / "benign" / "s1" / "z.png", 0)
        (classes / "benign" / "bad.png").write_bytes(b"")
        result = run(classes)
        assert (len(result.problems), result.failures) == (2, 1)
        assert str(result.problems[0]).startswith("../data/benign/bad.png: unreadable: ")
        assert result.summary() == (
            "3 images, 1 benign, 2 malignant, 2 slides, 2 cases, 2 files left out"
        )

    def test_a_single_label_left_by_wrong_names_says_why(self, breakhis):
        (breakhis / MALIGNANT).rename((breakhis / MALIGNANT).with_name("wrong.png"))
        with pytest.raises(UsageError, match=r"1 files have problems, such as .*wrong\.png"):
            run(breakhis)

    def test_a_label_lost_to_damage_is_left_to_the_list_of_problems(self, classes):
        (classes / "benign" / "s1" / "a.png").write_bytes(b"")
        result = run(classes)
        assert ids(result) == ["malignant__c", "malignant__s2__b"]
        assert kinds(result) == {"a.png": "unreadable"}


class TestTable:
    @pytest.fixture
    def images(self, tmp_path):
        return tree(tmp_path, "x/a.png", "x/b.png")

    def table(self, images, *lines):
        path = images / "mine.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    def run(self, images, *lines, **options):
        manifest = images.parent / "results" / "manifest.csv"
        return examine_dataset(self.table(images, *lines), manifest, **options)

    def test_path_and_label_are_enough(self, images):
        rows = self.run(images, "path,label", "x/b.png,no", "./x/a.png,yes").rows
        assert [(r.image_id, r.path, r.label, r.slide, r.case, r.magnification) for r in rows] == [
            ("x__a", "../data/x/a.png", "yes", "", "", 0),
            ("x__b", "../data/x/b.png", "no", "", "", 0),
        ]

    def test_the_other_columns_are_taken_and_the_case_defaults_to_the_slide(self, images):
        header = "label,path,image_id,subtype,slide,case,magnification,note"
        lines = ("yes,x/a.png,one,t,s1,,20,n", "no,x/b.png,two,,s2,c2,,n")
        rows = self.run(images, header, *lines).rows
        assert [(r.image_id, r.subtype, r.slide, r.case, r.magnification) for r in rows] == [
            ("one", "t", "s1", "s1", 20),
            ("two", "", "s2", "c2", 0),
        ]

    def test_absolute_paths_are_allowed(self, images):
        result = self.run(images, "path,label", f"{images}/x/a.png,yes", "x/b.png,no")
        assert result.rows[0].path == "../data/x/a.png"

    def test_a_file_that_is_not_there_is_listed(self, images):
        result = self.run(images, "path,label", "x/a.png,yes", "x/b.png,no", "x/c.png,no")
        assert kinds(result) == {"c.png": "unreadable"}
        assert "No such file" in result.problems[0].reason

    def test_an_id_that_is_given_twice_is_listed(self, images):
        draw(images / "x" / "c.png", 9)
        lines = ("x/a.png,yes,one", "x/b.png,no,two", "x/c.png,no,one")
        result = self.run(images, "path,label,image_id", *lines)
        assert kinds(result) == {"c.png": "name"}
        assert ids(result) == ["one", "two"]

    def test_one_magnification_can_be_chosen(self, images):
        lines = ("x/a.png,yes,40", "x/b.png,no,40", "x/c.png,no,20")
        result = self.run(images, "path,label,magnification", *lines, magnification=40)
        assert (len(result.rows), result.problems) == (2, [])

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (("path,klass", "x/a.png,yes"), "no column label"),
            (("path,label",), "no images below the header"),
            (("path,label", "x/a.png,"), "line 2: label is empty"),
            (("path,label", ",yes"), "line 2: path is empty"),
            (("path,label,magnification", "x/a.png,yes,40X"), "line 2: magnification is '40X'"),
            (("path,label", "x/a.png,yes"), r"one label: yes \(1 images\)"),
        ],
    )
    def test_a_wrong_table_is_refused(self, images, lines, message):
        with pytest.raises(UsageError, match=message):
            self.run(images, *lines)

    def test_a_manifest_can_be_indexed_again(self, images):
        manifest = images.parent / "results" / "manifest.csv"
        index_dataset(self.table(images, "path,label", "x/a.png,yes", "x/b.png,no"), manifest)
        again = manifest.with_name("again.csv")
        index_dataset(manifest, again)
        assert again.read_bytes() == manifest.read_bytes()

    def test_the_dataset_is_not_overwritten_by_its_manifest(self, images):
        path = self.table(images, "path,label", "x/a.png,yes", "x/b.png,no")
        with pytest.raises(UsageError, match="is the dataset itself"):
            index_dataset(path, path)


def test_progress_is_told_the_total_and_each_image(classes):
    told = []

    @contextmanager
    def progress(total, done):
        told.append((total, done))
        yield told.append

    (classes / "benign" / "bad.png").write_bytes(b"")
    run(classes, progress=progress)
    assert told == [(4, 0), 1, 1, 1, 1]


def test_the_result_does_not_depend_on_the_number_of_threads(classes, monkeypatch):
    for seed in range(30):
        draw(classes / "benign" / "s3" / f"{seed % 7}-{seed}.png", seed % 20)
    many = run(classes)
    monkeypatch.setattr(index, "MAX_WORKERS", 1)
    assert run(classes) == many


def test_real_slides_are_indexed_without_problems(shared, tmp_path):
    root = (shared / "data" / "BreaKHis_v1").resolve()
    result = examine_dataset(root, tmp_path / "manifest.csv", magnification=100)
    assert result.problems == []
    assert len(result.rows) == 242
    assert sum(row.label == "benign" for row in result.rows) == 117
    assert {(row.width, row.height) for row in result.rows} == {(700, 460), (700, 456)}
    assert len({(row.subtype, row.slide) for row in result.rows}) == 21

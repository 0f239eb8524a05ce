"""Tables, ids and paths made to hang, to fill the memory or to lead elsewhere are refused."""

import os
import time
import tracemalloc
from pathlib import Path

import pytest
from small_data import write_image
from small_fits import CLASSES, prediction, write_fits

from cache import ImageRow
from cache.errors import CacheError
from pipeline import tables
from pipeline.dataset.discover import discover
from pipeline.dataset.index import examine_dataset
from pipeline.dataset.manifest import read_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.fitting.record import read_fits
from pipeline.splits.table import read_splits
from pipeline.tables import MAX_BYTES, MAX_COLUMNS, MAX_RECORD, read_table

HEADER = ",".join(ImageRow._fields) + "\n"
BEGIN = HEADER.strip().encode() + b",fold,role\n"
ROW = ImageRow("a", "a.png", "benign", "", "s", "c", 100, 64, 64, "0" * 64)


def sparse(path, size, begin=b""):
    with path.open("wb") as file:
        file.write(begin)
        file.truncate(size)


def endless(path, begin, part, size):
    with path.open("wb") as file:
        file.write(begin)
        file.write(part * (size // len(part)))


LARGE = 60_000_000  # bytes; enough to tell a reader that stops early from one that does not

FILES = {
    "a gigabyte": (lambda path: sparse(path, 1 << 30, BEGIN), "expected at most"),
    "a pipe": (os.mkfifo, "a pipe or device"),
    "a folder": (Path.mkdir, "Is a directory"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "a pipe or device"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "one line of zeros": (lambda path: sparse(path, LARGE), "a row of more than"),
    "one line of zeros below the header": (
        lambda path: sparse(path, LARGE, BEGIN),
        "a row of more than",
    ),
    "a quote that is never closed": (
        lambda path: endless(path, BEGIN + b'"', b"text\n", LARGE),
        "not valid CSV",
    ),
    "a row of millions of fields over millions of lines": (
        lambda path: endless(path, BEGIN + b'"', b'\n","', LARGE),
        "a row of more than",
    ),
    "a row of millions of empty fields": (
        lambda path: endless(path, BEGIN, b",", LARGE),
        "a row of more than",
    ),
    "too many columns": (
        lambda path: path.write_text(",".join(f"c{i}" for i in range(60_000)) + "\n"),
        f"60000 columns, expected at most {MAX_COLUMNS}",
    ),
    "the same column again and again": (
        lambda path: path.write_text(BEGIN.decode().strip() + ",note" * 900 + "\n"),
        "column note appears twice",
    ),
    "half a character": (
        lambda path: path.write_bytes(BEGIN + b"\xed\xa0\x80,"),
        "not UTF-8",
    ),
}
READERS = {
    "manifest": read_manifest,
    "splits": lambda path: read_splits(path, [ROW]),
    "dataset": lambda path: discover(path, path.parent / "manifest.csv"),
    "table": lambda path: list(read_table(path, ("image_id",))),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_table_is_refused_at_once_and_in_little_memory(tmp_path, kind, reader):
    path = tmp_path / "table.csv"
    make, reason = FILES[kind]
    make(path)
    began = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(PipelineError) as caught:
        READERS[reader](path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * MAX_RECORD
    assert time.perf_counter() - began < 5
    message = str(caught.value)
    assert str(path) in message
    as_dataset = ("no such folder or file", "no images in this folder")
    assert reason in message or (
        reader == "dataset" and any(part in message for part in as_dataset)
    )
    assert len(message) < 1000
    assert message.isprintable()


@pytest.mark.parametrize("column", ["fold", "repeat"])
def test_a_number_of_many_digits_takes_no_memory(tmp_path, column):
    row = {"image_id": "a", "fold": "0", "role": "test", "group_by": "case", "repeat": "0"}
    row[column] = "9" * 17
    path = tmp_path / "splits.csv"
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    tracemalloc.start()
    with pytest.raises(UsageError, match=f"{column}s.* (are|of the folds are) 9{{17}}, expected 0"):
        read_splits(path, [ROW])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_more_lines_than_any_table_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_LINES", 100)
    path = tmp_path / "table.csv"
    for line in ("1\n", "\n"):
        path.write_text("a\n" + line * 99)
        list(read_table(path, ("a",)))
        path.write_text("a\n" + line * 100)
        with pytest.raises(UsageError, match="more than 100 lines"):
            list(read_table(path, ("a",)))


def test_a_million_images_would_fit():
    assert MAX_BYTES > 1_000_000 * 250
    assert tables.MAX_LINES >= 10 * 1_000_000


def test_long_notes_of_several_lines_in_other_columns_are_legitimate(tmp_path):
    path = tmp_path / "table.csv"
    note = '"' + ("a line of a report\n" * 200) + '"'
    path.write_text("a,note\n" + f"1,{note}\n" * 2000)  # more than MAX_RECORD in all
    assert path.stat().st_size > 5 * MAX_RECORD
    assert [row["a"] for _, row in read_table(path, ("a",))] == ["1"] * 2000


@pytest.mark.parametrize("header", ["\x1b[2Jimage", "a\x07\u202eb", "x" * 100_000])
def test_a_header_is_shown_without_what_controls_a_terminal(tmp_path, header):
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n1\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_manifest(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "image_id",
    ["../a", "a/b", "/etc/passwd", "..", ".", "a\\b", "a\nb", "a\0b", "x" * 201, "é" * 101, ""],
)
def test_an_id_that_is_no_file_name_is_refused_in_a_manifest(tmp_path, image_id):
    path = tmp_path / "manifest.csv"
    quoted = '"' + image_id + '"'
    fields = ",".join(str(value) for value in ROW[1:])
    path.write_bytes(f"{HEADER}{quoted},{fields}\n".encode())
    with pytest.raises(CacheError, match=r"manifest\.csv, line \d: .*image_id"):
        read_manifest(path)


def test_ids_made_from_paths_are_file_names(tmp_path):
    write_image(tmp_path / "elsewhere" / "c.png", 2)
    data = tmp_path / "data"
    write_image(data / "x" / "a.png", 0)
    write_image(data / "x" / "b.png", 1)
    lines = ["path,label", "./x/./a.png,yes", f"{data}/x/b.png,no", "../elsewhere/c.png,no"]
    (data / "t.csv").write_text("\n".join(lines) + "\n")
    result = examine_dataset(data / "t.csv", tmp_path / "manifest.csv")
    ids = {Path(row.path).name: row.image_id for row in result.rows}
    absolute = "__".join([*data.parts[1:], "x", "b"])
    assert ids == {"a.png": "x__a", "b.png": absolute, "c.png": "elsewhere__c"}


@pytest.mark.parametrize("given", ["../a", "a/b", "..", "x" * 300])
def test_an_id_that_is_no_file_name_is_a_problem_of_a_dataset(tmp_path, given):
    for seed, name in enumerate("abc"):
        write_image(tmp_path / f"{name}.png", seed)
    lines = ["path,label,image_id", f"a.png,yes,{given}", "b.png,no,b", "c.png,yes,c"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    result = examine_dataset(tmp_path / "t.csv", tmp_path / "manifest.csv")
    assert [problem.kind for problem in result.problems] == ["name"]
    assert [row.image_id for row in result.rows] == ["b", "c"]


def test_ids_that_become_the_same_name_are_a_problem(tmp_path):
    for seed, name in enumerate(("a/b__c.png", "a/b/c.png", "d/x.png")):
        write_image(tmp_path / "data" / name, seed)
    result = examine_dataset(tmp_path / "data", tmp_path / "manifest.csv")
    assert [problem.kind for problem in result.problems] == ["name"]
    assert "a__b__c is also that of" in result.problems[0].reason


class TestLinks:
    """What a dataset's links lead to is read only inside the dataset."""

    @pytest.fixture
    def data(self, tmp_path):
        for seed, name in enumerate(("a/s/1.png", "a/2.png", "b/3.png")):
            write_image(tmp_path / "data" / name, seed)
        write_image(tmp_path / "secret" / "9.png", 9)
        return tmp_path / "data"

    def problems(self, data):
        result = examine_dataset(data, data.parent / "results" / "manifest.csv")
        assert len(result.rows) == 3
        assert not any("secret" in row.path for row in result.rows)
        return [(Path(problem.path).name, problem.kind) for problem in result.problems]

    def test_a_chain_of_links_that_ends_outside_is_not_followed(self, data):
        (data / "b" / "inner.png").symlink_to(data.parent / "secret" / "9.png")
        (data / "a" / "outer.png").symlink_to(data / "b" / "inner.png")
        assert sorted(self.problems(data)) == [
            ("inner.png", "unreadable"),
            ("outer.png", "unreadable"),
        ]

    def test_a_linked_folder_is_not_entered(self, data):
        (data / "b" / "linked").symlink_to(data.parent / "secret")
        assert self.problems(data) == [("linked", "unreadable")]

    def test_a_link_by_way_of_the_parent_is_not_followed(self, data):
        (data / "b" / "up.png").symlink_to("../../secret/9.png")
        assert self.problems(data) == [("up.png", "unreadable")]

    def test_a_dataset_that_is_itself_a_link_is_its_target(self, data):
        alias = data.parent / "alias"
        alias.symlink_to(data)
        result = examine_dataset(alias, data.parent / "results" / "manifest.csv")
        assert (len(result.rows), result.problems) == (3, [])

    def test_a_table_may_name_any_image_that_its_author_likes(self, data):
        """A CSV file says itself where its images are; only images are ever read from there."""
        (data / "out.png").symlink_to(data.parent / "secret" / "9.png")
        lines = ["path,label", "out.png,x", "a/2.png,y", "/etc/passwd,y", "/dev/zero,y"]
        (data / "t.csv").write_text("\n".join(lines) + "\n")
        result = examine_dataset(data / "t.csv", data.parent / "manifest.csv")
        assert [row.image_id for row in result.rows] == ["a__2", "out"]
        assert {problem.kind for problem in result.problems} == {"unreadable"}
        assert len(result.problems) == 2


@pytest.mark.parametrize(
    "name", ["a" * 5000 + ".png", "x/" * 3000 + "a.png", "\ud83e.png"[1:], "nul\0.png"]
)
def test_a_path_that_no_system_takes_is_a_problem_of_that_line_only(tmp_path, name):
    for seed, letter in enumerate("ab"):
        write_image(tmp_path / f"{letter}.png", seed)
    lines = ["path,label,image_id", f"{name[:4096]},yes,bad", "a.png,yes,a", "b.png,no,b"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    result = examine_dataset(tmp_path / "t.csv", tmp_path / "manifest.csv")
    assert [row.image_id for row in result.rows] == ["a", "b"]
    assert len(result.problems) == 1


@pytest.mark.parametrize("kind", ["a pipe", "an endless device", "a folder", "a gigabyte"])
@pytest.mark.parametrize("name", ["fit.json", "predictions.csv"])
def test_a_fit_whose_files_are_none_is_refused(tmp_path, kind, name):
    rows = [prediction(0, f"c{label}", label, 0.25) for label in CLASSES]
    write_fits(tmp_path, rows)
    fold = tmp_path / "fold0"
    (fold / name).unlink(missing_ok=True)
    FILES[kind][0](fold / name)
    with pytest.raises(UsageError, match=name.replace(".", r"\.")):
        read_fits(tmp_path)

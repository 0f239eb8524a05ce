from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import ImageTableError
from cache.schema import ImageRow
from pipeline.dataset.manifest import image_path, read_manifest, write_manifest
from pipeline.errors import PipelineError, UsageError

ROW = ImageRow("a", "images/a.png", "benign", "", "s1", "c1", 100, 700, 460, "0" * 64)
HEADER = ",".join(ImageRow._fields)

TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
NAME = TEXT.filter(bool)
IDS = NAME.filter(lambda name: name not in (".", "..") and not set(name) & set("/\\"))
NUMBER = st.integers(0, 2**31 - 1)
ROWS = st.lists(
    st.builds(
        ImageRow,
        image_id=IDS,
        path=NAME,
        label=NAME,
        subtype=TEXT,
        slide=TEXT,
        case=TEXT,
        magnification=NUMBER,
        width=NUMBER,
        height=NUMBER,
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row.image_id,
)


def manifest(folder, *rows, header=HEADER):
    path = folder / "manifest.csv"
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@given(ROWS)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    write_manifest(path, rows)
    assert read_manifest(path) == rows


def test_the_columns_are_those_of_the_row_and_an_unknown_magnification_is_blank(tmp_path):
    path = tmp_path / "manifest.csv"
    write_manifest(path, [ROW._replace(magnification=0)])
    assert path.read_text() == f"{HEADER}\na,images/a.png,benign,,s1,c1,,700,460,{'0' * 64}\n"


def test_other_columns_are_ignored(tmp_path):
    path = manifest(tmp_path, (*ROW, "mine"), header=f"{HEADER},note")
    assert read_manifest(path) == [ROW]


def test_a_relative_path_is_relative_to_the_manifest():
    assert image_path(Path("results/manifest.csv"), ROW) == Path("results/images/a.png")


def test_an_absolute_path_stays_as_it_is(tmp_path):
    row = ROW._replace(path=str(tmp_path / "a.png"))
    assert image_path(Path("results/manifest.csv"), row) == tmp_path / "a.png"


def test_a_missing_column_is_named(tmp_path):
    path = manifest(tmp_path, header=HEADER.replace(",case", ""))
    with pytest.raises(UsageError, match=r"manifest\.csv: no column case"):
        read_manifest(path)


def test_a_repeated_image_is_refused_with_both_lines(tmp_path):
    path = manifest(tmp_path, ROW, ROW._replace(image_id="b"), ROW)
    with pytest.raises(UsageError, match=r"line 4: image_id a is already on line 2"):
        read_manifest(path)


@pytest.mark.parametrize("column", ["magnification", "width", "height"])
@pytest.mark.parametrize("text", ["x", "-1", "1.5", "1_0", "+1", "100X", "١", "9" * 4096])
def test_what_is_not_a_number_is_refused_by_line_and_column(tmp_path, column, text):
    path = manifest(tmp_path, ROW, ROW._replace(image_id="b", **{column: text}))
    with pytest.raises(UsageError, match=rf"manifest\.csv, line 3: {column} is "):
        read_manifest(path)


@pytest.mark.parametrize("column", ["width", "height"])
def test_a_blank_size_is_refused(tmp_path, column):
    with pytest.raises(UsageError, match=f"line 2: {column} is ''"):
        read_manifest(manifest(tmp_path, ROW._replace(**{column: ""})))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image_id", "", "image_id is empty"),
        ("image_id", "a/b", "is not a file name"),
        ("image_id", "..", "is not a file name"),
        ("image_id", "a\\b", "is not a file name"),
        ("image_id", "é" * 101, "202 bytes, expected at most 200"),
        ("path", "", "path is empty"),
        ("label", "", "label is empty"),
        ("sha256", "abc", "is not 64 hexadecimal digits"),
        ("width", 2**31, "out of range"),
        ("width", 10**18 - 1, "out of range"),
        ("slide", "a\x07b", "cannot be shown"),
    ],
)
def test_a_row_that_the_format_does_not_allow_is_refused_by_line(tmp_path, column, value, message):
    path = manifest(tmp_path, ROW._replace(**{column: value}))
    with pytest.raises(ImageTableError, match=rf"manifest\.csv, line 2: .*{message}"):
        read_manifest(path)


def test_an_id_may_be_as_long_as_the_name_of_a_file(tmp_path):
    row = ROW._replace(image_id="é" * 100)
    assert read_manifest(manifest(tmp_path, row)) == [row]


def test_a_manifest_of_too_many_images_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.dataset.manifest.MAX_IMAGES", 2)
    rows = [ROW._replace(image_id=name) for name in "abc"]
    assert len(read_manifest(manifest(tmp_path, *rows[:2]))) == 2
    with pytest.raises(UsageError, match="more than 2 images"):
        read_manifest(manifest(tmp_path, *rows))


def test_an_empty_manifest_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no images below the header"):
        read_manifest(manifest(tmp_path))


def test_a_manifest_without_images_is_not_written(tmp_path):
    with pytest.raises(PipelineError, match="no image can be used"):
        write_manifest(tmp_path / "manifest.csv", [])
    assert not (tmp_path / "manifest.csv").exists()

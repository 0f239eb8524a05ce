import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import PublishError
from pipeline.errors import UsageError
from pipeline.tables import MAX_FIELD, read_table, write_table

FIELD = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)


def table(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, required=("a",)):
    return list(read_table(path, required))


def test_rows_come_with_their_line_numbers(tmp_path):
    path = table(tmp_path, "a,b\n1,2\n\n3,4\n")
    assert read(path) == [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4"})]


def test_outer_spaces_are_stripped_from_names_and_fields(tmp_path):
    assert read(table(tmp_path, " a , b\n 1 ,2 \n")) == [(2, {"a": "1", "b": "2"})]


def test_what_a_spreadsheet_writes_is_read(tmp_path):
    assert read(table(tmp_path, b'\xef\xbb\xbfa,b\r\n1,"x, y"\r\n')) == [
        (2, {"a": "1", "b": "x, y"})
    ]


def test_quoted_quotes_and_line_breaks_are_read(tmp_path):
    assert read(table(tmp_path, 'a\n"one ""two""\nthree"\n')) == [(3, {"a": 'one "two"\nthree'})]


def test_a_header_without_rows_is_a_table_without_rows(tmp_path):
    assert read(table(tmp_path, "a,b\n")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column a; found nothing"),
        ("b,c\n1,2\n", "no column a; found b, c"),
        ("A\n1\n", "no column a; found A"),
        ("a;b\n1;2\n", "no column a; found a;b"),
        ("a,b,a\n1,2,3\n", "column a appears twice"),
        ("a,b\n1,2\n1\n", "line 3: 1 fields, expected 2"),
        ("a,b\n1,2,3\n", "line 2: 3 fields, expected 2"),
        ('a\n"open\n', "line 2: not valid CSV"),
        ('a\n"x"y\n', "line 2: not valid CSV"),
        (f"a\n{'x' * (MAX_FIELD + 1)}\n", f"line 2: a field is longer than {MAX_FIELD}"),
        (f"a\n{'x' * 200_000}\n", "not valid CSV"),
        (b"a\n\xff\xfe\n", "not UTF-8"),
        ("a\n1\n".encode("utf-16"), "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
    ],
)
def test_what_is_not_such_a_table_is_refused_by_name_and_reason(tmp_path, content, message):
    path = table(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_every_missing_column_is_listed(tmp_path):
    with pytest.raises(UsageError, match="no column a, c;"):
        read(table(tmp_path, "b\n1\n"), ("a", "b", "c"))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv: cannot be read \(No such file"):
        read(tmp_path / "none.csv")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path)


@given(rows=st.lists(st.tuples(FIELD, FIELD), max_size=8))
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "table.csv"
    write_table(path, ("a", "b"), rows)
    found = [(row["a"], row["b"]) for _, row in read(path, ("a", "b"))]
    assert found == [(a.strip(), b.strip()) for a, b in rows]


@given(content=st.binary(max_size=200))
def test_any_bytes_give_rows_or_the_one_error(tmp_path_factory, content):
    path = table(tmp_path_factory.mktemp("t"), content)
    try:
        rows = read(path)
    except UsageError:
        return
    assert all("a" in row for _, row in rows)


def test_mappings_are_written_in_the_order_of_the_columns(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_table(path, ("a", "b"), [{"b": 2, "a": 1}, {"a": 3, "b": 4, "c": 5}])
    assert path.read_text() == "a,b\n1,2\n3,4\n"


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, ("a",), [(1,)])

    def rows():
        yield (2,)
        raise csv.Error("stop")

    with pytest.raises(csv.Error):
        write_table(path, ("a",), rows())
    assert path.read_text() == "a\n1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="cannot be written"):
        write_table(tmp_path / "file" / "table.csv", ("a",), [])

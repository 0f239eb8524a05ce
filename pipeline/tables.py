"""Read and write CSV files, with errors that name the file and the line."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from cache.files import publish
from pipeline.errors import UsageError
from pipeline.user_file import check_file, printable

MAX_FIELD = 4096
"""Characters in one field; more is taken for a file that is not a table."""

MAX_RECORD = 1 << 20
"""Characters in one row, over all its lines, in columns that nobody asks for too."""

MAX_COLUMNS = 1000
"""Columns of a table."""

MAX_BYTES = 1 << 29
"""Bytes in a table: the manifest of a million images has half as many."""

MAX_LINES = 10_000_000
"""Lines in a table: a million images in ten folds."""


def read_table(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header, row by row, in memory that the limits above bound.

    Args:
        path: a UTF-8 file, with or without a byte-order mark.
        required: columns that must be there; others may be.

    Yields:
        The line number and the row, as column → text, stripped of outer spaces.

    Raises:
        UsageError: the file cannot be read, is not such a table, or is too large for one.
    """
    check_file(path, MAX_BYTES)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            spent = [0]
            reader = csv.reader(_lines(file, spent), strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, required)
            for fields in reader:
                spent[0] = 0
                if reader.line_num > MAX_LINES:
                    raise UsageError(f"{path}: more than {MAX_LINES:,} lines")
                if fields:
                    yield reader.line_num, _row(path, reader.line_num, header, fields)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def _lines(file: TextIO, spent: list[int]) -> Iterator[str]:
    """The lines of a file. `spent` counts characters; the caller sets it back at each record."""
    read = file.readline
    while line := read(MAX_RECORD + 1):
        spent[0] += len(line)
        if spent[0] > MAX_RECORD:
            raise csv.Error(f"a row of more than {MAX_RECORD:,} characters, or a quote left open")
        yield line


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    if len(header) > MAX_COLUMNS:
        raise UsageError(f"{path}: {len(header)} columns, expected at most {MAX_COLUMNS}")
    missing = [name for name in required if name not in header]
    if missing:
        raise UsageError(
            f"{path}: no column {', '.join(missing)}; "
            f"found {printable(', '.join(header)) or 'nothing'}: "
            "add what is missing to the first line and to every row"
        )
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        names = printable(", ".join(twice))
        raise UsageError(f"{path}: column {names} appears twice: remove one")


def _row(path: Path, line: int, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise UsageError(
            f"{path}, line {line}: {len(fields)} fields, expected {len(header)} as in the header"
        )
    if max(map(len, fields)) > MAX_FIELD:
        raise UsageError(f"{path}, line {line}: a field is longer than {MAX_FIELD} characters")
    return dict(zip(header, map(str.strip, fields), strict=True))


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object] | Sequence[object]]
) -> None:
    """Write a CSV file with a header, published whole.

    Args:
        path: the file.
        columns: the header.
        rows: each a mapping with a value for each column, or the values in their order.

    Raises:
        PublishError: the file cannot be written.
    """
    with publish(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            values = [row[name] for name in columns] if isinstance(row, Mapping) else row
            writer.writerow(values)

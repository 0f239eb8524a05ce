"""Read and write CSV files, with errors that name the file and the line."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cache.files import publish
from pipeline.errors import UsageError

MAX_FIELD = 4096
"""Characters in one field; more is taken for a file that is not a table."""


def read_table(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header, row by row.

    Args:
        path: a UTF-8 file, with or without a byte-order mark.
        required: columns that must be there; others may be.

    Yields:
        The line number and the row, as column → text, stripped of outer spaces.

    Raises:
        UsageError: the file cannot be read or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, required)
            for fields in reader:
                if fields:
                    yield reader.line_num, _row(path, reader.line_num, header, fields)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        raise UsageError(
            f"{path}: no column {', '.join(missing)}; "
            f"found {', '.join(header)[:200] or 'nothing'}: "
            "add what is missing to the first line and to every row"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UsageError(f"{path}: column {', '.join(twice)} appears twice: remove one")


def _row(path: Path, line: int, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise UsageError(
            f"{path}, line {line}: {len(fields)} fields, expected {len(header)} as in the header"
        )
    if any(len(field) > MAX_FIELD for field in fields):
        raise UsageError(f"{path}, line {line}: a field is longer than {MAX_FIELD} characters")
    return {name: field.strip() for name, field in zip(header, fields, strict=True)}


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

"""The manifest: a CSV file with one line an image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cache.schema import NUMBER_COLUMNS, ImageRow, check_row
from pipeline.errors import PipelineError, UsageError
from pipeline.tables import read_table, write_table

MAX_IMAGES = 2_000_000
"""Rows of a manifest, which takes up to 1 KB of memory for each."""

_MAX_DIGITS = 18


def read_manifest(path: Path) -> list[ImageRow]:
    """Read a manifest.

    Args:
        path: a CSV file with the columns of `ImageRow`; others are ignored.

    Returns:
        The images, in the order of the file. An unknown magnification is 0.

    Raises:
        UsageError: the file is not such a table, is empty, too long, or names an image twice.
        ImageTableError: a value is not allowed, such as an empty label.
    """
    rows: list[ImageRow] = []
    lines: dict[str, int] = {}
    for line, row in iterate_manifest(path):
        if row.image_id in lines:
            raise UsageError(
                f"{path}, line {line}: image_id {row.image_id} is already on line "
                f"{lines[row.image_id]}: remove one, or give each image its own"
            )
        lines[row.image_id] = line
        rows.append(row)
    return rows


def iterate_manifest(path: Path) -> Iterator[tuple[int, ImageRow]]:
    """Read a manifest row by row, with the number of each line, in memory that does not grow.

    Raises:
        UsageError: as `read_manifest`, except that an image may be named twice.
        ImageTableError: a value is not allowed.
    """
    count = 0
    for line, fields in read_table(path, ImageRow._fields):
        where = f"{path}, line {line}"
        row = check_row(_row(fields, where), where)
        if count == MAX_IMAGES:
            raise UsageError(f"{where}: more than {MAX_IMAGES:,} images: divide it")
        count += 1
        yield line, row
    if not count:
        raise UsageError(f"{path}: no images below the header: make it again with `pipeline index`")


def _row(fields: dict[str, str], where: str) -> ImageRow:
    values = {name: fields[name] for name in ImageRow._fields if name not in NUMBER_COLUMNS}
    return ImageRow(
        **values,
        magnification=parse_magnification(fields["magnification"], where),
        width=parse_number(fields["width"], "width", where),
        height=parse_number(fields["height"], "height", where),
    )


def parse_magnification(text: str, where: str) -> int:
    """The magnification that `text` gives, 0 if it is blank.

    Raises:
        UsageError: it is not a number; `where` names it in the message.
    """
    return parse_number(text, "magnification", where) if text else 0


def parse_number(text: str, column: str, where: str) -> int:
    """The whole number that `text` gives.

    Raises:
        UsageError: it is not one; `where` and `column` name it in the message.
    """
    # `int` alone would also take "1_0", "+1" and digits of other scripts.
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise UsageError(
            f"{where}: {column} is {text[:40]!r}, expected a whole number in digits, such as 100"
        )
    return int(text)


def write_manifest(path: Path, rows: Sequence[ImageRow]) -> None:
    """Write a manifest, published whole. An unknown magnification becomes blank.

    Raises:
        PipelineError: there are no images to write.
        PublishError: the file cannot be written.
    """
    if not rows:
        raise PipelineError(f"{path}: not written, because no image can be used")
    write_table(path, ImageRow._fields, (_fields(row) for row in rows))


def _fields(row: ImageRow) -> list[object]:
    return list(row._replace(magnification=row.magnification or ""))  # type: ignore[arg-type]


def image_path(manifest: Path, row: ImageRow) -> Path:
    """Where the image of `row` is: its path, relative to the manifest's folder unless absolute."""
    return manifest.parent / row.path

"""New labels for the images of a cache, from a CSV file."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from cache import RELABELLED, FeatureCache, ImageRow, ImageTableError
from cache.relabel import Changes, relabel
from cache.schema import check_row
from pipeline.dataset.manifest import parse_magnification
from pipeline.errors import UsageError
from pipeline.interrupts import watch_signals
from pipeline.tables import read_table
from pipeline.user_file import printable

_NAMED = 5


def relabel_from(cache_file: Path, labels: Path, out: Path) -> str:
    """Relabel a cache with what a CSV file says, see `cache.relabel` and `read_labels`.

    Returns:
        One line for a person: how many images changed, and in which columns.

    Raises:
        UsageError: the file does not fit the cache, or `out` would replace it.
        CacheError: the cache is not sound.
        PublishError: `out` cannot be written.
    """
    if out.resolve() == labels.resolve():
        raise UsageError(f"{out}: is an input, which --out would replace: choose another")
    with FeatureCache(cache_file) as cache:
        rows = cache.images.rows()
    relabelled = read_labels(labels, rows, cache_file)
    with watch_signals("almost done"):
        changes = relabel(cache_file, relabelled, out)
    return _summary(changes, len(rows))


def read_labels(path: Path, rows: Sequence[ImageRow], cache_file: Path) -> list[ImageRow]:
    """Put the labels of a CSV file in the place of those of a cache.

    Args:
        path: has a column image_id, and one or more of `RELABELLED`; others are ignored. An
            empty field means that the value is not known; a label must be.
        rows: the images of the cache.
        cache_file: names the cache in messages.

    Returns:
        All images, in the same order; those that the file does not name are as they were.

    Raises:
        UsageError: the file is not such a table, names an image twice or one that the cache does
            not hold, or a value is not allowed.
    """
    positions = {row.image_id: i for i, row in enumerate(rows)}
    relabelled = list(rows)
    lines: dict[str, int] = {}
    for line, fields in _known(path, positions, cache_file):
        where, image_id = f"{path}, line {line}", fields["image_id"]
        if image_id in lines:
            raise UsageError(
                f"{where}: image_id {image_id} is already on line {lines[image_id]}: remove one"
            )
        lines[image_id] = line
        position = positions[image_id]
        relabelled[position] = _relabelled(rows[position], fields, where)
    if not lines:
        raise UsageError(f"{path}: no images below the header, expected image_id and labels")
    return relabelled


def _known(
    path: Path, ids: Container[str], cache_file: Path
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a CSV file; at its end, refuse it if some have unknown ids."""
    unknown, named = 0, list[str]()
    for line, fields in read_table(path, ["image_id"]):
        if fields["image_id"] in ids:
            yield line, fields
            continue
        unknown += 1
        if unknown <= _NAMED:
            named.append(f"{printable(fields['image_id'])} (line {line})")
    if unknown:
        rest = f" and {unknown - len(named)} more" if unknown > len(named) else ""
        raise UsageError(
            f"{path}: {unknown} images are not in {cache_file}: {', '.join(named)}{rest}: "
            "correct or remove them"
        )


def _relabelled(row: ImageRow, fields: dict[str, str], where: str) -> ImageRow:
    given: dict[str, Any] = {name: fields[name] for name in RELABELLED if name in fields}
    if not given:
        raise UsageError(
            f"{where}: none of the columns {', '.join(RELABELLED)}; "
            f"found {printable(', '.join(fields))}: add the one that is to change"
        )
    if "magnification" in given:
        given["magnification"] = parse_magnification(given["magnification"], where)
    try:
        return check_row(row._replace(**given), where)
    except ImageTableError as error:
        raise UsageError(f"{error}: correct it") from error


def _summary(changes: Changes, images: int) -> str:
    columns = ", ".join(f"{name} of {count}" for name, count in changes.columns.items())
    return f"{changes.images} of {images} images changed{f': {columns}' if columns else ''}"

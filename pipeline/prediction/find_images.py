"""Images to predict: files, folders, and tables with a column `path`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.dataset.images import SUFFIXES
from pipeline.errors import UsageError
from pipeline.tables import read_table


class Asked(NamedTuple):
    """An image that is asked about.

    Attributes:
        name: as it is listed: its path, or the `image_id` of a table.
        path: of the file.
        sha256: that the file must have; empty if nothing is said of it.
    """

    name: str
    path: Path
    sha256: str = ""


def find_images(places: Sequence[Path], without: Path | None = None) -> list[Asked]:
    """All images at some places, in their order; those of a folder by their paths.

    Args:
        places: files, folders and tables.
        without: a folder that is not looked into: that of pictures made by an earlier run.

    Raises:
        UsageError: a place does not exist, holds no images, or is a table without `path`.
    """
    return [asked for place in places for asked in _at(place, without)]


def _at(place: Path, without: Path | None) -> list[Asked]:
    if place.is_dir():
        found = [
            Asked(str(file), file)
            for file in sorted(place.rglob("*"))
            if file.suffix.lower() in SUFFIXES and file.is_file() and not _is_in(file, without)
        ]
        if not found:
            raise UsageError(f"{place}: no images in this folder ({', '.join(sorted(SUFFIXES))})")
        return found
    if place.suffix.lower() == ".csv":
        found = list(_of_table(place))
        if not found:
            raise UsageError(f"{place}: no images below the header")
        return found
    if not place.exists():
        raise UsageError(f"{place}: does not exist: give images, folders, or a CSV file with paths")
    return [Asked(str(place), place)]


def _is_in(file: Path, folder: Path | None) -> bool:
    return folder is not None and file.resolve().is_relative_to(folder.resolve())


def _of_table(table: Path) -> Iterator[Asked]:
    for line, row in read_table(table, ["path"]):
        if not row["path"]:
            raise UsageError(f"{table}, line {line}: no path")
        name = row.get("image_id") or row["path"]
        yield Asked(name, table.parent / row["path"], row.get("sha256", ""))

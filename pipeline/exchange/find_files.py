"""Which files of a folder are of which image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache import ImageRow
from pipeline.errors import UsageError
from pipeline.exchange.layouts import LAYOUTS

SUFFIX = ".h5"


@dataclass(frozen=True)
class Found:
    """The files of a folder.

    Attributes:
        folder: where they lie.
        extra: names of files that no image asks for, sorted.
    """

    folder: Path
    extra: list[str]

    def path_of(self, row: ImageRow) -> Path:
        """The file of an image, whether it is there or not."""
        return self.folder / f"{row.image_id}{SUFFIX}"


def find_files(folder: Path, tool: str, rows: Sequence[ImageRow]) -> Found:
    """Find the files of a tool.

    Args:
        folder: the tool's folder, or the one in it that holds the files.
        tool: one of `LAYOUTS`.
        rows: the images that are asked for.

    Raises:
        UsageError: there is no such folder or no file, or there are several folders.
    """
    files = _folder_of_files(folder, tool)
    names = sorted(path.name for path in files.glob(f"*{SUFFIX}"))
    if not names:
        raise UsageError(
            f"{folder}: no {SUFFIX} files in {files}: name the folder that holds them, one an image"
        )
    wanted = {f"{row.image_id}{SUFFIX}" for row in rows}
    return Found(files, [name for name in names if name not in wanted])


def _folder_of_files(folder: Path, tool: str) -> Path:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    pattern = LAYOUTS[tool].folders
    inner = sorted(path for path in folder.glob(pattern) if path.is_dir())
    if len(inner) > 1:
        names = ", ".join(path.name for path in inner)
        raise UsageError(f"{folder}: {names}: expected one {pattern}: name one of them")
    return inner[0] if inner else folder

"""Read the official folds of BreakHis, which are published as `dsfold1.txt` … `dsfold5.txt`."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import UsageError

FOLDS = 5


def read_folds(folder: Path) -> list[dict[str, str]]:
    """Read the five files.

    Args:
        folder: where they are. A line is `file name|magnification|fold|train or test`.

    Returns:
        For each fold, stem of an image's file name → `train` or `test`. The files name images of
        all magnifications.

    Raises:
        UsageError: a file is not there or not such a list.
    """
    return [_read_fold(folder / f"dsfold{number}.txt", number) for number in range(1, FOLDS + 1)]


def _read_fold(path: Path, number: int) -> dict[str, str]:
    sides: dict[str, str] = {}
    for line, text in _lines(path):
        fields = [field.strip() for field in text.split("|")]
        if len(fields) != 4 or fields[2] != str(number) or fields[3] not in ("train", "test"):
            raise UsageError(
                f"{path}, line {line}: found {text[:80]!r}, "
                f"expected `file name|magnification|{number}|train or test`: use the original file"
            )
        stem = PurePosixPath(fields[0]).stem
        if stem in sides:
            raise UsageError(f"{path}, line {line}: {stem} is named a second time: remove one line")
        sides[stem] = fields[3]
    return sides


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield line, text.strip()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}): expected dsfold1.txt to "
            f"dsfold{FOLDS}.txt in this folder"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: use the original file") from error

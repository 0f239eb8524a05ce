"""Publish a folder: whole, flushed to disk, and under its final name only then."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache import PublishError
from cache.files import flush, make_folders
from pipeline.errors import UsageError

RECORD = "export.json"
"""What every export holds; a folder without it is never replaced."""


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless it is an earlier export that may be replaced.

    Raises:
        UsageError: something is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder.is_dir() and (folder / RECORD).is_file()):
        raise UsageError(
            f"{folder}: exists and is not an export (it has no {RECORD}): choose another --out, or "
            "remove it yourself"
        )
    if not overwrite:
        raise UsageError(f"{folder}: exists: choose another --out, or replace it by --overwrite")


@contextmanager
def publish_folder(folder: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `folder`; rename it to that if the block succeeds.

    An earlier folder is moved aside, and removed when the new one is in its place.

    Raises:
        PublishError: the folder cannot be made or written.
    """
    final = folder.resolve()
    temporary: Path | None = None
    try:
        make_folders(final.parent)
        temporary = Path(tempfile.mkdtemp(".part", f".{final.name}.", final.parent))
        content = temporary / final.name  # mkdtemp's own folder can be read by its owner only
        content.mkdir()
        yield content
        _flush_all(content)
        _exchange(content, final, temporary / "replaced")
    except OSError as error:
        reason = error.strerror or str(error)
        raise PublishError(
            f"{final}: cannot be written ({reason}): choose another output, or free space and "
            "check the folder's permissions"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _flush_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(parent) / name)
        flush(Path(parent))


def _exchange(content: Path, final: Path, aside: Path) -> None:
    """Put `content` in the place of `final`; what was there goes to `aside`."""
    replaced = final.exists()
    if replaced:
        final.rename(aside)
    try:
        content.rename(final)
    except OSError:
        if replaced:
            with contextlib.suppress(OSError):
                aside.rename(final)
        raise
    flush(final.parent)

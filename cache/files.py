"""Publish files: whole, flushed to disk, and under their final name only then.

A name is on the disk when its folder is flushed, so every change of a name is followed by that.
"""

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.errors import PublishError

_UNFINISHED = ".part"


@contextmanager
def publish(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` if the block succeeds.

    The block writes and closes the temporary file. Then the file and its folder are flushed to
    disk around an `os.replace`, so that `path` holds either what it held before or all of the
    new content, whatever happens in between. Parent folders are made.

    Yields:
        The temporary path, in the folder of `path`; nothing is there yet.

    Raises:
        PublishError: the folder cannot be made or written, the disk refused the file, or `path`
            is something other than a file.
    """
    final = Path(path)
    temporary = _reserve(final)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(final)
        flush(final.parent)
    except OSError as error:
        raise _explained(final, error) from error
    finally:
        _remove(temporary)


def link_durably(name: Path, target: Path) -> None:
    """Make `name` a second name of the file `target`, whatever it was before.

    The caller makes sure that no other process does the same.

    Raises:
        OSError: the file system has no hard links, or refused this one.
    """
    temporary = name.with_name(f".{name.name}.link{_UNFINISHED}")
    make_folders(name.parent)
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(target)
        temporary.replace(name)
        flush(name.parent)
    finally:
        _remove(temporary)


def clear_unfinished(path: Path) -> None:
    """Remove what a killed process left of `path` before it was published.

    The caller makes sure that no other process is publishing `path`.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_UNFINISHED}"):
        _remove(left)


def flush(path: Path) -> None:
    """Have the disk keep what a file holds, or the names in a folder.

    Raises:
        OSError: the disk refused.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, their names on the disk.

    Raises:
        OSError: one cannot be made.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    flush(folder.parent)


def _reserve(final: Path) -> Path:
    """Make the folder of `final` and an unused name in it, proving that it can be written."""
    if final.is_dir():
        raise PublishError(f"{final}: is a folder, expected the name of a file to write")
    if final.exists() and not final.is_file():  # the rename would replace /dev/null for everybody
        raise PublishError(f"{final}: is a device or pipe, expected the name of a file to write")
    try:
        make_folders(final.parent)
        handle, name = tempfile.mkstemp(
            prefix=f".{final.name}.", suffix=_UNFINISHED, dir=final.parent
        )
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
    except OSError as error:
        raise _explained(final, error) from error
    return temporary


def _remove(temporary: Path) -> None:
    # On a broken disk even this may fail; what is left has no name that anybody reads.
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _explained(final: Path, error: OSError) -> PublishError:
    reason = error.strerror or str(error)
    return PublishError(
        f"{final}: cannot be written ({reason}): "
        "choose another output, or free space and check the folder's permissions"
    )

"""Publish files: whole, flushed to disk, and under their final name only then."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.errors import PublishError


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
        _flush(temporary)
        temporary.replace(final)
        _flush(final.parent)
    except OSError as error:
        raise _explained(final, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(final: Path) -> Path:
    """Make the folder of `final` and an unused name in it, proving that it can be written."""
    if final.is_dir():
        raise PublishError(f"{final}: is a folder, expected the name of a file to write")
    if final.exists() and not final.is_file():  # the rename would replace /dev/null for everybody
        raise PublishError(f"{final}: is a device or pipe, expected the name of a file to write")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
    except OSError as error:
        raise _explained(final, error) from error
    return temporary


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(final: Path, error: OSError) -> PublishError:
    reason = error.strerror or str(error)
    return PublishError(
        f"{final}: cannot be written ({reason}): "
        "choose another output, or free space and check the folder's permissions"
    )

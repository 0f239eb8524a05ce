"""One extraction at a time writes an output."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cache import PublishError
from cache.files import make_folders
from pipeline.errors import PipelineError

log = logging.getLogger(__name__)

_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


@contextmanager
def locked(out: Path, folder: Path) -> Iterator[None]:
    """Hold the lock of an output for the block.

    The kernel gives the lock back when the process ends, however it ends; the file `lock` only
    says whose it is. One that outlived its process is taken over, and that is logged.

    Args:
        out: what is written.
        folder: where the lock is kept; made if need be.

    Raises:
        PipelineError: another process holds the lock.
        PublishError: the folder cannot be made or written.
    """
    path = folder / "lock"
    try:
        handle = _open_locked(path, out)
    except OSError as error:
        raise PublishError(
            f"{out}: cannot be written, nor can {path} ({error.strerror}): choose another output, "
            "or free space and check the folder's permissions"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the lock itself goes with the handle
            path.unlink(missing_ok=True)
            folder.rmdir()  # if it is empty
        os.close(handle)


def _open_locked(path: Path, out: Path) -> int:
    while True:
        make_folders(path.parent)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            continue  # the last holder has just removed the empty folder
        try:
            _lock(handle, out)
            if _is_still(path, handle):  # else its last holder has just removed it
                _sign(handle, path)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(handle) or "another process"
        raise PipelineError(
            f"{out}: is being written by {holder}: wait for it, stop it, or choose another --out"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        log.warning(
            "%s: its file system has no locks (%s): make sure that nothing else writes it",
            out,
            error.strerror,
        )


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sign(handle: int, path: Path) -> None:
    dead = _holder(handle)
    if dead:
        log.warning("%s: left by %s, which has ended; taken over", path, dead)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(record).encode(), 0)


def _holder(handle: int) -> str:
    """Who signed the file, in words; empty if nobody did."""
    try:
        record = json.loads(os.pread(handle, 1000, 0))
        return f"process {record['pid']} on {record['host']} since {record['since']}"
    except (ValueError, LookupError, TypeError):
        return ""

"""Files of unknown origin: what is asked before one is opened, and before its text is shown."""

import stat
from pathlib import Path

from cache import errors
from pipeline.errors import UsageError


def file_problem(path: Path, most: int) -> str:
    """Why a file is not to be opened, without opening it; empty if nothing is wrong.

    A pipe or a device would be waited for, or would never end.

    Args:
        path: the file.
        most: bytes that it may have.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(status.st_mode):
        return "cannot be read (Is a directory)"
    if not stat.S_ISREG(status.st_mode):
        return "cannot be read (a pipe or device, expected a file)"
    if status.st_size > most:
        return f"{status.st_size:,} bytes, expected at most {most:,}"
    return ""


def check_file(path: Path, most: int) -> None:
    """Refuse what is not a file of at most `most` bytes, without opening it.

    Raises:
        UsageError: it is not.
    """
    problem = file_problem(path, most)
    if problem:
        raise UsageError(f"{path}: {problem}")


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a file that has at most `most`.

    Raises:
        UsageError: it has more, or cannot be read.
    """
    check_file(path, most)
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > most:  # it grew, or its size was not that of its content
        raise UsageError(f"{path}: more than {most:,} bytes")
    return content


def printable(text: str, most: int = 200) -> str:
    """At most `most` characters of `text`; those that cannot be shown become escapes."""
    return errors.printable(text[:most] + ("…" if len(text) > most else ""))

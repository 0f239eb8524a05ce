"""The disks that are written to, and what their file systems can do."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.finding import FAULT, NOTE, OK, Finding

AMPLE_BYTES, LEAST_BYTES = 5e9, 0.5e9
"""Free space of a disk: a note below the first, a fault below the second."""


def check_disk(folder: Path) -> Finding:
    """The space in the folder of outputs, and whether it can be written."""
    return _space("disk", folder.absolute(), "choose another folder for outputs")


def check_temporary_folder() -> Finding:
    """The space in the system's temporary folder, and whether it can be written."""
    elsewhere = "set TMPDIR to another folder"
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        return Finding("temporary folder", FAULT, str(error.strerror), elsewhere)
    return _space("temporary folder", folder, elsewhere)


def _space(name: str, folder: Path, elsewhere: str) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        found = f"{folder}: cannot be written ({error.strerror or error})"
        if error.errno == errno.ENOSPC:
            return Finding(name, FAULT, found, f"free space, or {elsewhere}")
        return Finding(name, FAULT, found, f"make it, check its permissions, or {elsewhere}")
    found = f"{folder}: {free / 1e9:.1f} GB free"
    if free >= AMPLE_BYTES:
        return Finding(name, OK, f"{found}, can be written")
    state, expected = (FAULT, LEAST_BYTES) if free < LEAST_BYTES else (NOTE, AMPLE_BYTES)
    found = f"{found}, expected {expected / 1e9:g} GB or more"
    return Finding(name, state, found, f"free space, or {elsewhere}")


def check_file_system(folder: Path) -> Finding:
    """That outputs can be published in the folder: flushed, renamed, linked and locked."""
    from cache.errors import PublishError
    from cache.files import publish

    try:
        scratch = tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder)
    except OSError:
        return Finding("file system", NOTE, "not tried, since the folder cannot be written")
    with scratch:
        probe = Path(scratch.name) / "probe"
        try:
            with publish(probe) as temporary:
                temporary.write_bytes(b"probe")
        except PublishError as error:
            found = f"a file cannot be flushed to the disk and renamed ({error.__cause__})"
            advice = "write outputs to another file system, such as a local disk"
            return Finding("file system", FAULT, found, advice)
        missing = dict(_missing_features(probe))
    if missing:
        found = f"files can be flushed and renamed, but not {' or '.join(missing)}"
        return Finding("file system", NOTE, found, "; ".join(missing.values()))
    return Finding("file system", OK, "files can be flushed, renamed, linked and locked")


def _missing_features(probe: Path) -> Iterator[tuple[str, str]]:
    """What the pipeline can do without, and what then happens, on the file system of a file."""
    import fcntl

    from cache.files import link_durably

    try:
        link_durably(probe.with_name("second"), probe)
    except OSError as error:
        kept = "without hard links the shards of an extraction stay, and take its space twice"
        yield f"linked ({error.strerror or error})", kept
    try:
        with probe.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        alone = "without locks, make sure that no two extractions write the same output"
        yield f"locked ({error.strerror or error})", alone

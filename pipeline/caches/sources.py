"""Whether the image files that a cache was made from are still what they were."""

import hashlib
import os
import stat
from pathlib import Path

from cache import FeatureCache, ImageRow
from cache.errors import printable
from pipeline.ahead import ahead, usable_cpus
from pipeline.progress import Progress, silent


def changed_images(
    cache_file: Path, root: Path, progress: Progress = silent
) -> tuple[list[str], int]:
    """Compare the SHA-256 of every image file with the cache's image table.

    Files are read in pieces, in as many threads as there are CPUs. Pipes and devices are not
    opened.

    Args:
        cache_file: the cache.
        root: folder of the manifest, to which the paths in the table are relative; those that
            are absolute are taken as they are.
        progress: told of each image.

    Returns:
        One line for each image that is missing, cannot be read, or has other content; and the
        number of images in all.

    Raises:
        CacheError: the image table cannot be read.
    """
    with FeatureCache(cache_file) as cache:
        rows = cache.images.rows()
    workers = usable_cpus()
    lines: list[str] = []
    with progress(len(rows), 0) as advance:
        for line in ahead(lambda row: _fault(root, row), rows, workers, window=4 * workers):
            advance(1)
            if line is not None:
                lines.append(line)
    return lines, len(rows)


def _fault(root: Path, row: ImageRow) -> str | None:
    path = root / row.path
    try:
        found = _sha256(path)
    except FileNotFoundError:
        fault = "missing"
    except OSError as error:
        fault = f"cannot be read ({error.strerror or error})"
    except ValueError as error:  # a path that no file can have
        fault = f"cannot be read ({error})"
    else:
        if found == row.sha256:
            return None
        fault = f"has changed: found SHA-256 {found}, expected {row.sha256}"
    return printable(f"image {row.image_id}: {path}: {fault}")


def _sha256(path: Path) -> str:
    # Opening a device can act on it, and opening a pipe can wait for ever.
    _check_regular(path.stat())
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - a handle, not a path
        _check_regular(os.fstat(handle))  # it may have been replaced in between
        os.set_blocking(handle, True)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")

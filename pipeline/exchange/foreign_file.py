"""Read an HDF5 file of unknown origin: its own values only, and never more than it holds."""

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.layout import MAX_CHUNK_BYTES
from pipeline.errors import PipelineError
from pipeline.user_file import file_problem, printable

_MAX_BYTES = 1 << 40
_MAX_TEXT = 200
_FLETCHER32 = 3
_KINDS = {"f": (2, 4), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}
"""Types of numbers that are read, and their sizes in bytes."""


class ForeignFileError(PipelineError):
    """A file cannot be imported; the message says why, without its name."""


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    Raises:
        ForeignFileError: it cannot be opened, or what is read from it in the block is damaged.
    """
    problem = file_problem(path, _MAX_BYTES)
    if problem:
        raise ForeignFileError(problem)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise ForeignFileError(f"not a sound HDF5 file ({printable(str(error))})") from error


def find_array(file: h5py.File, name: str) -> h5py.Dataset:
    """Find a dataset of numbers, two-dimensional and not empty, whose values are in the file.

    Nothing is compressed, so a shape that the file cannot hold is a lie: no memory is given it.

    Raises:
        ForeignFileError: it is not there, or is something else.
    """
    # Links by name may lead to another file, which would then be opened.
    is_own = isinstance(file.get(name, getlink=True), h5py.HardLink)
    found = file[name] if is_own else None
    if not isinstance(found, h5py.Dataset):
        there = printable(", ".join(itertools.islice(file, 20))) or "nothing"
        raise ForeignFileError(f"dataset {name} is missing; found {there}")
    problem = _problem(found)
    if problem:
        raise ForeignFileError(f"dataset {name} {problem}")
    return found


def _problem(found: h5py.Dataset) -> str:
    if found.is_virtual:  # first of all: HDF5 may open other files to know the shape of one
        return "has its values in another file"
    shape, dtype = found.shape, found.dtype
    if dtype.itemsize not in _KINDS.get(dtype.kind, ()):
        return f"is of {dtype}, expected whole numbers, float16 or float32"
    if shape is None or len(shape) != 2 or 0 in shape:
        return f"has the shape {shape}, expected (patches, columns)"
    creation = found.id.get_create_plist()
    if creation.get_external_count():
        return "has its values in another file"
    filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    if filters not in ([], [_FLETCHER32]):
        return "is compressed or filtered: repack it with `h5repack -f NONE`"
    if found.chunks and math.prod(found.chunks) * dtype.itemsize > MAX_CHUNK_BYTES:
        return f"has chunks of {found.chunks}, expected at most {MAX_CHUNK_BYTES:,} bytes"
    size = Path(found.file.filename).stat().st_size
    if found.nbytes > size:
        return f"claims {found.nbytes:,} bytes in a file of {size:,}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = int(found.nbytes)
    return f"takes {needed:,} bytes, this machine has {memory:,}" if needed > memory else ""


def read_features(file: h5py.File, name: str) -> NDArray[np.floating]:
    """The features (n, D), float16 or float32.

    Raises:
        ForeignFileError: they are not, or one is not finite.
    """
    found = find_array(file, name)
    if found.dtype.kind != "f":
        raise ForeignFileError(f"dataset {name} is of {found.dtype}, expected float16 or float32")
    features: NDArray[np.floating] = found[:]
    if not np.isfinite(features).all():
        raise ForeignFileError(f"dataset {name} holds a value that is not finite")
    return features


def read_coords(file: h5py.File, name: str, patches: int) -> NDArray[np.generic]:
    """The coordinates (n, 2), in the file's own type and unit.

    Raises:
        ForeignFileError: they are not such, or not as many as the features.
    """
    found = find_array(file, name)
    if found.shape != (patches, 2):
        raise ForeignFileError(
            f"dataset {name} has the shape {found.shape}, expected ({patches}, 2) beside "
            f"{patches} patches of features"
        )
    coords: NDArray[np.generic] = found[:]
    return coords


def text_attribute(owner: h5py.File | h5py.Dataset, name: str) -> str | None:
    """A text; None if there is no attribute of that name.

    Raises:
        ForeignFileError: it is not a text that can be shown.
    """
    value = _attribute(owner, name)
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _MAX_TEXT:
        shown = printable(str(value), 80)
        raise ForeignFileError(f"attribute {name} is {shown!r}, expected a short text")
    return value


def number_attribute(owner: h5py.File | h5py.Dataset, name: str) -> float | None:
    """A number; None if there is none, or `None` as TRIDENT writes it.

    Raises:
        ForeignFileError: it is something else, or not finite.
    """
    value = _attribute(owner, name)
    if value is None or value == "None":
        return None
    if not isinstance(value, int | float | np.integer | np.floating) or not math.isfinite(value):
        shown = printable(str(value), 80)
        raise ForeignFileError(f"attribute {name} is {shown!r}, expected a number")
    return float(value)


def _attribute(owner: h5py.File | h5py.Dataset, name: str) -> object:
    if name not in owner.attrs:
        return None
    if owner.attrs.get_id(name).shape != ():  # before memory is given to its value
        raise ForeignFileError(f"attribute {name} is not a single value")
    value: object = owner.attrs[name]
    return value

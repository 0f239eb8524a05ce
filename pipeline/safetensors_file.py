"""Safetensors files: write one whose bytes depend on its content alone; look before opening one."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cache.files import publish
from pipeline.errors import UsageError
from pipeline.user_file import check_file, printable

MAX_BYTES = 1 << 31
"""Larger files are refused: a classifier has 1 GiB at most, all of VGG16 has 553 MB."""

MAX_HEADER = 1 << 20
"""Bytes of a header: names, shapes and metadata. That of VGG16 has 3 KB."""


_TYPES = {"f": ("F32", "<f4"), "i": ("I64", "<i8")}
"""How numbers of a kind are called and stored: all float as float32, all whole as int64."""


def write_safetensors(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Publish arrays as a safetensors file, in the order given: float32, or int64 if whole.

    The safetensors package itself writes metadata in an order that differs from run to run.

    Raises:
        PublishError: the file cannot be written.
    """
    header = _header(arrays, metadata)
    with publish(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, dtype=_TYPES[array.dtype.kind][1]).data)


def _header(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, array in arrays.items():
        dtype, stored = _TYPES[array.dtype.kind]
        end = start + np.dtype(stored).itemsize * math.prod(array.shape)
        entries[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)  # so that the arrays are aligned


def check_safetensors(path: Path, most: int = MAX_BYTES) -> None:
    """Check what a file is and how long its header is, so that opening it takes little memory.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        UsageError: it is not a file, cannot be read, or it or its header is too large.
    """
    check_file(path, most)
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if header > MAX_HEADER:
        raise UsageError(
            f"{path}: not a safetensors file, or truncated (its header has {header:,} bytes, "
            f"expected at most {MAX_HEADER:,})"
        )


def read_metadata(path: Path) -> dict[str, str]:
    """Read what the header says of the file, and no array.

    Raises:
        UsageError: it is no safetensors file.
    """
    check_safetensors(path)
    try:
        with safe_open(path, framework="np") as opened:
            file: Any = opened  # the package declares no types for its methods
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: no safetensors file ({printable(str(error))})") from error

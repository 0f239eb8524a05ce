"""Read a whole dataset at the speed of the disk, past HDF5's filters, on all CPUs.

Nothing is checked here: who calls compares what came with the digests of the cache.
"""

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")

MAX_THREADS = 8
_IMAGES_A_TASK = 256


def read_unchecked(path: Path, dataset: h5py.Dataset) -> NDArray[Any] | None:
    """All values of a chunked dataset without compression, as they are in the file.

    Returns:
        The values, or None where they do not lie in the file as expected.
    """
    values: NDArray[Any] = np.empty(dataset.shape, dataset.dtype)
    return values if read_into(path, dataset, values) else None


def read_into(path: Path, dataset: h5py.Dataset, values: NDArray[Any]) -> bool:
    """Read all values of a chunked dataset without compression to an array of its shape and type.

    Returns:
        Whether they lie in the file as expected; if not, the array holds anything.
    """
    rows = dataset.chunks[0]
    places: dict[int, int] = {}  # first row of a chunk → byte of the file

    def note(info: Any) -> None:  # noqa: ANN401 - h5py gives its type no name
        places[info.chunk_offset[0]] = info.byte_offset

    dataset.id.chunk_iter(note)
    starts = range(0, len(values), rows)
    if sorted(places) != list(starts):
        return False
    handle = os.open(path, os.O_RDONLY)
    try:

        def read(start: int) -> bool:
            block = values[start : start + rows]
            there = os.preadv(handle, [block.data.cast("B")], places[start])
            return there == block.nbytes

        return all(_in_threads(read, starts))
    finally:
        os.close(handle)


def read_chunks(dataset: h5py.Dataset, start: int, stop: int) -> NDArray[Any]:
    """Rows `start` to `stop` of a chunked dataset without compression, past HDF5's checksums."""
    rows, width = dataset.chunks[0], dataset.shape[1:]
    first, parts = start // rows * rows, []
    for row in range(first, stop, rows):
        _, stored = dataset.id.read_direct_chunk((row, *(0 for _ in width)))
        parts.append(np.frombuffer(stored, dataset.dtype, rows * math.prod(width)))
    block: NDArray[Any] = np.concatenate(parts).reshape(-1, *width)
    return block[start - first : stop - first]


def digests_fit(
    features: NDArray[Any],
    coords: NDArray[Any],
    offsets: NDArray[np.int64],
    digests: NDArray[np.bytes_],
) -> bool:
    """Whether each image's rows of features and coordinates have the SHA-256 that is theirs."""
    steps = [*range(0, len(digests), _IMAGES_A_TASK), len(digests)]

    def fit(span: tuple[int, int]) -> bool:
        ends = offsets[span[0] : span[1] + 1].tolist()
        for (start, stop), expected in zip(
            pairwise(ends), digests[span[0] : span[1]].tolist(), strict=True
        ):
            digest = sha256(features[start:stop].data)
            digest.update(coords[start:stop].data)
            if digest.hexdigest().encode() != expected:
                return False
        return True

    return all(_in_threads(fit, pairwise(steps)))


def _in_threads(function: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))

"""Write safetensors files whose bytes depend on their content alone."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.files import publish


def write_safetensors(
    path: Path, arrays: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]
) -> None:
    """Publish float32 arrays as a safetensors file, in the order given.

    The safetensors package itself writes metadata in an order that differs from run to run.

    Raises:
        PublishError: the file cannot be written.
    """
    header = _header({name: array.shape for name, array in arrays.items()}, metadata)
    with publish(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, dtype="<f4").data)


def _header(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, shape in shapes.items():
        end = start + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)  # so that the arrays are aligned

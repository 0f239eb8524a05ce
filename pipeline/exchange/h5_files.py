"""Write an HDF5 file an image, for tools that read such."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]
Attributes = Mapping[str, str | int | float]


@dataclass(frozen=True, eq=False)
class Content:
    """What one file holds.

    Attributes:
        arrays: name of a dataset → its values.
        attributes: name of a dataset, or `/` for the file → its attributes.
    """

    arrays: Arrays
    attributes: Mapping[str, Attributes] = field(default_factory=dict)


def write_h5(path: Path, content: Content) -> None:
    """Write a file.

    Raises:
        OSError: the disk refused it.
    """
    memory = io.BytesIO()  # HDF5 does not survive a disk that is full
    with h5py.File(memory, "w") as file:
        for name, values in content.arrays.items():
            file.create_dataset(name, data=values)
        for name, attributes in content.attributes.items():
            file[name].attrs.update(attributes)
    path.write_bytes(memory.getbuffer())

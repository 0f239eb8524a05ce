"""Open a file that should be a cache, and say what is wrong if it cannot be."""

import os
from pathlib import Path
from typing import Literal

import h5py

from cache.errors import CacheDamagedError, CacheError, CacheFormatError
from cache.file_seal import MEND, SEAL_BROKEN, check_block, file_seal_fits

SealCheck = Literal["absent", "present", "whole"]


def open_file(path: Path, seal: SealCheck) -> h5py.File:
    """Open an HDF5 file for reading, its seal looked at as `FeatureCache` describes.

    Raises:
        CacheFormatError: there is no file, or something else.
        CacheDamagedError: the file is damaged.
        CacheError: the file cannot be read.
    """
    if not path.is_file():
        raise CacheFormatError(f"{path}: no such file: make it with `pipeline extract`")
    try:
        if seal != "absent":
            check_block(path)
        if seal == "whole" and not file_seal_fits(path):
            raise CacheDamagedError(f"{path}: {SEAL_BROKEN}: {MEND}")
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise CacheError(f"{path}: cannot be read ({os.strerror(error.errno)})") from error
        raise CacheDamagedError(
            f"{path}: damaged or cut short, it cannot be opened: copy it again, or extract again"
        ) from error

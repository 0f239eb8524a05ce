"""Make HDF5 open a file that another one names, and notice it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

_IN_OPEN = 0x20


@contextmanager
def never_opened(*files: Path) -> Iterator[None]:
    """Fail if one of some existing files is opened in the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    try:
        for file in files:
            assert libc.inotify_add_watch(handle, os.fsencode(file), _IN_OPEN) > 0, file
        yield
        try:
            raise AssertionError(f"opened: {os.read(handle, 4096)!r}")
        except BlockingIOError:
            pass
    finally:
        os.close(handle)


def replace_by_endless(file: h5py.File, name: str, secret: Path) -> None:
    """Replace a dataset by a virtual one as long as its source, which HDF5 opens to know that."""
    old = file[name]
    shape, dtype, longest = old.shape, old.dtype, (None, *old.shape[1:])
    layout = h5py.VirtualLayout(shape, dtype, maxshape=longest)
    source = h5py.VirtualSource(str(secret), "features", shape, maxshape=longest)
    layout[0 : h5py.h5s.UNLIMITED] = source[0 : h5py.h5s.UNLIMITED]
    del file[name]
    file.create_virtual_dataset(name, layout)

"""The disk, as HDF5 sees it: errors are kept until HDF5 has closed the file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """A file for h5py's `fileobj` driver, whose operations never fail.

    A process in which HDF5 could not close a file, because the disk was full or broken, crashes
    when it ends. So the first error is kept, what is written afterwards stays in memory, and
    `raise_error` tells. Whoever writes must ask it often, so that little is kept.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0
        self._size = os.fstat(descriptor).st_size
        self._error: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []

    def raise_error(self) -> None:
        """Raise what the disk answered, if it refused anything.

        Raises:
            OSError: the first error.
        """
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, as the file object that h5py expects does; so the next ones."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def write(self, data: memoryview) -> int:
        """Write at the position."""
        start, length = self._position, len(data)
        if self._error is None:
            self._attempt(start, data)
        if self._error is not None:
            self._unwritten.append((start, bytes(data)))
        self._position += length
        self._size = max(self._size, self._position)
        return length

    def _attempt(self, start: int, data: memoryview) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], start + done)
        except OSError as error:
            self._error = error

    def readinto(self, buffer: memoryview) -> int:
        """Read from the position; what lies beyond the end is zero."""
        start, length = self._position, len(buffer)
        try:
            found = os.pread(self._descriptor, length, start)
        except OSError as error:
            self._error = self._error or error
            found = b""
        buffer[:] = found.ljust(length, b"\0")
        for at, data in self._unwritten:
            first, last = max(at, start), min(at + len(data), start + length)
            if first < last:
                buffer[first - start : last - start] = data[first - at : last - at]
        self._position += length
        return length

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._error = self._error or error
        self._size = size
        return size

    def flush(self) -> None:
        """Do nothing: `cache.files.publish` flushes the file when it is closed."""


@contextmanager
def open_disk(path: Path) -> Iterator[Disk]:
    """Open an existing file to be written by HDF5.

    Raises:
        OSError: the disk refused something; raised after HDF5 closed the file.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        disk = Disk(descriptor)
        yield disk
        disk.raise_error()
    finally:
        os.close(descriptor)

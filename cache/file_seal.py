"""The seal over a whole file: a SHA-256 of all its bytes, in a block before the HDF5 content."""

import hashlib
from pathlib import Path

from cache.errors import CacheDamagedError, CacheFormatError

BLOCK_BYTES = 512
"""Length of the block: the least that HDF5 skips to find its content."""

_HEADING = b"patch-feature-cache file seal\nsha256 "
_HDF5 = b"\x89HDF\r\n\x1a\n"
SEAL_BROKEN = "its bytes are not those that were written (SHA-256 of the whole file)"
MEND = "see what with `pipeline cache verify`, mend it with `pipeline cache repair`"


def write_file_seal(path: Path) -> None:
    """Fill the block at the start of a closed file, whose first `BLOCK_BYTES` bytes are unused."""
    digest = _digest(path)
    with path.open("r+b") as file:
        file.write(_block(digest))


def check_block(path: Path) -> None:
    """Check that the block is there, without reading the rest of the file.

    Raises:
        CacheDamagedError: the block, or the beginning of the content, is not as it was written.
        CacheFormatError: there is neither.
    """
    declared_seal(path)


def declared_seal(path: Path) -> str:
    """The SHA-256 in the block, without reading the rest of the file.

    Raises:
        CacheDamagedError: the block, or the beginning of the content, is not as it was written.
        CacheFormatError: there is neither.
    """
    with path.open("rb") as file:
        block, content = file.read(BLOCK_BYTES), file.read(len(_HDF5))
    digest = block[len(_HEADING) : len(_HEADING) + 64].decode("ascii", "replace")
    if content == _HDF5 and block == _block(digest):
        return digest
    if content == _HDF5 or block.startswith(_HEADING):
        raise CacheDamagedError(f"{path}: damaged in its first bytes, the file seal: {MEND}")
    if block.startswith(_HDF5):
        raise CacheFormatError(f"{path}: HDF5, but not a feature cache (no file seal)")
    raise CacheFormatError(f"{path}: not an HDF5 file, expected a feature cache")


def file_seal_fits(path: Path) -> bool:
    """Read all of a file whose block is there, and compare it with its seal."""
    with path.open("rb") as file:
        declared = file.read(BLOCK_BYTES)
    return declared == _block(_digest(path))


def _block(digest: str) -> bytes:
    return (_HEADING + digest.encode() + b"\n").ljust(BLOCK_BYTES, b"\0")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(BLOCK_BYTES)
        return hashlib.file_digest(file, "sha256").hexdigest()

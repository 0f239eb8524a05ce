"""The shards that hold the features of a virtual cache: their names, and that they are there."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cache.errors import CacheDamagedError, CacheError
from cache.file_seal import SEAL_BROKEN, declared_seal, file_seal_fits
from cache.schema import canonical_json

ATTRIBUTE = "sources"
_NAMED = 3
_MEND = (
    "put these shards back where they were (they are named relative to the folder of this file, "
    "so move the folder as one), or merge again with `pipeline cache merge --virtual`"
)


class Source(NamedTuple):
    """A shard that holds some rows of the features of a virtual cache.

    Attributes:
        name: the file, relative to the folder of the virtual cache, with `/` between its parts.
        rows: number of rows of its features.
        size: of the file, in bytes.
        seal: SHA-256 that its file seal declares.
    """

    name: str
    rows: int
    size: int
    seal: str


def describe_source(shard: Path, folder: Path, rows: int) -> Source:
    """A shard as a virtual cache in `folder` names it.

    Raises:
        CacheError: it does not lie in or below the folder, or its name cannot be kept.
    """
    return Source(_name(shard, folder), rows, shard.stat().st_size, declared_seal(shard))


def _name(shard: Path, folder: Path) -> str:
    for seen in (Path.absolute, Path.resolve):
        if not seen(shard).is_relative_to(seen(folder)):
            continue
        name = seen(shard).relative_to(seen(folder)).as_posix()
        try:
            _check_name(name)
        except ValueError as error:
            raise CacheError(f"{shard}: {error}: rename it, or merge without --virtual") from error
        return name
    raise CacheError(
        f"{shard}: not in or below {folder.absolute()}, expected there, as a virtual cache and its "
        "shards are moved as one folder: choose an --out above the shards, or merge without "
        "--virtual"
    )


def to_json(sources: Iterable[Source]) -> str:
    """The content of the attribute `sources`."""
    return canonical_json([list(source) for source in sources])


def read_sources(text: str) -> list[Source]:
    """Read the attribute `sources`.

    Raises:
        ValueError: it is not a list of sources, or one is named that may lie anywhere.
    """
    found = json.loads(text)
    if not isinstance(found, list) or not found or not all(_is_source(entry) for entry in found):
        raise ValueError("sources are not lists of a name, rows, bytes and a SHA-256")
    sources = [Source(*entry) for entry in found]
    for source in sources:
        _check_name(source.name)
    if len({source.name for source in sources}) < len(sources):
        raise ValueError("a source is there twice")
    return sources


def _is_source(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != len(Source._fields):
        return False
    name, rows, size, seal = entry
    numbers = all(type(n) is int and 0 < n < 2**63 for n in (rows, size))
    texts = isinstance(name, str) and isinstance(seal, str) and len(seal) == 64
    return numbers and texts and not set(seal) - set("0123456789abcdef")


def _check_name(name: str) -> None:
    """Check that a name leads nowhere but below the folder, for HDF5 too, to which % is a rule."""
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and not set(name) & set("\\%") and "/".join(parts) == name
    if not parts or ".." in parts or not plain:
        raise ValueError(
            f"source {name[:200]!r} is not a plain relative path: without .., \\, % and characters "
            "that cannot be shown"
        )


def check_sources(path: Path, sources: Sequence[Source]) -> None:
    """Check that each source is there and the one that was merged, by its size and file seal.

    Raises:
        CacheDamagedError: which are not, with what was found.
    """
    _refuse(path, sources, _problem)


def check_contents(path: Path, sources: Sequence[Source]) -> None:
    """Read all of each source and compare it with its file seal, which is known to be right.

    Raises:
        CacheDamagedError: which do not fit.
    """
    _refuse(path, sources, content_problem)


def _refuse(
    path: Path, sources: Sequence[Source], problem: Callable[[Path, Source], str | None]
) -> None:
    problems = [text for text in (problem(path.parent, source) for source in sources) if text]
    if problems:
        more = len(problems) - _NAMED
        named = "; ".join(problems[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise CacheDamagedError(
            f"{path}: of the {len(sources)} shards that hold its features, {len(problems)} are "
            f"not those that were merged: {named}: {_MEND}"
        )


def _problem(folder: Path, source: Source) -> str | None:
    file = folder / source.name
    try:
        if not file.is_file():  # a pipe would be waited for
            return f"{file} is missing"
        size = file.stat().st_size
        if size != source.size:
            return f"{file} has {size:,} bytes, expected {source.size:,}"
        seal = declared_seal(file)
    except OSError as error:
        return f"{file} cannot be read ({os.strerror(error.errno or 0)})"
    except CacheError as error:
        return str(error)
    if seal == source.seal:
        return None
    return f"{file} is another file (file seal {seal[:12]}…, expected {source.seal[:12]}…)"


def content_problem(folder: Path, source: Source) -> str | None:
    """What is wrong with the bytes of a source, None if they are those that it was sealed with."""
    file = folder / source.name
    try:
        return None if file_seal_fits(file) else f"{file}: {SEAL_BROKEN}"
    except OSError as error:
        return f"{file} cannot be read ({os.strerror(error.errno or 0)})"

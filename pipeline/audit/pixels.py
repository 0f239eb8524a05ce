"""Where an audit learns of pixels: from a cache that holds their statistics, or from the files."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import FeatureCache
from cache.schema import ImageRow
from cache.statistics import ImageStatistics, Statistics
from pipeline.ahead import ahead, usable_cpus
from pipeline.audit.finding import MAX_EXAMPLES, SUSPECT, Finding, counted
from pipeline.dataset.images import ImageError
from pipeline.dataset.manifest import image_path
from pipeline.dataset.picture import open_picture
from pipeline.dataset.statistics import RunningStatistics
from pipeline.errors import UsageError
from pipeline.progress import Progress, silent

_MAX_WORKERS = 8

_PART_BYTES = 1 << 26
"""Features that are read at once."""


class KnownPixels(NamedTuple):
    """Statistics of some images: their positions, rising, and what was found on the way."""

    images: list[int]
    statistics: Statistics
    findings: list[Finding]


class _Measured(NamedTuple):
    """An image's statistics or why there are none, and whether its file is another one."""

    statistics: ImageStatistics | None
    reason: str
    changed: bool


def places_in_cache(cache: FeatureCache, rows: Sequence[ImageRow]) -> dict[int, int]:
    """Position in `rows` → position in the cache, of the images that it holds, rising.

    Raises:
        UsageError: it holds none of them, or other files under their names.
    """
    stored = {row.image_id: (place, row) for place, row in enumerate(cache.images.rows())}
    found = {i: stored[row.image_id] for i, row in enumerate(rows) if row.image_id in stored}
    others = [row.image_id for i, (_, row) in found.items() if row.sha256 != rows[i].sha256]
    if others or not found:
        wrong = f"{len(others)} images of the manifest are of other files" if others else "no image"
        raise UsageError(
            f"{cache.path}: {wrong} there ({', '.join(others[:3]) or 'none of the manifest'}): "
            "give the cache that was made from this manifest, or leave out --cache"
        )
    return {i: place for i, (place, _) in found.items()}


def pixels_in_cache(cache: FeatureCache, places: dict[int, int]) -> KnownPixels | None:
    """The statistics of the images at `places`; None if the cache holds none."""
    stored = cache.statistics
    if stored is None:
        return None
    order = list(places.values())
    chosen = Statistics(
        stored.colour[order], stored.perceptual_hash[order], stored.pixels_sha256[order]
    )
    return KnownPixels(list(places), chosen, [])


def pixels_in_files(
    manifest: Path, rows: Sequence[ImageRow], progress: Progress = silent
) -> KnownPixels:
    """Read the images that a manifest names. One that cannot be read is a finding."""

    def measure(row: ImageRow) -> _Measured:
        return _measure(image_path(manifest, row), row.sha256)

    images, measured = [], []
    unreadable, changed = [], []
    workers = min(_MAX_WORKERS, usable_cpus())  # Pillow, hashlib and NumPy let other threads run
    with progress(len(rows), 0) as advance:
        for i, found in enumerate(ahead(measure, rows, workers, window=2 * workers)):
            advance(1)
            if found.changed:
                changed.append(rows[i].image_id)
            if found.statistics is None:
                unreadable.append(f"{rows[i].image_id}: {found.reason}")
            else:
                images.append(i)
                measured.append(found.statistics)
    findings = [
        Finding(kind, SUSPECT, len(names), text, tuple(names[:MAX_EXAMPLES]))
        for kind, names, text in (
            ("unreadable", unreadable, f"{counted(len(unreadable), 'image')} cannot be read"),
            ("changed", changed, f"{counted(len(changed), 'file')} changed since it was indexed"),
        )
        if names
    ]
    return KnownPixels(images, Statistics.stack(measured), findings)


def _measure(path: Path, sha256: str) -> _Measured:
    try:
        picture = open_picture(path)
        running = RunningStatistics(picture.height, picture.width)
        for band in picture.bands():
            running.add(band)
    except ImageError as error:
        return _Measured(None, str(error), _is_other(path, sha256))
    return _Measured(running.result(), "", picture.sha256 != sha256)


def _is_other(path: Path, sha256: str) -> bool:
    """Whether a file, which is no image, is another than the one it is said to be."""
    if not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() != sha256
    return False


def mean_features(cache: FeatureCache, places: Sequence[int]) -> NDArray[np.float32]:
    """The mean over the patches of each image at `places` in the cache, (n, D) float32."""
    offsets, width = cache.offsets, cache.recipe.feature_dim
    means = np.empty((len(places), width), np.float32)
    position = np.full(len(cache), -1, np.int64)
    position[list(places)] = np.arange(len(places))
    rows = max(1, _PART_BYTES // (4 * width))
    start = 0
    while start < len(cache):
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + rows, "right")) - 1)
        wanted = position[start:stop]
        if (wanted >= 0).any():
            block = cache.features(int(offsets[start]), int(offsets[stop])).astype(np.float32)
            sums = np.add.reduceat(block, offsets[start:stop] - offsets[start], axis=0)
            found = sums / np.diff(offsets[start : stop + 1])[:, None]
            means[wanted[wanted >= 0]] = found[wanted >= 0]
        start = stop
    return means

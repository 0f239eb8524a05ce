"""Audit the split of a manifest's images: read, compare, and fit the probe."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache import FeatureCache
from cache.files import publish
from cache.schema import ImageRow
from pipeline.audit.audit import Audit, audit
from pipeline.audit.foreign import read_foreign
from pipeline.audit.pixels import (
    KnownPixels,
    mean_features,
    pixels_in_cache,
    pixels_in_files,
    places_in_cache,
)
from pipeline.audit.probe import Probe, probe
from pipeline.dataset.manifest import read_manifest
from pipeline.progress import Progress, silent
from pipeline.splits.table import Splits

_MAX_PROBED = 20_000
"""Images that the probe is fitted and tested on; of more, so many are drawn."""


def audit_files(
    manifest: Path,
    splits: Path,
    cache: Path | None = None,
    out: Path | None = None,
    reading: Progress = silent,
    comparing: Progress = silent,
) -> Audit:
    """Audit a split, of whatever origin.

    Args:
        manifest: the images.
        splits: their roles, see `read_foreign`.
        cache: features of the images: a quick classifier is fitted to them, and the statistics of
            pixels are taken from it if it holds any. Without, the image files are read.
        out: where the audit is written as JSON, if anywhere.
        reading: told of each image file that is read.
        comparing: told of the comparison of images.

    Raises:
        UsageError: a file is not what it should be, or the cache is of other images.
        CacheError: the cache is damaged.
        PublishError: `out` cannot be written.
    """
    rows = read_manifest(manifest)
    foreign = read_foreign(splits, rows)
    known, claims = None, None
    if cache is not None:
        known, claims = _from_cache(cache, rows, foreign.splits)
    if known is None:
        known = pixels_in_files(manifest, rows, reading)
    found = audit(
        rows,
        foreign.splits,
        known.statistics,
        images=known.images,
        numbers=foreign.numbers,
        known=[*foreign.findings, *known.findings],
        progress=comparing,
    )
    found = replace(found, probe=claims)
    if out is not None:
        with publish(out) as temporary:
            temporary.write_text(found.to_json() + "\n", encoding="utf-8")
    return found


def _from_cache(
    path: Path, rows: Sequence[ImageRow], splits: Splits
) -> tuple[KnownPixels | None, Probe]:
    with FeatureCache(path, seal="whole") as cache:
        places = places_in_cache(cache, rows)
        known = pixels_in_cache(cache, places)
        chosen = np.array(list(places), np.int64)
        if len(chosen) > _MAX_PROBED:
            chosen = np.sort(np.random.default_rng(0).choice(chosen, _MAX_PROBED, replace=False))
        features = mean_features(cache, [places[i] for i in chosen.tolist()])
    return known, probe(features, [rows[i] for i in chosen.tolist()], splits)

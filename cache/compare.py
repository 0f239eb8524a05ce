"""Say in what two caches differ."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.reader import FeatureCache
from cache.schema import Failure, ShardPlace
from cache.statistics import ImageStatistics
from cache.verify import check

_BLOCK_VALUES = 2**21


class FeatureDifference(NamedTuple):
    """How the features of an image differ.

    Attributes:
        patches: patches with a feature that is not the same, bit for bit.
        absolute: the largest |a − b|.
        relative: the largest |a − b| / max(|a|, |b|).
    """

    patches: int
    absolute: float
    relative: float


@dataclass(frozen=True)
class ImageDifference:
    """How an image that both caches hold differs.

    Attributes:
        image_id: the image.
        columns: column of the image table → its two values.
        patches: its two numbers of patches, if they differ; coords and features are compared
            only if they do not.
        coords: patches at another position.
        features: None if they are the same, or cannot be compared.
        statistics: names of the statistics that differ, if both caches hold statistics.
    """

    image_id: str
    columns: Mapping[str, tuple[object, object]]
    patches: tuple[int, int] | None
    coords: int
    features: FeatureDifference | None
    statistics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """In what two caches, A and B, differ. Pairs are (that of A, that of B).

    Attributes:
        recipe: field → its two values.
        common: number of images in both.
        only_a: ids of the images that B does not hold, in A's order.
        only_b: ids of the images that A does not hold, in B's order.
        moved: (id, position in A, position in B) of the images in both that do not have the
            same rank among them.
        images: images in both that differ, in A's order.
        failures: id → its two entries, None where there is none.
        failures_reordered: the same failures, in another order.
        statistics: whether each holds statistics of its images, if only one does.
        shard: the two places, if they differ; None for a whole cache.
        provenance: key → its two texts, None where there is none. Does not count.
        format_version: the two versions, if they differ. Does not count.
    """

    recipe: Mapping[str, tuple[object, object]]
    common: int
    only_a: list[str]
    only_b: list[str]
    moved: list[tuple[str, int, int]]
    images: list[ImageDifference]
    failures: Mapping[str, tuple[Failure | None, Failure | None]]
    failures_reordered: bool
    statistics: tuple[bool, bool] | None
    shard: tuple[ShardPlace | None, ShardPlace | None] | None
    provenance: Mapping[str, tuple[str | None, str | None]]
    format_version: tuple[str, str] | None

    @property
    def features_compared(self) -> bool:
        """Whether features of both have the same length."""
        return "feature_dim" not in self.recipe

    @property
    def same(self) -> bool:
        """Whether nothing that counts differs."""
        lists = (self.only_a, self.only_b, self.moved, self.images, self.failures_reordered)
        pairs = (self.recipe, self.failures, self.statistics, self.shard)
        return not (any(pairs) or any(lists))


def compare(path_a: Path | str, path_b: Path | str) -> Comparison:
    """Compare two caches, or shards, completely.

    Images are matched by their id. Features are compared bit for bit, in the wider type if the
    types differ. Reads blocks: memory does not grow with the number of patches.

    Raises:
        CacheError: one is not a sound cache; every value of both is checked first.
    """
    check(path_a)
    check(path_b)
    with FeatureCache(path_a) as a, FeatureCache(path_b) as b:
        pairs = _Pairs.of(a, b)
        failures_a = {failure.image_id: failure for failure in a.failures}
        failures_b = {failure.image_id: failure for failure in b.failures}
        versions = a.attributes["format_version"], b.attributes["format_version"]
        return Comparison(
            recipe=_differing(dataclasses.asdict(a.recipe), dataclasses.asdict(b.recipe)),
            common=len(pairs.a),
            only_a=_without(a, b),
            only_b=_without(b, a),
            moved=_moved(a, pairs),
            images=list(_image_differences(a, b, pairs)),
            failures=_differing(failures_a, failures_b),
            failures_reordered=failures_a == failures_b and a.failures != b.failures,
            statistics=_statistics_of_one(a, b),
            shard=None if a.shard == b.shard else (a.shard, b.shard),
            provenance=_differing(a.provenance, b.provenance),
            format_version=None if len(set(versions)) == 1 else versions,
        )


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def _statistics_of_one(a: FeatureCache, b: FeatureCache) -> tuple[bool, bool] | None:
    """An empty cache holds no statistics, as there is nothing to hold them of."""
    there = a.statistics is not None, b.statistics is not None
    return there if len(a) and len(b) and there[0] != there[1] else None


def _without(cache: FeatureCache, other: FeatureCache) -> list[str]:
    there = set(other.images["image_id"].tolist())
    return [image_id for image_id in cache.images["image_id"].tolist() if image_id not in there]


@dataclass(frozen=True)
class _Pairs:
    """Positions (M,) in A and in B of the images in both, in A's order."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]

    @classmethod
    def of(cls, a: FeatureCache, b: FeatureCache) -> "_Pairs":
        in_b = {image_id: i for i, image_id in enumerate(b.images["image_id"].tolist())}
        ids = enumerate(a.images["image_id"].tolist())
        pairs = [(i, in_b[image_id]) for i, image_id in ids if image_id in in_b]
        both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return cls(both[:, 0], both[:, 1])


def _moved(a: FeatureCache, pairs: _Pairs) -> list[tuple[str, int, int]]:
    ids, rank_in_b = a.images["image_id"], np.argsort(np.argsort(pairs.b))
    moved = np.flatnonzero(rank_in_b != np.arange(len(rank_in_b)))
    return [(ids[pairs.a[k]], int(pairs.a[k]), int(pairs.b[k])) for k in moved]


def _image_differences(
    a: FeatureCache, b: FeatureCache, pairs: _Pairs
) -> Iterator[ImageDifference]:
    rows_a, rows_b = a.images.rows(), b.images.rows()
    lengths_a, lengths_b = np.diff(a.offsets)[pairs.a], np.diff(b.offsets)[pairs.b]
    found = _Found(len(pairs.a))
    for run in _runs(pairs, lengths_a == lengths_b):
        _compare_run(a, b, pairs, run, found)
    for k, (i, j) in enumerate(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)):
        row_a, row_b = rows_a[i], rows_b[j]
        same_length = lengths_a[k] == lengths_b[k]
        statistics = _differing_statistics(a, b, i, j)
        changed = row_a != row_b or found.coords[k] or found.patches[k] or statistics
        if same_length and not changed:
            continue
        yield ImageDifference(
            image_id=row_a.image_id,
            columns=_differing(row_a._asdict(), row_b._asdict()),
            patches=None if same_length else (int(lengths_a[k]), int(lengths_b[k])),
            coords=int(found.coords[k]),
            features=found.features(k),
            statistics=statistics,
        )


def _differing_statistics(a: FeatureCache, b: FeatureCache, i: int, j: int) -> tuple[str, ...]:
    if a.statistics is None or b.statistics is None:
        return ()
    mine, theirs = a.statistics[i], b.statistics[j]
    return tuple(
        name
        for name in ImageStatistics._fields
        if not np.array_equal(getattr(mine, name), getattr(theirs, name))
    )


class _Found:
    """What was found so far for each of M pairs of images: numbers of patches, and maxima."""

    def __init__(self, pairs: int) -> None:
        self.coords = np.zeros(pairs, np.int64)
        self.patches = np.zeros(pairs, np.int64)
        self.absolute = np.zeros(pairs)
        self.relative = np.zeros(pairs)

    def features(self, k: int) -> FeatureDifference | None:
        if not self.patches[k]:
            return None
        return FeatureDifference(
            int(self.patches[k]), float(self.absolute[k]), float(self.relative[k])
        )


def _runs(pairs: _Pairs, comparable: NDArray[np.bool_]) -> Iterator[slice]:
    """Longest stretches of pairs whose rows lie one after another in both files."""
    follows = (np.diff(pairs.a) == 1) & (np.diff(pairs.b) == 1)
    follows &= comparable[1:] & comparable[:-1]
    bounds = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(comparable)]
    for first, last in pairwise(bounds):
        if first < last and comparable[first]:
            yield slice(first, last)


def _compare_run(
    a: FeatureCache, b: FeatureCache, pairs: _Pairs, run: slice, found: _Found
) -> None:
    first_a, first_b = pairs.a[run.start], pairs.b[run.start]
    ends = a.offsets[first_a : pairs.a[run.stop - 1] + 2] - a.offsets[first_a]
    block = max(1, _BLOCK_VALUES // max(a.recipe.feature_dim, b.recipe.feature_dim))
    for start in range(0, int(ends[-1]), block):
        stop = min(start + block, int(ends[-1]))
        span_a = (start + a.offsets[first_a], stop + a.offsets[first_a])
        span_b = (start + b.offsets[first_b], stop + b.offsets[first_b])
        owner = np.searchsorted(ends, np.arange(start, stop), side="right") - 1 + run.start
        moved = (a.all_coords(*span_a) != b.all_coords(*span_b)).any(axis=1)
        np.add.at(found.coords, owner[moved], 1)
        if a.recipe.feature_dim == b.recipe.feature_dim:
            _compare_features(a.features(*span_a), b.features(*span_b), owner, found)


def _compare_features(
    a: NDArray[np.floating], b: NDArray[np.floating], owner: NDArray[np.int64], found: _Found
) -> None:
    """Note how rows (n, D) of two files differ, for the pairs `owner` (n,) that they belong to."""
    wider = np.result_type(a, b)
    bits_a = a.astype(wider, copy=False).view(f"u{wider.itemsize}")
    bits_b = b.astype(wider, copy=False).view(f"u{wider.itemsize}")
    rows = np.flatnonzero((bits_a != bits_b).any(axis=1))
    wide_a, wide_b = a[rows].astype(np.float64), b[rows].astype(np.float64)
    absolute = np.abs(wide_a - wide_b)
    scale = np.maximum(np.abs(wide_a), np.abs(wide_b))
    relative = np.divide(absolute, scale, out=np.zeros_like(scale), where=scale > 0)
    np.add.at(found.patches, owner[rows], 1)
    np.maximum.at(found.absolute, owner[rows], absolute.max(axis=1, initial=0))
    np.maximum.at(found.relative, owner[rows], relative.max(axis=1, initial=0))

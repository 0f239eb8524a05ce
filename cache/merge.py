"""Join shards into one cache."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.errors import CacheError, RecipeError
from cache.reader import FeatureCache
from cache.schema import TEXT_COLUMNS, Recipe, ShardPlace
from cache.sources import Source, describe_source
from cache.table import Widths
from cache.writer import CacheWriter, write_cache


def merge(
    shards: Sequence[Path],
    out: Path | str,
    provenance: Mapping[str, str],
    place: ShardPlace | None = None,
) -> None:
    """Join all shards of one extraction, in the order of their places.

    Args:
        shards: the files, in any order.
        out: the cache to publish.
        provenance: that of the whole.
        place: of the whole in a larger cache, if it is a shard itself.

    Raises:
        RecipeError: two shards were made by different recipes.
        CacheError: a shard is missing, damaged, there twice, or belongs to another extraction.
        PublishError: `out` cannot be written.
    """
    _write(_in_order(shards), out, provenance, place)


def merge_virtual(shards: Sequence[Path], out: Path | str, provenance: Mapping[str, str]) -> None:
    """Join all shards of one extraction to a cache that refers to their features.

    Everything else is in the cache itself. Shards are read one after another, whole and checked.

    Args:
        shards: the files, in any order, in or below the folder of `out`. They must stay there, as
            they are.
        out: the cache to publish.
        provenance: that of the whole.

    Raises:
        RecipeError: two shards were made by different recipes.
        CacheError: a shard is missing, damaged, there twice, belongs to another extraction, or
            lies elsewhere; or none has features.
        PublishError: `out` cannot be written.
    """
    ordered, out = _in_order(shards), Path(out)
    if out.exists() and any(path.samefile(out) for path in ordered):
        raise CacheError(f"{out}: is a shard, whose features would be lost: choose another output")
    sources = [source for path in ordered for source in _sources(path, out.parent)]
    if not sources:
        raise CacheError(f"{out}: no shard holds features: merge without --virtual")
    _write(ordered, out, provenance, None, sources)


def _write(
    ordered: Sequence[Path],
    out: Path | str,
    provenance: Mapping[str, str],
    place: ShardPlace | None,
    sources: Sequence[Source] = (),
) -> None:
    with FeatureCache(ordered[0]) as first:
        recipe = first.recipe
    with write_cache(out, recipe, provenance, place, _widths(ordered), sources) as writer:
        for path in ordered:
            _append(writer, path)


def _sources(shard: Path, folder: Path) -> list[Source]:
    """The shard as a source, unless it has no features."""
    with FeatureCache(shard) as file:
        return [describe_source(shard, folder, file.patches)] if file.patches else []


def _widths(shards: Sequence[Path]) -> Widths:
    """Bytes of the longest text of each column in all shards."""
    widths = dict.fromkeys(TEXT_COLUMNS, 1)
    for path in shards:
        with FeatureCache(path) as shard:
            for name in TEXT_COLUMNS:
                widths[name] = max(widths[name], shard.text_width(name))
    return widths


def _append(writer: CacheWriter, path: Path) -> None:
    with FeatureCache(path, seal="whole") as shard:
        features, coords, offsets = shard.load(), shard.all_coords(), shard.offsets
        statistics = shard.statistics
        for i, row in enumerate(shard.images.rows()):
            span = slice(offsets[i], offsets[i + 1])
            writer.append(row, features[span], coords[span], statistics[i] if statistics else None)
        for failure in shard.failures:
            writer.fail(failure)


def _in_order(shards: Sequence[Path]) -> list[Path]:
    if not shards:
        raise CacheError("no shard was given: nothing to merge")
    first, whole = _recipe_and_place(shards[0])
    paths: dict[int, Path] = {}
    for path in shards:
        recipe, place = _recipe_and_place(path)
        differences = first.differences(recipe)
        if differences:
            raise RecipeError(f"{path}: recipe differs from {shards[0]}: {'; '.join(differences)}")
        if (place.total, place.plan) != (whole.total, whole.plan):
            raise CacheError(f"{path}: belongs to another extraction than {shards[0]}")
        if place.number in paths:
            raise CacheError(f"{path}: shard {place.number} is also {paths[place.number]}")
        paths[place.number] = path
    missing = [number for number in range(whole.total) if number not in paths]
    if missing:
        raise CacheError(f"{shards[0].parent}: {len(missing)} of {whole.total} shards missing")
    return [paths[number] for number in range(whole.total)]


def _recipe_and_place(path: Path) -> tuple[Recipe, ShardPlace]:
    with FeatureCache(path) as shard:
        if shard.shard is None:
            raise CacheError(f"{path}: not a shard, but a whole cache")
        return shard.recipe, shard.shard

"""Whether an output that exists already is what would be made now, and if not, why."""

from collections.abc import Sequence
from pathlib import Path

from cache import RELABELLED, CacheError, FeatureCache, ImageRow, Recipe, ShardPlace, check
from pipeline.errors import UsageError

_NAMED = 3


def check_existing(
    out: Path,
    recipe: Recipe,
    rows: Sequence[ImageRow],
    allow_failures: int,
    place: ShardPlace | None = None,
) -> None:
    """Accept an output that is what would be made now, to the last value.

    Args:
        out: the output.
        recipe: that is asked for.
        rows: the images that are asked for.
        allow_failures: images that may have no features.
        place: in a larger cache.

    Raises:
        UsageError: it is damaged, or something else, with every difference.
    """
    try:
        check(out)
        with FeatureCache(out) as cache:
            differences = _differences(cache, recipe, rows, allow_failures)
            if cache.shard != place:
                differences.append(f"shard: {_named(place)}, {_named(cache.shard)}")
    except CacheError as error:
        raise UsageError(
            f"{error} (the output exists already: mend it with `pipeline cache repair`, choose "
            "another --out, or give --overwrite, which uses what is intact in it)"
        ) from error
    if differences:
        raise UsageError(
            f"{out}: exists and is not what was asked for (asked for, found): "
            f"{'; '.join(differences)}: choose another --out, or give --overwrite"
        )


def _named(place: ShardPlace | None) -> str:
    if place is None:
        return "a whole cache"
    return f"{place.number + 1}/{place.total} of the images {place.plan[:8]}…"


def _differences(
    cache: FeatureCache, recipe: Recipe, rows: Sequence[ImageRow], allow_failures: int
) -> list[str]:
    failed = {failure.image_id for failure in cache.failures}
    lines = recipe.differences(cache.recipe)
    if len(cache) and not cache.has_statistics:
        version = cache.attributes["format_version"]
        lines.append(f"statistics of the images: of every one, none (format {version})")
    lines += _image_differences(
        [row for row in rows if row.image_id not in failed], cache.images.rows()
    )
    if len(failed) > allow_failures:
        lines.append(f"images without features: at most {allow_failures}, {len(failed)}")
    return lines


def _image_differences(asked: Sequence[ImageRow], found: Sequence[ImageRow]) -> list[str]:
    if asked == found:
        return []
    mine, theirs = ({row.image_id: row for row in rows} for rows in (asked, found))
    lines = [
        f"{len(ids)} images only {where} ({_some(ids)})"
        for ids, where in (
            ([name for name in mine if name not in theirs], "in the manifest"),
            ([name for name in theirs if name not in mine], "in the cache"),
        )
        if ids
    ]
    common = [name for name in mine if name in theirs]
    columns = [name for name in ImageRow._fields if any(_differ(mine, theirs, common, name))]
    lines += [_column_line(column, mine, theirs, common) for column in columns]
    if not lines:
        lines.append("images: in another order")
    elif columns and len(lines) == len(columns) and set(columns) <= set(RELABELLED):
        lines[-1] += " (`pipeline cache relabel` changes these without extraction)"
    return lines


def _differ(
    mine: dict[str, ImageRow], theirs: dict[str, ImageRow], common: Sequence[str], column: str
) -> list[str]:
    return [n for n in common if getattr(mine[n], column) != getattr(theirs[n], column)]


def _column_line(
    column: str, mine: dict[str, ImageRow], theirs: dict[str, ImageRow], common: Sequence[str]
) -> str:
    ids = _differ(mine, theirs, common, column)
    values = f"{getattr(mine[ids[0]], column)!r}, {getattr(theirs[ids[0]], column)!r}"
    rest = f" and in {len(ids) - 1} more images" if len(ids) > 1 else ""
    return f"{column} of {ids[0]}: {values}{rest}"


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")

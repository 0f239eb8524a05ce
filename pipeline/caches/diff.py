"""In what two caches differ, for a terminal and for a script."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache import Comparison, Failure, FeatureDifference, ImageDifference, ImageRow, ShardPlace

_MOST = 10


def describe(found: Comparison, a: str, b: str) -> dict[str, Any]:
    """A comparison of the files `a` and `b` as JSON values, complete."""
    return {
        "a": a,
        "b": b,
        "same": found.same,
        "recipe": _pairs(found.recipe),
        "images": {
            "common": found.common,
            "only_a": found.only_a,
            "only_b": found.only_b,
            "moved": [{"image_id": name, "a": i, "b": j} for name, i, j in found.moved],
            "changed": [_describe_image(image) for image in found.images],
        },
        "features": {
            "compared": found.features_compared,
            **_largest([image.features for image in found.images if image.features]),
        },
        "failures": _pairs(
            {
                name: tuple(failure and failure._asdict() for failure in pair)
                for name, pair in found.failures.items()
            }
        ),
        "failures_reordered": found.failures_reordered,
        "statistics": _pair(found.statistics),
        "shard": _pair(tuple(place and place._asdict() for place in found.shard or ())),
        "not_counted": {
            "provenance": _pairs(found.provenance),
            "format_version": _pair(found.format_version),
        },
    }


def _describe_image(image: ImageDifference) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "columns": _pairs(image.columns),
        "patches": _pair(image.patches),
        "coords": image.coords,
        "features": image.features and image.features._asdict(),
        "statistics": list(image.statistics),
    }


def _pairs(values: Mapping[str, Sequence[object]]) -> dict[str, Any]:
    return {name: _pair(pair) for name, pair in values.items()}


def _pair(pair: Sequence[object] | None) -> dict[str, object] | None:
    return {"a": pair[0], "b": pair[1]} if pair else None


def _largest(differences: Sequence[FeatureDifference]) -> dict[str, float]:
    return {
        "images": len(differences),
        "largest_absolute": max((d.absolute for d in differences), default=0.0),
        "largest_relative": max((d.relative for d in differences), default=0.0),
    }


def to_text(found: Comparison, a: str, b: str) -> str:
    """The comparison for a terminal; long lists are cut."""
    lines = [f"A: {a}", f"B: {b}"]
    counted = [line for part in (_recipe, _sets, _images, _rest) for line in part(found)]
    lines += counted or [f"nothing that counts differs in {found.common} images"]
    free = [*_not_counted(found)]
    return "\n".join([*lines, *(["not counted:"] if free else []), *(f"  {line}" for line in free)])


def _recipe(found: Comparison) -> Iterator[str]:
    for name, (mine, theirs) in found.recipe.items():
        yield f"recipe, {name}: {mine!r}, {theirs!r}"


def _sets(found: Comparison) -> Iterator[str]:
    yield from _list(f"images only in A: {len(found.only_a)}", found.only_a)
    yield from _list(f"images only in B: {len(found.only_b)}", found.only_b)
    moved = [f"{name}: position {i}, {j}" for name, i, j in found.moved]
    yield from _list(f"images in another order: {len(moved)} of {found.common}", moved)


def _images(found: Comparison) -> Iterator[str]:
    for column in ImageRow._fields:
        pairs = [(i.image_id, i.columns[column]) for i in found.images if column in i.columns]
        lines = [f"{name}: {mine!r}, {theirs!r}" for name, (mine, theirs) in pairs]
        yield from _list(f"{column} differs: {len(lines)} of {found.common} images", lines)
    lines = [f"{i.image_id}: {i.patches[0]}, {i.patches[1]}" for i in found.images if i.patches]
    yield from _list(f"number of patches differs: {len(lines)} of {found.common} images", lines)
    lines = [f"{i.image_id}: {i.coords} patches" for i in found.images if i.coords]
    yield from _list(f"coords differ: {len(lines)} of {found.common} images", lines)
    differing = [(i.image_id, i.features) for i in found.images if i.features]
    head = f"features differ: {len(differing)} of {found.common} images"
    if differing:
        largest = _largest([difference for _, difference in differing])
        head += f", {_at_most(largest['largest_absolute'], largest['largest_relative'])}"
    lines = [
        f"{name}: {d.patches} patches, {_at_most(d.absolute, d.relative)}" for name, d in differing
    ]
    yield from _list(head, lines)
    lines = [f"{i.image_id}: {', '.join(i.statistics)}" for i in found.images if i.statistics]
    yield from _list(f"statistics differ: {len(lines)} of {found.common} images", lines)
    if not found.features_compared and found.common:
        yield "features: not compared, they have different lengths"


def _at_most(absolute: float, relative: float) -> str:
    return f"by at most {absolute:.3g} (relative {relative:.3g})"


def _rest(found: Comparison) -> Iterator[str]:
    lines = [
        f"{name}: {_reason(mine)}, {_reason(theirs)}"
        for name, (mine, theirs) in found.failures.items()
    ]
    yield from _list(f"failures differ: {len(lines)}", lines)
    if found.failures_reordered:
        yield "failures: the same, in another order"
    if found.statistics:
        texts = ["of every image" if there else "none" for there in found.statistics]
        yield f"statistics: {', '.join(texts)}"
    if found.shard:
        yield f"shard: {'; '.join(_place(place) for place in found.shard)}"


def _reason(failure: Failure | None) -> str:
    return repr(f"{failure.path}: {failure.reason}") if failure else "none"


def _place(place: ShardPlace | None) -> str:
    return f"{place.number} of {place.total}, plan {place.plan!r}" if place else "a whole cache"


def _not_counted(found: Comparison) -> Iterator[str]:
    for name, (mine, theirs) in found.provenance.items():
        yield f"provenance, {name}: {mine!r}, {theirs!r}"
    if found.format_version:
        yield f"format version: {', '.join(found.format_version)}"


def _list(head: str, lines: Sequence[str]) -> Iterator[str]:
    """A heading and the first lines below it; nothing if there are none."""
    if lines:
        yield head
    yield from (f"  {line}" for line in lines[:_MOST])
    if len(lines) > _MOST:
        yield f"  … and {len(lines) - _MOST} more"

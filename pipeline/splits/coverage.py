"""What folds lack: subtypes that a part does not hold, repeats that divide nothing anew."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from cache.schema import ImageRow
from pipeline.splits.table import ROLES, Splits


def missing_subtypes(splits: Splits, rows: Sequence[ImageRow], stratify: str) -> list[str]:
    """One line for each subtype that is not in every part, if subtypes were to be spread.

    Args:
        splits: the folds.
        rows: the images.
        stratify: what was to be spread; nothing is said of labels, which no part lacks.
    """
    if stratify != "subtype":
        return []
    subtypes = {row.image_id: row.subtype for row in rows}
    lacking: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for roles in splits.table:
        held = {(subtypes[image_id], role) for image_id, role in roles.items()}
        for subtype in sorted(set(subtypes.values())):
            lacking[subtype].update(role for role in ROLES if (subtype, role) not in held)
    return [
        f"{subtype}: not in {_counted(counts)} of {len(splits.folds)} folds"
        for subtype, counts in lacking.items()
        if counts
    ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{role} of {counts[role]}" for role in ROLES if counts[role])


def same_repeats(splits: Splits) -> list[str]:
    """A line if repeats test the same images together as an earlier one, else nothing."""
    divisions: defaultdict[int, set[frozenset[str]]] = defaultdict(set)
    for roles, repeat in zip(splits.table, splits.repeats, strict=True):
        tested = (image_id for image_id, role in roles.items() if role == "test")
        divisions[repeat].add(frozenset(tested))
    different = len(set(map(frozenset, divisions.values())))
    if different == len(divisions):
        return []
    return [f"only {different} of {len(divisions)} repeats differ: the groups are few"]

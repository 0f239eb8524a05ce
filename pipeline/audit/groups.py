"""Slides and cases on several sides of a fold, under several labels, or unknown."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from pipeline.audit.finding import LEAK, MAX_EXAMPLES, NOTE, SUSPECT, Finding, counted, listed
from pipeline.audit.membership import Crossing, Grouping, Membership, grouping
from pipeline.splits.table import ROLES

LEVELS = ("slide", "case")

_NEVER_TOGETHER = (
    ("slide", "label", SUSPECT, "a slide is of one tissue"),
    ("case", "label", SUSPECT, "its patient may have both, or one is wrong"),
    ("slide", "case", SUSPECT, "a slide is of one patient"),
    ("slide", "subtype", NOTE, "one may be wrong"),
    ("case", "subtype", NOTE, "its patient may have both, or one is wrong"),
)
"""Level, what it should have one of, and how grave and why it is to have several."""


def divided_groups(members: Membership) -> Iterator[Finding]:
    """The slides and cases that stand on two sides of a fold."""
    for level in LEVELS:
        groups = grouping([getattr(row, level) for row in members.rows])
        crossing = members.test_and_other(groups)
        if crossing.groups:
            yield _divided(members, groups, crossing, level, LEAK)
        crossing = members.val_and_train(groups)
        if crossing.groups:
            yield _divided(members, groups, crossing, level, SUSPECT)


def _divided(
    members: Membership, groups: Grouping, crossing: Crossing, level: str, severity: str
) -> Finding:
    where = "the test part and outside of it"
    if severity == SUSPECT:
        where = "validation and training, which flatters what is chosen by validation"
    folds = listed([members.numbers[fold] for fold in crossing.folds], len(members.numbers))
    count, total = len(crossing.groups), len(groups.names)
    verb = "has" if count == 1 else "have"
    return Finding(
        f"{level}_in_{'test' if severity == LEAK else 'val'}_and_train",
        severity,
        count,
        f"{count:,} of {counted(total, level)} {verb} images in {where} ({folds})",
        tuple(
            _divided_example(members, groups, group, fold)
            for group, fold in list(zip(crossing.groups, crossing.first, strict=True))[
                :MAX_EXAMPLES
            ]
        ),
    )


def _divided_example(members: Membership, groups: Grouping, group: int, fold: int) -> str:
    found = members.roles[fold, groups.of_image == group].tolist()
    parts = [f"{found.count(code)} in {role}" for code, role in enumerate(ROLES) if code in found]
    return f"{groups.names[group]}: {', '.join(parts)} of fold {members.numbers[fold]}"


def ambiguous_groups(members: Membership) -> Iterator[Finding]:
    """The slides and cases that have several labels or subtypes, the slides of several cases."""
    for level, column, severity, reason in _NEVER_TOGETHER:
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for row in members.rows:
            if getattr(row, level) and getattr(row, column):
                found[getattr(row, level)][getattr(row, column)] += 1
        several = {name: counts for name, counts in sorted(found.items()) if len(counts) > 1}
        if several:
            stands = "stands" if len(several) == 1 else "stand"
            yield Finding(
                f"{level}_of_two_{column}s",
                severity,
                len(several),
                f"{counted(len(several), level)} {stands} under several {column}s: {reason}",
                tuple(_ambiguous_example(*item) for item in several.items())[:MAX_EXAMPLES],
            )


def _ambiguous_example(name: str, counts: Counter[str]) -> str:
    parts = [f"{counted(count, 'image')} {value}" for value, count in sorted(counts.items())]
    return f"{name}: {', '.join(parts)}"


def unknown_groups(members: Membership) -> Iterator[Finding]:
    """The images of which a slide or a case is not known."""
    neither = any(not row.slide and not row.case for row in members.rows)
    for level in LEVELS:
        lacking = [row.image_id for row in members.rows if not getattr(row, level)]
        if lacking:
            yield Finding(
                f"no_{level}",
                SUSPECT if neither else NOTE,
                len(lacking),
                f"{len(lacking):,} of {counted(len(members.rows), 'image')} have no {level}: it "
                f"cannot be shown that {level}s are kept apart",
                tuple(lacking[:MAX_EXAMPLES]),
            )

"""One thing that an audit found, and the words for it."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_EXAMPLES = 10

LEAK, SUSPECT, NOTE = "leak", "suspect", "note"
SEVERITIES = (LEAK, SUSPECT, NOTE)
"""A leak makes test results too good. What is suspect may be a fault of the data; a note tells
what could not be checked, or what a reader should know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a short name that programs can compare.
        severity: one of `SEVERITIES`.
        count: how many slides, cases, images, pairs or folds it concerns, as `text` says.
        text: one line for a person.
        examples: up to `MAX_EXAMPLES` of them, by name.
    """

    kind: str
    severity: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


def counted(count: int, name: str, plural: str = "") -> str:
    """A number and what it counts: `1 slide`, `2,000 slides`."""
    return f"{count:,} {name if count == 1 else plural or name + 's'}"


def listed(numbers: Sequence[int], total: int) -> str:
    """The folds that something concerns, of `total`: `fold 3`, `folds 0, 2`, `all 5 folds`."""
    if len(numbers) == total and total > 1:
        return f"all {total:,} folds"
    if len(numbers) > 8:
        return f"{len(numbers):,} of {total:,} folds"
    return f"fold{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"

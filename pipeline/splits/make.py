"""Divide images into training, validation and test parts that share no patient."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cache.schema import ImageRow
from pipeline.errors import UsageError
from pipeline.splits.folds import Groups, assign_tests, carve_validation
from pipeline.splits.official import read_folds
from pipeline.splits.table import (
    MAX_FOLDS,
    Splits,
    build_splits,
    check_labels,
    groups_of,
    some,
)

GROUPINGS = ("case", "slide", "image")
"""What `make_splits` keeps together. A file of splits may also say `official`."""

STRATA = ("label", "subtype")
"""What `make_splits` spreads evenly over the folds."""

MAX_VAL_FRACTION = 0.5

MAX_LABELS = 100

MAX_REPEATS = 1000

_TRIES = 8
"""Assignments of test parts for which validation parts are sought."""


def make_splits(
    rows: Sequence[ImageRow],
    *,
    folds: int = 5,
    group_by: str = "case",
    seed: int = 0,
    val_fraction: float = 0.2,
    repeats: int = 1,
    stratify: str = "label",
) -> Splits:
    """Divide images into folds, stratified by label, with each image tested once a repeat.

    The result depends on the set of rows and the arguments, not on the rows' order.

    Args:
        rows: the images, with two labels or more.
        folds: how many, at least 2.
        group_by: what has one role in a fold: `case`, `slide` or `image`.
        seed: not negative; another seed gives another division.
        val_fraction: about how much of the images that a fold does not test is set aside for
            validation, by groups, above 0 and at most `MAX_VAL_FRACTION`.
        repeats: how many times the images are divided, with the seeds `seed`, `seed + 1` and so
            on. Fold k of repeat r is numbered r · folds + k.
        stratify: `label`, or `subtype` to spread subtypes evenly, too, as far as the groups
            allow. A subtype may be missing from a part; a label is in each.

    Raises:
        UsageError: an argument is out of range, a group or subtype is not known, or the groups
            are too few for every role of every fold to hold every label.
    """
    _check_folds(folds, group_by)
    _check_choice(seed, val_fraction)
    _check_repeats(repeats, folds)
    rows = sorted(rows)
    labels = [row.label for row in rows]
    groups = Groups.of(groups_of(rows, group_by), labels, _finer(rows, stratify))
    _check_enough(groups, sorted(set(labels)), folds, group_by)
    table: list[dict[str, str]] = []
    for number in range(seed, seed + repeats):
        table += _divide(rows, groups, folds, number, val_fraction, group_by)
    numbers = [repeat for repeat in range(repeats) for _ in range(folds)]
    return build_splits(group_by, table, rows, "new splits", numbers)


def _finer(rows: Sequence[ImageRow], stratify: str) -> list[str] | None:
    """The finer classes to spread over the folds, if any."""
    for column in ("label", stratify):
        found = len({getattr(row, column) for row in rows}) if column in STRATA else 0
        if found > MAX_LABELS:
            raise UsageError(f"{found} {column}s, expected at most {MAX_LABELS}")
    if stratify == "label":
        return None
    if stratify != "subtype":
        raise UsageError(f"stratify is {stratify!r}, expected {', '.join(STRATA)}")
    lacking = sum(not row.subtype for row in rows)
    if lacking:
        raise UsageError(
            f"stratify by subtype: {lacking} of {len(rows)} images have no subtype: give a CSV "
            "file with a column subtype and index again, or use --stratify label"
        )
    return [f"{row.label} {row.subtype}" for row in rows]


def _divide(
    rows: Sequence[ImageRow],
    groups: Groups,
    folds: int,
    seed: int,
    val_fraction: float,
    group_by: str,
) -> list[dict[str, str]]:
    """The roles in each fold of one repeat."""
    for tests in islice(assign_tests(groups, folds, [seed]), _TRIES):
        table = [
            _fold_roles(rows, groups, tests == k, val_fraction, [seed, k + 1]) for k in range(folds)
        ]
        if all(table):
            return table
    raise UsageError(
        f"no {folds} folds found in which every part holds every label, because {group_by}s hold "
        "several labels: use fewer folds, or --group-by another"
    )


def _check_folds(folds: int, group_by: str) -> None:
    if folds < 2:
        raise UsageError(f"folds is {folds}, expected at least 2")
    if group_by not in GROUPINGS:
        raise UsageError(f"group_by is {group_by!r}, expected {', '.join(GROUPINGS)}")


def _check_choice(seed: int, val_fraction: float) -> None:
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected 0 or more")
    if not 0 < val_fraction <= MAX_VAL_FRACTION:
        raise UsageError(
            f"val_fraction is {val_fraction}, expected above 0 and at most {MAX_VAL_FRACTION}"
        )


def _check_repeats(repeats: int, folds: int) -> None:
    if not 1 <= repeats <= MAX_REPEATS:
        raise UsageError(f"repeats is {repeats}, expected 1 to {MAX_REPEATS}")
    if repeats * folds > MAX_FOLDS:
        raise UsageError(
            f"{repeats} repeats of {folds} folds, expected at most {MAX_FOLDS:,} in all"
        )


def _check_enough(groups: Groups, labels: Sequence[str], folds: int, group_by: str) -> None:
    """Check that each label has a group for each test part, and two besides in every fold."""
    if len(labels) < 2:
        raise UsageError(f"found {len(labels)} labels ({some(labels)}), expected at least two")
    # Two folds test half of the groups at once, of which three would leave one.
    needed = 4 if folds == 2 else folds
    count, label = min(zip(groups.per_label.tolist(), labels, strict=True))
    if count < needed:
        fewer = f"use --folds {count}, " if count >= 3 else ""
        raise UsageError(
            f"label {label} has {count} {group_by}s, expected at least {needed} for {folds} folds "
            f"with training, validation and test parts: {fewer}add {group_by}s of this label, or "
            "index the data set without it"
        )


def _fold_roles(
    rows: Sequence[ImageRow],
    groups: Groups,
    tested: NDArray[np.bool_],
    val_fraction: float,
    seed: Sequence[int],
) -> dict[str, str]:
    """The roles of one fold from which groups it tests (G,); empty if there is no validation."""
    validated = carve_validation(*groups.without(tested), val_fraction, seed)
    if validated is None:
        return {}
    role = np.full(len(tested), "test", "<U5")  # (G,)
    role[~tested] = np.where(validated, "val", "train")
    roles = role[groups.of_image].tolist()
    return {row.image_id: name for row, name in zip(rows, roles, strict=True)}


def read_official(
    folder: Path, rows: Sequence[ImageRow], *, seed: int = 0, val_fraction: float = 0.2
) -> Splits:
    """Divide BreakHis images by the published folds.

    The test parts are the published ones. The validation part is set aside from the published
    training part, by cases. Images are matched by the stem of their file name. Fold K of the
    files becomes fold K - 1.

    Args:
        folder: where `dsfold1.txt` … `dsfold5.txt` are. They may name further images.
        rows: the images.
        seed: of the choice of validation parts, not negative.
        val_fraction: as in `make_splits`.

    Raises:
        UsageError: a file is not there or damaged, does not name an image, or leaves a part of a
            fold without a label.
    """
    _check_choice(seed, val_fraction)
    rows = sorted(rows)
    groups_of(rows, "case")
    table = []
    for number, sides in enumerate(read_folds(folder), 1):
        where = f"{folder / f'dsfold{number}.txt'}"
        tested = _official_tests(rows, sides, where)
        table.append(_official_roles(rows, tested, val_fraction, [seed, number], where))
    return build_splits("official", table, rows, str(folder))


def _official_tests(
    rows: Sequence[ImageRow], sides: Mapping[str, str], where: str
) -> NDArray[np.bool_]:
    """Which images (N,) a fold tests."""
    named = [sides.get(PurePosixPath(row.path).stem) for row in rows]
    unnamed = [row.image_id for row, side in zip(rows, named, strict=True) if side is None]
    if unnamed:
        raise UsageError(
            f"{where}: does not name {len(unnamed)} of {len(rows)} images ({some(unnamed)}): the "
            "official folds are for BreakHis under its own file names; use --group-by case"
        )
    return np.array([side == "test" for side in named])


def _official_roles(
    rows: Sequence[ImageRow],
    tested: NDArray[np.bool_],
    val_fraction: float,
    seed: Sequence[int],
    where: str,
) -> dict[str, str]:
    roles = {row.image_id: "test" for row, test in zip(rows, tested, strict=True) if test}
    rest = [row for row, test in zip(rows, tested, strict=True) if not test]
    labels = {row.label for row in rows}
    for side, found in (
        ("test", {row.label for row, test in zip(rows, tested, strict=True) if test}),
        ("train", {row.label for row in rest}),
    ):
        check_labels(labels, found, side, where)
    groups = Groups.of([row.case for row in rest], [row.label for row in rest])
    chosen = _fold_roles(rest, groups, np.zeros(len(groups.counts), bool), val_fraction, seed)
    if not chosen:
        raise UsageError(
            f"{where}: no validation part with every label can be set aside, because some label "
            "has fewer than two cases in the training part: index more of the data set"
        )
    roles |= chosen
    return {row.image_id: roles[row.image_id] for row in rows}

"""The role of each image in each fold: its table, its file, and the proof that no group leaks."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.schema import ImageRow
from pipeline.dataset.manifest import parse_number
from pipeline.errors import UsageError
from pipeline.tables import read_table, write_table

ROLES = ("train", "val", "test")
COLUMNS = ("image_id", "fold", "role", "group_by", "repeat")

MAX_FOLDS = 10_000
"""Folds of a file of splits."""


@dataclass(frozen=True)
class Splits:
    """The role of each image in each fold.

    Attributes:
        group_by: what is kept together: `case`, `slide`, `image` (nothing) or `official` (the
            folders of BreakHis, by its published folds).
        table: for each fold, image_id → `train`, `val` or `test`.
        leaks: a slide is on both sides, test and not, of some fold, or it is not known whether.
        repeats: for each fold, the number of its repeat, from 0: a repeat divides all images
            anew. They do not fall.
    """

    group_by: str
    table: tuple[Mapping[str, str], ...]
    leaks: bool
    repeats: tuple[int, ...]

    @property
    def folds(self) -> range:
        """The numbers of the folds."""
        return range(len(self.table))

    @property
    def image_ids(self) -> list[str]:
        """The images, in the order of the first fold."""
        return list(self.table[0])

    def roles(self, fold: int) -> Mapping[str, str]:
        """The role of each image in a fold, as image_id → role.

        Raises:
            UsageError: there is no such fold.
        """
        if fold not in self.folds:
            raise UsageError(f"fold {fold}: the splits have folds 0 to {len(self.table) - 1}")
        return self.table[fold]

    def protocol(self, rows: Sequence[ImageRow]) -> str:
        """One line on how test images were kept apart, as the rows show it."""
        cases = {row.image_id: row.case or row.slide for row in rows}
        cases = {image_id: cases[image_id] for image_id in self.image_ids}
        folds = self._counted()
        kind = _KINDS[self.group_by].format(folds=folds)
        unknown = list(cases.values()).count("")
        if unknown:
            return f"{kind}: the case of {unknown} images is not known, so it may LEAK"
        shared = _on_both_sides(self.table, cases)
        if shared:
            loud = "LEAKS, " if self.leaks else ""
            total = len(set(cases.values()))
            return f"{kind}: {loud}{len(shared)} of {total} cases have images on both sides"
        return (
            f"{kind}, case-disjoint" if self.group_by == "official" else f"case-disjoint, {folds}"
        )

    def _counted(self) -> str:
        """How many folds and, if there are several repeats, how often they were made anew."""
        sizes = [self.repeats.count(number) for number in sorted(set(self.repeats))]
        if len(set(sizes)) > 1:
            return f"{len(self.table)} folds in {len(sizes)} repeats"
        folds = "1 fold" if sizes[0] == 1 else f"{sizes[0]} folds"
        return folds if len(sizes) == 1 else f"{folds} × {len(sizes)} seeds"


_KINDS = {
    "case": "case-disjoint, {folds}",
    "slide": "slide-disjoint, {folds}",
    "image": "image-level, {folds}",
    "official": "official BreakHis folds",
}


def _on_both_sides(table: Sequence[Mapping[str, str]], group: Mapping[str, str]) -> set[str]:
    """The groups that, in some fold, have images in the test part and in another."""
    shared = set()
    for roles in table:
        sides = {(group[image_id], role == "test") for image_id, role in roles.items()}
        shared |= {name for name, tested in sides if tested and (name, False) in sides}
    return shared


def build_splits(
    group_by: str,
    table: Sequence[Mapping[str, str]],
    rows: Sequence[ImageRow],
    where: str,
    repeats: Sequence[int] | None = None,
) -> Splits:
    """Put splits together, checked against the rows. All folds are of one repeat by default."""
    group = {row.image_id: _slide_key(row, group_by) for row in rows}
    unknown = group_by == "image" and not all(row.slide or row.case for row in rows)
    leaks = unknown or bool(_on_both_sides(table, group))
    splits = Splits(group_by, tuple(table), leaks, tuple(repeats or [0] * len(table)))
    assert_disjoint(splits, rows, where)
    return splits


def _slide_key(row: ImageRow, group_by: str) -> str:
    slide = row.slide or row.case
    # BreakHis lists slide 14-13412 under two subtypes, which its official folds put apart.
    return f"{row.subtype} {slide}" if group_by == "official" else slide


def assert_disjoint(splits: Splits, rows: Sequence[ImageRow], where: str = "splits") -> None:
    """Check that no group has two roles in one fold.

    A group is what `splits.group_by` says; for `official`, a slide under one subtype. For
    `image` there is nothing to check. `where` begins the message.

    Raises:
        UsageError: a group has two roles in one fold, or the group of an image is not known.
    """
    if splits.group_by == "image":
        return
    names = dict(zip([row.image_id for row in rows], groups_of(rows, splits.group_by), strict=True))
    for fold, roles in enumerate(splits.table):
        roles_of: defaultdict[str, set[str]] = defaultdict(set)
        for image_id, role in roles.items():
            roles_of[names[image_id]].add(role)
        divided = [
            f"{name} in {' and '.join(sorted(r))}" for name, r in roles_of.items() if len(r) > 1
        ]
        if divided:
            unit = "slide" if splits.group_by == "official" else splits.group_by
            raise UsageError(
                f"{where}, fold {fold}: {len(divided)} {unit}s have images in several roles "
                f"({some(divided)}), expected one role each, as group_by is {splits.group_by}: "
                "make the splits again, or declare group_by image and accept that they leak"
            )


def groups_of(rows: Sequence[ImageRow], group_by: str) -> list[str]:
    """The group of each image.

    Raises:
        UsageError: it is not known for some.
    """
    if group_by == "image":
        return [row.image_id for row in rows]
    column = "slide" if group_by == "official" else group_by
    lacking = sum(not getattr(row, column) for row in rows)
    if lacking:
        raise UsageError(
            f"group_by {group_by}: {lacking} of {len(rows)} images have no {column}: "
            f"give a CSV file with a column {column}, or put the images in folders "
            "class/slide/image, and index again; or use --group-by image, which leaks"
        )
    if group_by == "official":
        return [_slide_key(row, group_by) for row in rows]
    return [getattr(row, column) for row in rows]


def write_splits(path: Path, splits: Splits) -> None:
    """Write splits as CSV with the columns of `COLUMNS`, published whole.

    Raises:
        PublishError: the file cannot be written.
    """
    lines = (
        (image_id, fold, role, splits.group_by, repeat)
        for fold, (roles, repeat) in enumerate(zip(splits.table, splits.repeats, strict=True))
        for image_id, role in roles.items()
    )
    write_table(path, COLUMNS, lines)


def read_splits(path: Path, rows: Sequence[ImageRow], absent: Collection[str] = ()) -> Splits:
    """Read splits, made by `write_splits` or by hand, and check them against the images.

    Args:
        path: a CSV file with the columns image_id, fold (from 0), role (train, val or test),
            group_by, without which the splits are taken to keep cases together, and repeat (from
            0), without which all folds are of one.
        rows: the images.
        absent: images that the file may name and that are left out.

    Raises:
        UsageError: the file is not such a table; a fold does not name the images of `rows`, each
            once; a training or validation part lacks a label, or a test part is empty; or a
            group has several roles in a fold.
    """
    group_by, table, repeats = _read_roles(path)
    labels = {row.image_id: row.label for row in rows}
    kept = []
    for fold, roles in enumerate(table):
        where = f"{path}, fold {fold}"
        chosen = {image_id: role for image_id, role in roles.items() if image_id not in absent}
        _check_images(chosen, labels, where)
        _check_roles(chosen, labels, where)
        kept.append(chosen)
    return build_splits(group_by, kept, rows, str(path), repeats)


def _read_roles(path: Path) -> tuple[str, list[dict[str, str]], list[int]]:
    """What the file keeps together and, for each fold, image_id → role, and its repeat."""
    declared = ""
    table: defaultdict[int, dict[str, str]] = defaultdict(dict)
    repeats: dict[int, int] = {}
    known: dict[str, str] = {}  # one copy of each text, however many folds repeat it
    for line, fields in read_table(path, COLUMNS[:3]):
        where = f"{path}, line {line}"
        fold = parse_number(fields["fold"], "fold", where)
        group_by = fields.get("group_by", "case")
        declared = declared or group_by
        _check_line(fields, group_by, declared, where)
        _check_repeat(fields, fold, repeats, where)
        image_id, role = (known.setdefault(fields[n], fields[n]) for n in ("image_id", "role"))
        if image_id in table[fold]:
            raise UsageError(f"{where}: {image_id} is in fold {fold} already: remove one line")
        table[fold][image_id] = role
        if len(table) > MAX_FOLDS:
            raise UsageError(f"{where}: more than {MAX_FOLDS:,} folds")
    if sorted(table) != list(range(len(table))) or not table:
        raise UsageError(
            f"{path}: folds are {some([str(fold) for fold in sorted(table)]) or 'none'}, "
            "expected 0, 1, 2 and so on without gaps"
        )
    numbers = [repeats[fold] for fold in range(len(table))]
    distinct = sorted(set(numbers))
    if numbers != sorted(numbers) or distinct != list(range(len(distinct))):
        raise UsageError(
            f"{path}: the repeats of the folds are {some([str(number) for number in numbers])}, "
            "expected 0, then 1 and so on without gaps, as folds are numbered through"
        )
    return declared, [table[fold] for fold in range(len(table))], numbers


def _check_repeat(
    fields: Mapping[str, str], fold: int, repeats: dict[int, int], where: str
) -> None:
    """Note the repeat of a fold, which is the same on all its lines."""
    repeat = parse_number(fields.get("repeat", "0"), "repeat", where)
    if repeats.setdefault(fold, repeat) != repeat:
        raise UsageError(
            f"{where}: fold {fold} is in repeat {repeat}, but in {repeats[fold]} above: expected "
            "the folds of all repeats to be numbered through"
        )


def _check_line(fields: Mapping[str, str], group_by: str, declared: str, where: str) -> None:
    if not fields["image_id"].isprintable():
        shown = fields["image_id"][:80]
        raise UsageError(f"{where}: image_id {shown!r} holds a character that cannot be shown")
    if fields["role"] not in ROLES:
        raise UsageError(f"{where}: role is {fields['role'][:40]!r}, expected {', '.join(ROLES)}")
    if group_by not in _KINDS:
        raise UsageError(f"{where}: group_by is {group_by[:40]!r}, expected {', '.join(_KINDS)}")
    if group_by != declared:
        raise UsageError(
            f"{where}: group_by is {group_by}, but {declared} above: expected the same everywhere"
        )


def _check_images(roles: Mapping[str, str], labels: Mapping[str, str], where: str) -> None:
    missing = sorted(labels.keys() - roles.keys())
    unexpected = sorted(roles.keys() - labels.keys())
    if missing or unexpected:
        raise UsageError(
            f"{where}: {len(missing)} images missing ({some(missing) or 'none'}), "
            f"{len(unexpected)} unexpected ({some(unexpected) or 'none'}): "
            "make the splits from the manifest that is used here"
        )


def _check_roles(roles: Mapping[str, str], labels: Mapping[str, str], where: str) -> None:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for image_id, role in roles.items():
        found[role].add(labels[image_id])
    for role in ("train", "val"):
        check_labels(set(labels.values()), found[role], role, where)
    if not found["test"]:
        raise UsageError(f"{where}: no test images, expected some: give some images role test")


def check_labels(labels: set[str], found: set[str], role: str, where: str) -> None:
    """Check that a part in `role` holds every label; `where` begins the message.

    Raises:
        UsageError: it does not.
    """
    if labels - found:
        raise UsageError(
            f"{where}: no {role} image with label {', '.join(sorted(labels - found))}, expected "
            "every label in this part: add such images, or divide them otherwise"
        )


def some(names: Sequence[str]) -> str:
    """The first few of `names`."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")

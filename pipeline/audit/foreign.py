"""Read a split that somebody else made: what is odd about it is told, not refused."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cache.schema import ImageRow
from pipeline.audit.finding import LEAK, MAX_EXAMPLES, NOTE, SUSPECT, Finding, counted
from pipeline.dataset.manifest import parse_number
from pipeline.errors import UsageError
from pipeline.splits.table import MAX_FOLDS, Splits
from pipeline.tables import read_table

_ROLES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_RANK = ("train", "val", "test")

_Key = tuple[int, int]
"""Repeat and fold."""


class ForeignSplits(NamedTuple):
    """Splits as they are, what their folds are called, and what was odd about the file."""

    splits: Splits
    numbers: list[int]
    findings: list[Finding]


def read_foreign(path: Path, rows: Sequence[ImageRow]) -> ForeignSplits:
    """Read a split, leaking or not.

    Args:
        path: a CSV file with the columns image_id and role (train, val or test), and fold and
            repeat if there are several. An image may also be named by its file.
        rows: the images. Others are left out, and counted.

    Raises:
        UsageError: the file is not such a table, has too many folds, or names none of the images.
    """
    names = _known_names(rows)
    table: defaultdict[_Key, dict[str, str]] = defaultdict(dict)
    unknown: Counter[str] = Counter()
    twice: dict[tuple[str, _Key], set[str]] = {}
    for line, fields in read_table(path, ("image_id", "role")):
        where = f"{path}, line {line}"
        key, role = _place(fields, where), _role(fields["role"], where)
        image_id = names.get(fields["image_id"], "")
        if not image_id:
            unknown[fields["image_id"][:80]] += 1
            continue
        roles = table[key]
        if image_id in roles:
            twice.setdefault((image_id, key), {roles[image_id]}).add(role)
        roles[image_id] = max(roles.get(image_id, "train"), role, key=_RANK.index)
        if len(table) > MAX_FOLDS:
            raise UsageError(f"{where}: more than {MAX_FOLDS:,} folds")
    if not table:
        raise UsageError(
            f"{path}: names none of the {len(rows)} images of the manifest: expected their "
            "image_id or the name of their file in column image_id"
        )
    findings = [*_unknown_findings(unknown), *_twice_findings(twice)]
    return _assembled(table, findings)


def _assembled(table: Mapping[_Key, dict[str, str]], findings: list[Finding]) -> ForeignSplits:
    keys = sorted(table)
    numbers = [fold for _, fold in keys]
    if len(set(numbers)) < len(numbers):  # folds are numbered anew in each repeat
        numbers = list(range(len(keys)))
    order = sorted({repeat for repeat, _ in keys})
    repeats = tuple(order.index(repeat) for repeat, _ in keys)
    splits = Splits("image", tuple(table[key] for key in keys), leaks=True, repeats=repeats)
    return ForeignSplits(splits, numbers, findings)


def _known_names(rows: Sequence[ImageRow]) -> dict[str, str]:
    """Each name by which an image may be called, if it is of one image only → image_id."""
    names: dict[str, str] = {}
    for part in ("name", "stem"):
        found = [(str(getattr(PurePosixPath(row.path), part)), row.image_id) for row in rows]
        counts = Counter(name for name, _ in found)
        names |= {name: image_id for name, image_id in found if counts[name] == 1}
    return names | {row.image_id: row.image_id for row in rows}


def _place(fields: Mapping[str, str], where: str) -> _Key:
    repeat, fold = (
        parse_number(fields.get(column) or "0", column, where) for column in ("repeat", "fold")
    )
    return repeat, fold


def _role(text: str, where: str) -> str:
    role = _ROLES.get(text.lower())
    if role is None:
        raise UsageError(f"{where}: role is {text[:40]!r}, expected train, val or test")
    return role


def _unknown_findings(unknown: Counter[str]) -> list[Finding]:
    if not unknown:
        return []
    names = [name if name.isprintable() else ascii(name) for name in sorted(unknown)]
    text = (
        f"the splits name {counted(len(unknown), 'image')} that the manifest does not: nothing "
        "is known of them"
    )
    return [Finding("unknown_images", NOTE, len(unknown), text, tuple(names[:MAX_EXAMPLES]))]


def _twice_findings(twice: Mapping[tuple[str, _Key], set[str]]) -> list[Finding]:
    """Images that one fold names several times, with several roles or with one."""
    found = []
    for kind, severity, what in (
        ("image_in_test_and_train", LEAK, "in the test part and in another of the same fold"),
        ("image_in_val_and_train", SUSPECT, "in training and validation of the same fold"),
        ("image_named_twice", NOTE, "named twice in the same role of a fold"),
    ):
        images = {
            image_id: f"{image_id}: {' and '.join(sorted(roles))} of fold {fold}"
            for (image_id, (_, fold)), roles in sorted(twice.items(), key=lambda item: item[0])
            if _kind(roles) == kind
        }
        if images:
            count = len(images)
            text = f"{counted(count, 'image')} {'is' if count == 1 else 'are'} {what}"
            examples = tuple(images.values())[:MAX_EXAMPLES]
            found.append(Finding(kind, severity, count, text, examples))
    return found


def _kind(roles: set[str]) -> str:
    if len(roles) == 1:
        return "image_named_twice"
    return "image_in_test_and_train" if "test" in roles else "image_in_val_and_train"

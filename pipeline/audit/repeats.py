"""Images that are there twice: as the same file, with the same pixels, or nearly so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.finding import LEAK, MAX_EXAMPLES, NOTE, SUSPECT, Finding, counted, listed
from pipeline.audit.membership import Grouping, Membership, grouping
from pipeline.audit.near import NearPairs, near_pairs
from pipeline.dataset.statistics import NEAR_BITS
from pipeline.progress import Progress, silent

_CONFLICTS = (("label", SUSPECT), ("subtype", NOTE))


@dataclass(frozen=True)
class Pixels:
    """What is known of pixels.

    Attributes:
        images: (M,) the positions of the images of which they are known, rising.
        hashes: (M, 32) uint8, perceptual hashes.
        sha256: of their pixels, M.
    """

    images: NDArray[np.int64]
    hashes: NDArray[np.uint8]
    sha256: Sequence[str]


def same_files(members: Membership) -> Iterator[Finding]:
    """Files that are there under several names."""
    groups = grouping([row.sha256 for row in members.rows], least=2)
    yield from _repeated(members, groups, "same_file", "file")
    yield from _conflicting(members, groups, "same_file", "file")


def same_pixels(members: Membership, pixels: Pixels) -> Iterator[Finding]:
    """Pixels that are there under several names, in files that differ."""
    names = [""] * len(members.rows)
    for image, digest in zip(pixels.images.tolist(), pixels.sha256, strict=True):
        names[image] = digest
    groups = grouping(names, least=2)
    one_file = {
        name
        for name, images in zip(groups.names, groups.members(), strict=True)
        if len({members.rows[image].sha256 for image in images}) == 1
    }
    groups = grouping(["" if name in one_file else name for name in names], least=2)
    yield from _repeated(members, groups, "same_pixels", "picture")
    yield from _conflicting(members, groups, "same_pixels", "picture")


def _repeated(members: Membership, groups: Grouping, kind: str, unit: str) -> Iterator[Finding]:
    crossing = members.test_and_other(groups)
    images = groups.members()
    if crossing.groups:
        folds = listed([members.numbers[fold] for fold in crossing.folds], len(members.numbers))
        examples = zip(crossing.groups, crossing.first, strict=True)
        yield Finding(
            kind,
            LEAK,
            len(crossing.groups),
            f"{counted(len(crossing.groups), unit)} under several names in the test part and "
            f"outside of it ({folds})",
            tuple(
                f"{' = '.join(members.names_by_role(images[group], fold))} in fold "
                f"{members.numbers[fold]}"
                for group, fold in list(examples)[:MAX_EXAMPLES]
            ),
        )
    rest = sorted(set(range(len(groups.names))) - set(crossing.groups))
    if rest:
        yield Finding(
            kind,
            SUSPECT,
            len(rest),
            f"{counted(len(rest), unit)} under several names, always in the same part of a fold: "
            "they count more than once",
            tuple(" = ".join(_names(members, images[group])) for group in rest[:MAX_EXAMPLES]),
        )


def _conflicting(members: Membership, groups: Grouping, kind: str, unit: str) -> Iterator[Finding]:
    for column, severity in _CONFLICTS:
        found = []
        for images in groups.members():
            values = {getattr(members.rows[image], column) for image in images} - {""}
            if len(values) > 1:
                found.append((images, sorted(values)))
        if found:
            yield Finding(
                f"{kind}_of_two_{column}s",
                severity,
                len(found),
                f"{counted(len(found), unit)} under several {column}s: one of them is wrong",
                tuple(
                    f"{' = '.join(_names(members, images))}: {' and '.join(values)}"
                    for images, values in found[:MAX_EXAMPLES]
                ),
            )


def _names(members: Membership, images: Sequence[int]) -> list[str]:
    return [members.rows[image].image_id for image in images[:MAX_EXAMPLES]]


@dataclass
class _Near:
    """Near pairs of one kind, counted while they are found."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, examples: Iterator[str], count: int) -> None:
        self.count += count
        for example in examples:
            if len(self.examples) >= MAX_EXAMPLES:
                break
            self.examples.append(example)


def near_duplicates(
    members: Membership, pixels: Pixels, progress: Progress = silent
) -> Iterator[Finding]:
    """Images that look alike: on both sides of a fold, or under two labels.

    Images with the same pixels are left to `same_pixels`, and blank ones, which all look alike,
    to nobody.
    """
    shown = np.flatnonzero(pixels.hashes.any(axis=1))
    images = pixels.images[shown]  # (m,)
    content = _codes([pixels.sha256[i] for i in shown.tolist()])
    labels = _codes([members.rows[i].label for i in images.tolist()])
    apart, conflicts = _Near(), _Near()
    for found in near_pairs(pixels.hashes[shown], NEAR_BITS, progress):
        found = _chosen(found, content[found.first] != content[found.second])
        folds = members.apart(images[found.first], images[found.second])
        crossing = _chosen(found, folds >= 0)
        examples = _pair_examples(members, images, crossing, folds[folds >= 0].tolist())
        apart.add(examples, len(crossing.first))
        differing = _chosen(found, labels[found.first] != labels[found.second])
        conflicts.add(_label_examples(members, images, differing), len(differing.first))
    yield from _near_findings(apart, conflicts, members)


def _near_findings(apart: _Near, conflicts: _Near, members: Membership) -> Iterator[Finding]:
    if apart.count:
        pairs = counted(apart.count, "pair")
        yield Finding(
            "near_duplicates",
            LEAK,
            apart.count,
            f"{pairs} of images that look alike (at most {NEAR_BITS} of 256 bits differ), one in "
            "the test part and one outside of it",
            tuple(apart.examples),
        )
    if conflicts.count:
        pairs = counted(conflicts.count, "pair")
        yield Finding(
            "near_duplicates_of_two_labels",
            SUSPECT,
            conflicts.count,
            f"{pairs} of images that look alike under two labels: look at them",
            tuple(conflicts.examples),
        )


def _chosen(pairs: NearPairs, choice: NDArray[np.bool_]) -> NearPairs:
    return NearPairs(pairs.first[choice], pairs.second[choice], pairs.distance[choice])


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    """A number for each name, the same for the same."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _pair_examples(
    members: Membership, images: NDArray[np.int64], pairs: NearPairs, folds: Sequence[int]
) -> Iterator[str]:
    for first, second, distance, fold in zip(
        images[pairs.first], images[pairs.second], pairs.distance, folds, strict=True
    ):
        names = " ~ ".join(members.names_by_role([int(first), int(second)], fold))
        yield f"{names} in fold {members.numbers[fold]}: {distance} bits differ"


def _label_examples(
    members: Membership, images: NDArray[np.int64], pairs: NearPairs
) -> Iterator[str]:
    for first, second, distance in zip(
        images[pairs.first], images[pairs.second], pairs.distance, strict=True
    ):
        left, right = members.rows[int(first)], members.rows[int(second)]
        yield (
            f"{left.image_id} ({left.label}) ~ {right.image_id} ({right.label}): "
            f"{distance} bits differ"
        )

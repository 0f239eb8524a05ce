"""Which side of which fold each image is on, as arrays, and which groups are on both."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.schema import ImageRow
from pipeline.errors import UsageError
from pipeline.splits.table import ROLES, Splits

TEST = ROLES.index("test")
VAL = ROLES.index("val")
NOWHERE = -1

_MAX_CELLS = 1 << 30
"""Images times folds: the memory of a table, one byte each."""


_Sides = Callable[[NDArray[np.int8]], tuple[NDArray[np.bool_], NDArray[np.bool_]]]
"""From the roles (N,) of a fold, which images are on each of two sides."""


_MOST_NAMES = 10
"""Images named in one example."""


class Grouping(NamedTuple):
    """Images by what they share: `names` (G,), and of each image (N,) its group, or -1."""

    names: list[str]
    of_image: NDArray[np.int64]

    def members(self) -> list[list[int]]:
        """The images of each group, rising."""
        order = np.argsort(self.of_image, kind="stable")
        ends = np.searchsorted(self.of_image[order], np.arange(len(self.names) + 1))
        return [part.tolist() for part in np.split(order, ends)[1:-1]]


class Crossing(NamedTuple):
    """Groups on two sides of a fold.

    Attributes:
        groups: their numbers.
        first: the position of the first fold in which each is.
        folds: the positions of all folds in which one is.
    """

    groups: list[int]
    first: list[int]
    folds: list[int]


def grouping(names: Sequence[str], least: int = 1) -> Grouping:
    """Group images by name; an empty name, or one of fewer images than `least`, is no group."""
    sizes = Counter(name for name in names if name)
    known = sorted(name for name, size in sizes.items() if size >= least)
    numbers = {name: number for number, name in enumerate(known)}
    return Grouping(known, np.array([numbers.get(name, NOWHERE) for name in names], np.int64))


class Membership:
    """Images and their roles.

    Args:
        rows: the images, N of them.
        splits: the folds, F of them, which may name some of the images only.
        numbers: what each fold is called; from 0 by default.

    Attributes:
        roles: (F, N) position in `ROLES`, or -1 where a fold does not name an image.

    Raises:
        UsageError: there are too many folds of too many images.
    """

    def __init__(
        self, rows: Sequence[ImageRow], splits: Splits, numbers: Sequence[int] | None = None
    ) -> None:
        self.rows = rows
        self.numbers = list(splits.folds if numbers is None else numbers)
        if len(rows) * len(self.numbers) > _MAX_CELLS:
            raise UsageError(
                f"{len(self.numbers):,} folds of {len(rows):,} images are too many to audit at "
                "once: divide the file of splits"
            )
        self.roles = np.full((len(self.numbers), len(rows)), NOWHERE, np.int8)
        codes = {role: code for code, role in enumerate(ROLES)}
        for roles, line in zip(splits.table, self.roles, strict=True):
            line[:] = [codes.get(roles.get(row.image_id, ""), NOWHERE) for row in rows]

    def test_and_other(self, groups: Grouping) -> Crossing:
        """The groups that are in the test part of some fold, and in another part of it."""
        return self._crossing(groups, lambda roles: (roles == TEST, (roles >= 0) & (roles < TEST)))

    def val_and_train(self, groups: Grouping) -> Crossing:
        """The groups that are in the validation part of some fold, and in the training part."""
        return self._crossing(groups, lambda roles: (roles == VAL, roles == ROLES.index("train")))

    def _crossing(self, groups: Grouping, sides: _Sides) -> Crossing:
        first = np.full(len(groups.names), NOWHERE, np.int64)
        folds = []
        for fold, roles in enumerate(self.roles):
            held = [np.zeros(len(groups.names), bool) for _ in range(2)]
            for side, there in zip(held, sides(roles), strict=True):
                side[groups.of_image[there & (groups.of_image >= 0)]] = True
            both = held[0] & held[1]
            if both.any():
                folds.append(fold)
            first[both & (first == NOWHERE)] = fold
        found = np.flatnonzero(first != NOWHERE)
        return Crossing(found.tolist(), first[found].tolist(), folds)

    def apart(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of pairs of images (n,), the first fold with one in the test part and one in another.

        Returns:
            (n,) position of the fold, -1 where there is none.
        """
        found = np.full(len(first), NOWHERE, np.int64)
        for fold, roles in enumerate(self.roles):
            left, right = roles[first], roles[second]
            tested = (left == TEST) != (right == TEST)
            found[tested & (left >= 0) & (right >= 0) & (found == NOWHERE)] = fold
        return found

    def names_by_role(self, images: Sequence[int], fold: int) -> Iterator[str]:
        """Each image with its role in a fold: `image7 (test)`."""
        for image in images[:_MOST_NAMES]:
            role = self.roles[fold, image]
            yield f"{self.rows[image].image_id} ({ROLES[role] if role >= 0 else 'not named'})"

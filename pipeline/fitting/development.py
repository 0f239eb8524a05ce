"""Who learns from what: the development images of a fold, divided among the members."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from cache import ImageRow
from pipeline.errors import UsageError
from pipeline.fitting.options import FitOptions
from pipeline.fitting.study import Study
from pipeline.fitting.training import Member
from pipeline.splits.folds import inner_parts
from pipeline.splits.table import groups_of


class Development(NamedTuple):
    """The development images of a fold: positions (n,), and the members that learn from them."""

    images: torch.Tensor
    members: list[Member]


def develop(
    study: Study, roles: Mapping[str, str], group_by: str, options: FitOptions, seed: Sequence[int]
) -> Development:
    """Divide the training and validation images of a fold among the members.

    With several members, the development images are divided into as many inner folds, groups
    whole; each member sets one aside and learns from the others. Where the groups are too few,
    there are fewer members, and with one, the validation part of the splits is set aside.

    Args:
        study: the images.
        roles: of the images in this fold, as image_id → role. What it calls test is not touched.
        group_by: what the splits keep together.
        options: `members` and `train_magnification` are used.
        seed: of the division.

    Raises:
        UsageError: no image of a role has the magnification asked for.
    """
    wanted = options.train_magnification
    chosen = [
        (i, roles[row.image_id])
        for i, row in enumerate(study.rows)
        if roles.get(row.image_id) in ("train", "val") and wanted in (0, row.magnification)
    ]
    images = np.array([i for i, _ in chosen], np.int64)
    rows = [study.rows[i] for i in images]
    parts = None
    if options.members > 1 and rows:
        labels = [row.label for row in rows]
        parts = inner_parts(_groups(rows, group_by), labels, options.members, seed)
    if parts is None:
        parts = np.array([0 if role == "val" else 1 for _, role in chosen], np.int64)
        numbers = [0]
    else:
        numbers = list(range(int(parts.max()) + 1))
    _check(study, images, parts, numbers, wanted)
    members = [
        Member(torch.from_numpy(images[parts != k]), torch.from_numpy(images[parts == k]))
        for k in numbers
    ]
    return Development(torch.from_numpy(images), members)


def _groups(rows: Sequence[ImageRow], group_by: str) -> list[str]:
    """What the inner folds keep whole: what the splits do, but cases rather than slides."""
    if group_by != "image" and all(row.case for row in rows):
        return [row.case for row in rows]
    return groups_of(rows, group_by)


def _check(
    study: Study,
    images: np.ndarray,
    parts: np.ndarray,
    numbers: Sequence[int],
    wanted: int,
) -> None:
    """Check that every member has images of two classes to learn from, and some set aside."""
    targets = study.targets.numpy()
    for number in numbers:
        learnt = set(targets[images[parts != number]].tolist()) if len(images) else set()
        if len(learnt) < 2 or not (parts == number).any():
            where = f" at magnification {wanted}" if wanted else ""
            raise UsageError(
                f"the training images{where} are of {len(learnt)} classes, expected two or more, "
                "and some images set aside for validation: choose other splits, or another "
                "--train-magnification"
            )

"""Who learns from what: every development image is set aside once, and test images never."""

import pytest
import torch
from small_studies import rows_of, study_of

from pipeline.errors import UsageError
from pipeline.fitting.development import develop
from pipeline.fitting.options import FitOptions
from pipeline.splits.make import make_splits

SEED = [0, 0]


def developed(rows=None, members=3, group_by="case", fold=0, seed=SEED, **options):
    rows = rows_of() if rows is None else rows
    splits = make_splits(rows, folds=3, group_by=group_by)
    study = study_of(rows, splits)
    choices = FitOptions(members=members, **options)
    made = develop(study, splits.roles(fold), group_by, choices, seed)
    return rows, splits.roles(fold), made


def images_of(rows, roles, *wanted):
    return [i for i, row in enumerate(rows) if roles[row.image_id] in wanted]


@pytest.mark.parametrize("members", [2, 3, 4])
@pytest.mark.parametrize("group_by", ["case", "slide", "image"])
def test_every_development_image_is_set_aside_once_and_test_images_never(members, group_by):
    rows, roles, made = developed(members=members, group_by=group_by)
    known = images_of(rows, roles, "train", "val")
    assert len(made.members) == members
    assert made.images.tolist() == known
    assert sorted(torch.cat([member.aside for member in made.members]).tolist()) == known
    for member in made.members:
        assert sorted([*member.training.tolist(), *member.aside.tolist()]) == known
        assert not set(member.training.tolist()) & set(member.aside.tolist())


@pytest.mark.parametrize("group_by", ["case", "slide"])
def test_cases_are_whole(group_by):
    slides = [row._replace(slide=f"{row.slide}-{i % 2}") for i, row in enumerate(rows_of())]
    rows, _, made = developed(slides, group_by=group_by)
    for member in made.members:
        learnt, aside = ({rows[i].case for i in part.tolist()} for part in member)
        assert not learnt & aside


def test_each_member_learns_from_both_classes():
    rows, _, made = developed(members=4)
    for member in made.members:
        assert {rows[i].label for i in member.training.tolist()} == {"benign", "malignant"}


def test_one_member_sets_aside_the_validation_part_of_the_splits():
    rows, roles, made = developed(members=1)
    (member,) = made.members
    assert member.training.tolist() == images_of(rows, roles, "train")
    assert member.aside.tolist() == images_of(rows, roles, "val")


def test_fewer_groups_give_fewer_members():
    rows = rows_of(24, cases=8)  # eight cases, of which a fold develops five or six
    _, _, made = developed(rows, members=50)
    assert 1 < len(made.members) < 6


def test_equal_seeds_divide_alike_and_others_do_not():
    first, second, other = (
        [member.aside.tolist() for member in developed(seed=seed)[2].members]
        for seed in (SEED, SEED, [1, 0])
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize("members", [1, 3])
def test_only_images_of_the_magnification_asked_for_train_and_validate(members):
    rows, roles, made = developed(members=members, train_magnification=40)
    known = images_of(rows, roles, "train", "val")
    assert made.images.tolist() == [i for i in known if rows[i].magnification == 40]
    for member in made.members:
        for part in member:
            assert len(part)
            assert {rows[i].magnification for i in part.tolist()} == {40}


def test_a_magnification_of_one_class_is_refused_by_name():
    rows = [row._replace(magnification=200) if row.label == "benign" else row for row in rows_of()]
    with pytest.raises(UsageError, match=r"at magnification 200 are of 1 classes, expected two"):
        developed(rows, train_magnification=200)
    with pytest.raises(UsageError, match=r"at magnification 7 are of 0 classes"):
        developed(rows, train_magnification=7)

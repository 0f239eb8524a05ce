import random
import time
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.schema import ImageRow
from pipeline.dataset.breakhis import parse_name
from pipeline.errors import UsageError
from pipeline.splits.coverage import missing_subtypes, same_repeats
from pipeline.splits.folds import inner_parts
from pipeline.splits.make import make_splits, read_official
from pipeline.splits.table import ROLES, assert_disjoint, read_splits, write_splits


def row(number, label, case="", slide=None):
    slide = case if slide is None else slide
    return ImageRow(
        f"i{number:05}", f"i{number:05}.png", label, "", slide, case, 0, 32, 32, "0" * 64
    )


def cohort(cases=6, images=4, slides=1):
    """`cases` cases a label of `images` images, on `slides` slides each."""
    found = []
    for label in ("benign", "malignant"):
        for case in range(cases):
            for image in range(images):
                name = f"{label}{case}"
                found.append(row(len(found), label, name, f"{name}-{image % slides}"))
    return found


def groups_by_role(splits, rows, column):
    """For each fold: role → groups."""
    group = {row.image_id: getattr(row, column) for row in rows}
    for fold in splits.folds:
        found = defaultdict(set)
        for image_id, role in splits.roles(fold).items():
            found[role].add(group[image_id])
        yield found


def share_nothing(splits, rows, column):
    return all(
        not (groups["train"] & groups["val"] | groups["test"] & (groups["train"] | groups["val"]))
        for groups in groups_by_role(splits, rows, column)
    )


def times_tested(splits):
    return Counter(i for roles in splits.table for i, role in roles.items() if role == "test")


COHORTS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 3), st.sampled_from("ABC")), max_size=80
).map(
    lambda drawn: [
        row(number, label, f"c{case}", f"c{case}s{slide}")
        for number, (case, slide, label) in enumerate(drawn)
    ]
)


class TestMade:
    @settings(max_examples=80)
    @given(COHORTS, st.integers(2, 6), st.sampled_from(["case", "slide", "image"]))
    def test_any_cohort_is_divided_properly_or_refused(self, rows, folds, group_by):
        try:
            splits = make_splits(rows, folds=folds, group_by=group_by)
        except UsageError:
            return
        labels = {row.image_id: row.label for row in rows}
        assert len(splits.folds) == folds
        assert times_tested(splits) == Counter(labels.keys())
        for fold in splits.folds:
            roles = splits.roles(fold)
            assert roles.keys() == labels.keys()
            held = {(role, labels[image_id]) for image_id, role in roles.items()}
            assert held == {(role, label) for role in ROLES for label in labels.values()}
        if group_by != "image":
            assert share_nothing(splits, rows, group_by)

    @settings(max_examples=40)
    @given(
        st.lists(st.integers(1, 9), min_size=5, max_size=9),
        st.lists(st.integers(1, 9), min_size=5, max_size=9),
        st.integers(2, 5),
        st.integers(0, 99),
    )
    def test_cases_of_one_label_are_never_refused_when_there_are_enough(self, a, b, folds, seed):
        sizes = [("A", i, n) for i, n in enumerate(a)] + [("B", i, n) for i, n in enumerate(b)]
        labels = [(label, f"{label}{case}") for label, case, n in sizes for _ in range(n)]
        rows = [row(number, *names) for number, names in enumerate(labels)]
        splits = make_splits(rows, folds=folds, seed=seed)
        assert share_nothing(splits, rows, "case")

    def test_a_seed_gives_the_same_splits_whatever_the_order_of_rows(self):
        rows = cohort()
        shuffled = random.Random(0).sample(rows, len(rows))
        assert make_splits(rows, seed=3) == make_splits(shuffled, seed=3)

    def test_another_seed_gives_other_splits_also_for_cases_of_unequal_sizes(self):
        rows = [row(i, "AB"[i % 2], f"c{int(i**0.6) * 2 + i % 2}") for i in range(200)]
        assert make_splits(rows, seed=1).table != make_splits(rows, seed=2).table

    def test_test_parts_are_as_even_as_the_cases_allow(self):
        rows = cohort(cases=10, images=7)
        labels = {row.image_id: row.label for row in rows}
        for roles in make_splits(rows).table:
            sizes = Counter((role, labels[image_id]) for image_id, role in roles.items())
            assert sizes == {
                (role, label): n
                for role, n in (("train", 42), ("val", 14), ("test", 14))
                for label in ("benign", "malignant")
            }

    @pytest.mark.parametrize(("fraction", "cases"), [(0.1, 1), (0.2, 2), (0.34, 3), (0.5, 4)])
    def test_the_validation_part_is_about_the_fraction(self, fraction, cases):
        rows = cohort(cases=10, images=3)
        for groups in groups_by_role(make_splits(rows, val_fraction=fraction), rows, "case"):
            assert len(groups["val"]) == pytest.approx(2 * cases, abs=2)

    def test_as_many_cases_as_folds_are_enough(self):
        rows = cohort(cases=5)
        assert share_nothing(make_splits(rows, folds=5), rows, "case")

    @pytest.mark.parametrize(
        ("cases", "folds", "message"),
        [
            (4, 5, r"label benign has 4 cases, expected at least 5 .*use --folds 4"),
            (3, 2, r"label benign has 3 cases, expected at least 4 .*use --folds 3"),
            (2, 3, r"label benign has 2 cases, expected at least 3 .*add cases"),
        ],
    )
    def test_too_few_cases_are_refused_with_their_number_and_a_way_out(self, cases, folds, message):
        with pytest.raises(UsageError, match=message):
            make_splits(cohort(cases=cases), folds=folds)

    def test_the_folds_that_a_refusal_advises_work(self):
        rows = [row for row in cohort(cases=4) if row.case != "malignant0"]
        with pytest.raises(UsageError, match=r"label malignant has 3 cases.*use --folds 3"):
            make_splits(rows, folds=5)
        assert len(make_splits(rows, folds=3).folds) == 3

    @pytest.mark.parametrize("group_by", ["case", "slide"])
    def test_images_without_a_group_are_refused_with_the_ways_out(self, group_by):
        rows = [*cohort(), row(9999, "benign")]
        with pytest.raises(
            UsageError, match=f"1 of 49 images have no {group_by}.*--group-by image"
        ):
            make_splits(rows, group_by=group_by)

    def test_a_single_label_is_refused(self):
        with pytest.raises(UsageError, match=r"found 1 labels \(benign\), expected at least two"):
            make_splits([row for row in cohort() if row.label == "benign"])

    @pytest.mark.parametrize(
        "options",
        [
            {"folds": 1},
            {"group_by": "patient"},
            {"group_by": "official"},
            {"seed": -1},
            {"val_fraction": 0.0},
            {"val_fraction": 0.6},
            {"val_fraction": float("nan")},
        ],
    )
    def test_an_option_out_of_range_is_refused_by_name(self, options):
        with pytest.raises(UsageError, match=next(iter(options))):
            make_splits(cohort(), **options)

    def test_labels_that_share_all_cases_can_be_divided(self):
        rows = [row(i, "AB"[i % 2], f"c{i % 8 // 2}") for i in range(40)]
        assert share_nothing(make_splits(rows, folds=4), rows, "case")

    def test_a_cohort_that_cannot_be_divided_is_refused(self):
        # Each label is in three of four cases: to be tested in three folds, these must all be
        # apart, and so must every two of the four.
        rows = [
            row(4 * case + label, "ABCD"[label], f"c{case}")
            for case in range(4)
            for label in range(4)
            if case != label
        ]
        with pytest.raises(UsageError, match="no 3 folds found in which every part holds every"):
            make_splits(rows, folds=3)

    @pytest.mark.parametrize("group_by", ["case", "image"])
    def test_eight_thousand_images_take_less_than_a_few_seconds(self, group_by):
        rows = cohort(cases=40, images=100)
        began = time.perf_counter()
        make_splits(rows, group_by=group_by)
        assert time.perf_counter() - began < 6


class TestProtocol:
    def test_splits_by_case_are_case_disjoint(self):
        splits = make_splits(cohort())
        assert (splits.protocol(cohort()), splits.leaks) == ("case-disjoint, 5 folds", False)

    def test_splits_by_slide_tell_how_many_cases_they_divide(self):
        rows = cohort(cases=3, slides=3, images=9)
        splits = make_splits(rows, group_by="slide")
        assert splits.protocol(rows).startswith("slide-disjoint, 5 folds: ")
        assert splits.protocol(rows).endswith(" of 6 cases have images on both sides")
        assert not splits.leaks

    def test_splits_by_slide_that_divide_no_case_are_case_disjoint(self):
        rows = cohort()
        assert make_splits(rows, group_by="slide").protocol(rows) == "case-disjoint, 5 folds"

    def test_splits_by_image_leak(self):
        rows = cohort(images=10)
        splits = make_splits(rows, group_by="image")
        assert splits.leaks
        assert splits.protocol(rows) == (
            "image-level, 5 folds: LEAKS, 12 of 12 cases have images on both sides"
        )

    def test_splits_by_image_of_one_image_a_case_do_not_leak(self):
        rows = cohort(cases=10, images=1)
        splits = make_splits(rows, group_by="image")
        assert (splits.protocol(rows), splits.leaks) == ("case-disjoint, 5 folds", False)

    def test_splits_by_image_of_unknown_cases_count_as_leaking(self):
        rows = [row(i, "AB"[i % 2]) for i in range(20)]
        splits = make_splits(rows, group_by="image")
        assert splits.leaks
        assert "the case of 20 images is not known, so it may LEAK" in splits.protocol(rows)

    def test_a_fold_that_is_not_there_is_refused(self):
        with pytest.raises(UsageError, match="fold 5: the splits have folds 0 to 4"):
            make_splits(cohort()).roles(5)


class TestRepeats:
    def test_repeats_are_the_splits_of_successive_seeds(self):
        rows = cohort()
        repeated = make_splits(rows, repeats=3, seed=4)
        single = [make_splits(rows, seed=seed) for seed in (4, 5, 6)]
        assert repeated.table == sum((splits.table for splits in single), ())
        assert repeated.repeats == (0,) * 5 + (1,) * 5 + (2,) * 5
        assert repeated.protocol(rows) == "case-disjoint, 5 folds × 3 seeds"

    def test_every_repeat_tests_each_image_once(self):
        rows = cohort()
        splits = make_splits(rows, folds=3, repeats=4)
        for repeat in range(4):
            table = splits.table[3 * repeat : 3 * repeat + 3]
            assert set(times_tested(replace(splits, table=table)).values()) == {1}

    def test_repeats_are_written_and_read_back(self, tmp_path):
        splits = make_splits(cohort(), folds=3, repeats=2)
        write_splits(tmp_path / "splits.csv", splits)
        assert read_splits(tmp_path / "splits.csv", cohort()) == splits

    def test_repeats_of_unequal_folds_are_counted_apart(self):
        rows = cohort()
        splits = make_splits(rows)
        uneven = replace(splits, repeats=(0, 0, 0, 1, 1))
        assert uneven.protocol(rows) == "case-disjoint, 5 folds in 2 repeats"

    def test_an_image_level_split_leaks_however_often_it_is_repeated(self):
        rows = cohort(images=10)
        assert make_splits(rows, group_by="image", repeats=2).protocol(rows) == (
            "image-level, 5 folds × 2 seeds: LEAKS, 12 of 12 cases have images on both sides"
        )

    @pytest.mark.parametrize("options", [{"repeats": 0}, {"repeats": 1001}, {"stratify": "case"}])
    def test_an_option_out_of_range_is_refused(self, options):
        with pytest.raises(UsageError, match=f"{next(iter(options))} is .*, expected"):
            make_splits(cohort(), **options)

    def test_more_folds_than_a_file_may_have_are_refused(self):
        with pytest.raises(
            UsageError, match="100 repeats of 101 folds, expected at most 10,000 in all"
        ):
            make_splits(cohort(), folds=101, repeats=100)

    def test_repeats_that_divide_nothing_anew_are_told(self):
        splits = make_splits(cohort(cases=5), folds=5, repeats=2)
        assert same_repeats(splits) == []
        twice = replace(splits, table=splits.table[:5] + splits.table[4::-1])
        assert same_repeats(twice) == ["only 1 of 2 repeats differ: the groups are few"]


class TestSubtypes:
    def mixed(self):
        """Two labels of a common subtype of six cases, a rarer of four and one of a single case."""
        sizes = {"common": 6, "rarer": 4, "single": 1}
        return [
            row(0, label, f"{label}{subtype}{case}")._replace(
                image_id=f"{label}{subtype}{case}-{image}", subtype=f"{label} {subtype}"
            )
            for label in ("A", "B")
            for subtype, cases in sizes.items()
            for case in range(cases)
            for image in range(3)
        ]

    def test_subtypes_are_in_every_part_where_their_cases_suffice(self):
        rows = self.mixed()
        splits = make_splits(rows, folds=3, stratify="subtype", repeats=3)
        subtype = {row.image_id: row.subtype for row in rows}
        for roles in splits.table:
            for role in ROLES:
                held = {subtype[i] for i, r in roles.items() if r == role}
                assert held >= {"A common", "B common"}
            tested = Counter(subtype[i] for i, r in roles.items() if r == "test")
            assert tested["A common"] == tested["B common"] == 6
            assert tested["A rarer"] > 0
            assert tested["B rarer"] > 0
        assert share_nothing(splits, rows, "case")

    def test_what_is_missing_is_told_by_subtype_and_role(self):
        rows = self.mixed()
        splits = make_splits(rows, folds=3, stratify="subtype")
        lines = missing_subtypes(splits, rows, "subtype")
        assert [line.partition(":")[0] for line in lines] == ["A single", "B single"]
        for line in lines:
            assert "train of 1" in line
            assert "test of 2 of 3 folds" in line
        assert missing_subtypes(splits, rows, "label") == []

    def test_every_part_holds_every_label_whatever_the_subtypes(self):
        rows = cohort(cases=5)
        rows = [row._replace(subtype=row.case) for row in rows]
        splits = make_splits(rows, stratify="subtype")
        labels = {row.image_id: row.label for row in rows}
        for roles in splits.table:
            held = {(role, labels[image_id]) for image_id, role in roles.items()}
            assert len(held) == 6

    def test_images_without_subtype_are_refused(self):
        with pytest.raises(UsageError, match=r"48 of 48 images have no subtype.*--stratify label"):
            make_splits(cohort(), stratify="subtype")

    def test_one_subtype_a_label_changes_nothing_but_the_draw(self):
        rows = [row._replace(subtype="x") for row in cohort(cases=10)]
        for roles in make_splits(rows, stratify="subtype").table:
            assert Counter(roles.values()) == {"train": 48, "val": 16, "test": 16}


class TestInnerParts:
    def parts(self, cases, wanted=5, seed=(0, 1), images=3):
        names = [f"{label}{c}" for label in "AB" for c in range(cases) for _ in range(images)]
        return names, inner_parts(names, [name[0] for name in names], wanted, seed)

    @settings(max_examples=60)
    @given(COHORTS, st.integers(2, 6), st.integers(0, 9))
    def test_groups_are_whole_and_every_part_and_its_rest_hold_every_label(self, rows, wanted, n):
        names, labels = [row.case for row in rows], [row.label for row in rows]
        found = inner_parts(names, labels, wanted, [n])
        if found is None:
            return
        assert len({(name, part) for name, part in zip(names, found, strict=True)}) == len(
            set(names)
        )
        assert 2 <= found.max() + 1 <= wanted
        for part in range(found.max() + 1):
            for side in (found == part, found != part):
                assert {labels[i] for i in side.nonzero()[0]} == set(labels)

    def test_as_many_parts_as_wanted_if_the_groups_suffice(self):
        assert self.parts(cases=5)[1].max() == 4
        assert Counter(self.parts(cases=10)[1].tolist()) == dict.fromkeys(range(5), 12)

    def test_fewer_parts_if_the_groups_do_not_suffice_and_none_of_one_group(self):
        assert self.parts(cases=3)[1].max() == 2
        assert self.parts(cases=1)[1] is None
        assert inner_parts([], [], 5, [0]) is None

    def test_the_order_of_images_changes_nothing_and_a_seed_decides(self):
        names, found = self.parts(cases=10)
        order = random.Random(0).sample(range(len(names)), len(names))
        shuffled = [names[i] for i in order]
        again = inner_parts(shuffled, [name[0] for name in shuffled], 5, (0, 1))
        assert again.tolist() == [found[i] for i in order]
        assert self.parts(cases=10, seed=(0, 2))[1].tolist() != found.tolist()


class TestDisjoint:
    @pytest.mark.parametrize("role", ["train", "val"])
    def test_one_moved_image_is_found_with_its_fold_and_case(self, role):
        rows = cohort()
        splits = make_splits(rows)
        image = next(i for i, r in splits.roles(2).items() if r == "test")
        table = [dict(roles) for roles in splits.table]
        table[2][image] = role
        case = next(row.case for row in rows if row.image_id == image)
        with pytest.raises(UsageError, match=rf"fold 2: 1 cases .*\({case} in test and {role}\)"):
            assert_disjoint(replace(splits, table=tuple(table)), rows)

    def test_an_image_level_split_has_nothing_to_keep_apart(self):
        rows = cohort()
        assert_disjoint(make_splits(rows, group_by="image"), rows)

    def test_an_image_level_split_does_not_pass_for_a_case_level_one(self):
        rows = cohort()
        splits = make_splits(rows, group_by="image")
        with pytest.raises(UsageError, match="as group_by is case"):
            assert_disjoint(replace(splits, group_by="case"), rows)


class TestFile:
    @pytest.fixture
    def path(self, tmp_path):
        write_splits(tmp_path / "splits.csv", make_splits(cohort()))
        return tmp_path / "splits.csv"

    def edit(self, path, change):
        lines = path.read_text().splitlines()
        path.write_text("\n".join(change(lines)) + "\n")
        return path

    @pytest.mark.parametrize("group_by", ["case", "slide", "image"])
    def test_what_is_written_is_read_back(self, tmp_path, group_by):
        splits = make_splits(cohort(), group_by=group_by)
        write_splits(tmp_path / "splits.csv", splits)
        assert read_splits(tmp_path / "splits.csv", cohort()) == splits

    def test_the_columns_are_as_documented(self, path):
        header, first, *_ = path.read_text().splitlines()
        assert header == "image_id,fold,role,group_by,repeat"
        assert first.split(",")[0::3] == ["i00000", "case"]

    def test_without_group_by_the_file_must_keep_cases_together(self, path, tmp_path):
        def cut(lines):
            return [line.rsplit(",", 2)[0] for line in lines]

        assert read_splits(self.edit(path, cut), cohort()) == make_splits(cohort())
        write_splits(path, make_splits(cohort(), group_by="image"))
        with pytest.raises(UsageError, match=r"splits\.csv, fold 0: .*as group_by is case"):
            read_splits(self.edit(path, cut), cohort())

    def test_a_false_declaration_is_refused(self, path):
        write_splits(path, make_splits(cohort(), group_by="image"))
        self.edit(
            path,
            lambda lines: (
                [line.replace(",image", ",case") for line in lines[:1]]
                + [line.replace(",image", ",case") for line in lines[1:]]
            ),
        )
        with pytest.raises(UsageError, match="have images in several roles"):
            read_splits(path, cohort())

    def test_images_that_are_missing_or_unexpected_are_counted_and_named(self, path):
        rows = [*cohort()[1:], row(777, "benign", "new")]
        with pytest.raises(
            UsageError, match=r"fold 0: 1 images missing \(i00777\), 1 unexpected \(i00000\)"
        ):
            read_splits(path, rows)

    def test_an_image_that_one_fold_lacks_is_found(self, path):
        with pytest.raises(UsageError, match=r"fold 4: 1 images missing"):
            read_splits(self.edit(path, lambda lines: lines[:-1]), cohort())

    def test_images_declared_absent_are_left_out(self, path):
        splits = read_splits(path, cohort()[1:], absent={"i00000"})
        assert "i00000" not in splits.image_ids
        assert len(splits.image_ids) == 47

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda lines: [lines[0].replace("role", "part"), *lines[1:]], "no column role"),
            (lambda lines: lines[:1], "folds are none, expected 0, 1, 2"),
            (lambda lines: [*lines, lines[1]], r"line 242: i00000 is in fold 0 already"),
            (
                lambda lines: [lines[0], lines[1].replace(",0,", ",x,"), *lines[2:]],
                "line 2: fold is 'x'",
            ),
            (
                lambda lines: [line for line in lines if ",1," not in line],
                "folds are 0, 2, 3, …, expected 0, 1, 2",
            ),
            (lambda lines: [*lines, "i00000,99999999999,test,case,0"], "folds are 0, 1, 2, …"),
            (lambda lines: [*lines, "x,0,testing,case,0"], "line 242: role is 'testing'"),
            (lambda lines: [*lines, "x,0,test,patient,0"], "line 242: group_by is 'patient'"),
            (lambda lines: [*lines, "x,0,test,,0"], "line 242: group_by is ''"),
            (lambda lines: [*lines, "x,0,test,slide,0"], "group_by is slide, but case above"),
            (lambda lines: [*lines, "x,0,test,case,-1"], "line 242: repeat is '-1'"),
            (
                lambda lines: [*lines, "x,0,test,case,1"],
                "line 242: fold 0 is in repeat 1, but in 0 above",
            ),
            (
                lambda lines: [line.replace(",case,0", ",case,1") for line in lines],
                "the repeats of the folds are 1, 1, 1, …, expected 0, then 1",
            ),
            (
                lambda lines: [*lines, *(f"i{n:05},5,test,case,2" for n in range(48))],
                "the repeats of the folds are .*expected 0, then 1",
            ),
        ],
    )
    def test_a_damaged_file_is_refused_by_place_and_reason(self, path, change, message):
        with pytest.raises(UsageError, match=message) as caught:
            read_splits(self.edit(path, change), cohort())
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("old", "message"),
        [
            ("val", "fold 0: no val image with label benign, malignant"),
            ("train", "fold 0: no train image with label benign, malignant"),
            ("test", "fold 0: no test images"),
        ],
    )
    def test_a_fold_without_one_of_the_roles_is_refused(self, path, old, message):
        new = "test" if old == "train" else "train"
        self.edit(path, lambda lines: [line.replace(f",{old},", f",{new},") for line in lines])
        with pytest.raises(UsageError, match=message):
            read_splits(path, cohort())

    def test_a_single_hand_made_fold_is_read(self, tmp_path):
        rows = cohort(cases=3)
        roles = dict(zip("012", ROLES, strict=True))
        lines = [f"{row.image_id},0,{roles[row.case[-1]]}" for row in rows]
        path = tmp_path / "splits.csv"
        path.write_text("\n".join(["image_id,fold,role", *lines]))
        assert read_splits(path, rows).protocol(rows) == "case-disjoint, 1 fold"


class TestOfficial:
    """With small folds of ten BreakHis slides a class, two tested in each fold."""

    @pytest.fixture
    def rows(self):
        names = [
            f"SOB_{letters}-14-{number}{block}-{magnification}-001.png"
            for letters in ("B_A", "M_DC")
            for number in range(10)
            for block in ("A", "B")
            for magnification in (40, 100)
        ]
        return [self.breakhis(name) for name in names]

    @pytest.fixture
    def folder(self, tmp_path, rows):
        for fold in range(1, 6):
            lines = [self.line(row, fold, (int(row.case[3:]) % 5 == fold - 1)) for row in rows]
            (tmp_path / f"dsfold{fold}.txt").write_text("".join(lines), newline="")
        return tmp_path

    def breakhis(self, name):
        found = parse_name(name)
        return ImageRow(
            found.image_id,
            f"images/{name}",
            found.label,
            found.subtype,
            found.slide,
            found.case,
            found.magnification,
            32,
            32,
            "0" * 64,
        )

    def line(self, row, fold, test):
        name = row.path.removeprefix("images/")
        return f"{name}|{row.magnification}|{fold}|{'test' if test else 'train'}\r\n"

    def test_the_test_parts_are_the_published_ones(self, folder, rows):
        splits = read_official(folder, rows)
        assert [len(set(groups["test"])) for groups in groups_by_role(splits, rows, "case")]
        for fold in splits.folds:
            test = {i for i, role in splits.roles(fold).items() if role == "test"}
            assert test == {row.image_id for row in rows if int(row.case[3:]) % 5 == fold}

    def test_validation_is_set_aside_by_cases(self, folder, rows):
        splits = read_official(folder, rows)
        assert share_nothing(splits, rows, "case")
        assert all(len(g["val"]) in (1, 2, 3, 4) for g in groups_by_role(splits, rows, "case"))
        assert splits.protocol(rows) == "official BreakHis folds, case-disjoint"

    def test_one_magnification_of_the_published_images_is_enough(self, folder, rows):
        rows = [row for row in rows if row.magnification == 100]
        assert sorted(read_official(folder, rows).image_ids) == sorted(r.image_id for r in rows)

    def test_images_are_matched_by_the_stem_of_the_file_and_not_by_their_id(self, folder, rows):
        renamed = [row._replace(image_id=f"x{n}") for n, row in enumerate(rows)]
        assert set(read_official(folder, renamed).image_ids) == {r.image_id for r in renamed}

    def test_a_seed_gives_the_same_validation_parts(self, folder, rows):
        assert read_official(folder, rows, seed=1) == read_official(folder, rows[::-1], seed=1)

    def test_blocks_of_one_case_on_both_sides_are_counted_and_allowed(self, folder, rows):
        path = folder / "dsfold1.txt"
        text = path.read_text()
        path.write_text(
            text.replace(
                "SOB_B_A-14-1A-40-001.png|40|1|train", "SOB_B_A-14-1A-40-001.png|40|1|test"
            ).replace(
                "SOB_B_A-14-1A-100-001.png|100|1|train", "SOB_B_A-14-1A-100-001.png|100|1|test"
            )
        )
        splits = read_official(folder, rows)
        assert splits.protocol(rows) == (
            "official BreakHis folds: 1 of 10 cases have images on both sides"
        )
        assert not splits.leaks

    def test_a_slide_on_both_sides_is_refused(self, folder, rows):
        path = folder / "dsfold1.txt"
        text = path.read_text()
        path.write_text(
            text.replace(
                "SOB_B_A-14-1A-40-001.png|40|1|train", "SOB_B_A-14-1A-40-001.png|40|1|test"
            )
        )
        with pytest.raises(UsageError, match=r"fold 0: 1 slides .*adenosis 14-1A in test and"):
            read_official(folder, rows)

    def test_what_is_written_is_read_back(self, folder, rows):
        splits = read_official(folder, rows)
        write_splits(folder / "splits.csv", splits)
        assert read_splits(folder / "splits.csv", rows) == splits

    def test_images_that_a_fold_does_not_name_are_listed(self, folder, rows):
        more = [*rows, self.breakhis("SOB_B_A-14-777-40-001.png")]
        with pytest.raises(
            UsageError,
            match=r"dsfold1\.txt: does not name 1 of 81 images \(SOB_B_A-14-777-40-001\)",
        ):
            read_official(folder, more)

    @pytest.mark.parametrize("side", ["test", "train"])
    def test_a_part_without_a_label_is_refused_with_the_fold(self, folder, rows, side):
        path = folder / "dsfold3.txt"
        other = "train" if side == "test" else "test"
        lines = path.read_text().splitlines(keepends=True)
        lines = [line.replace(side, other) if "SOB_B" in line else line for line in lines]
        path.write_text("".join(lines))
        with pytest.raises(UsageError, match=rf"dsfold3\.txt: no {side} image with label benign"):
            read_official(folder, rows)

    def test_a_training_part_of_one_case_is_refused(self, folder, rows):
        rows = [row for row in rows if row.label == "malignant" or int(row.case[3:]) in (0, 1)]
        path = folder / "dsfold1.txt"
        for other in range(2, 6):
            text = path.read_text().replace("|1|t", f"|{other}|t")
            (folder / f"dsfold{other}.txt").write_text(text)
        with pytest.raises(UsageError, match=r"dsfold1\.txt: no validation part"):
            read_official(folder, rows)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a.png|40|1\n", r"line 1: found 'a\.png\|40\|1'"),
            ("\na.png|40|2|train\n", "line 2: found"),
            ("a.png|40|1|val\n", "line 1: found"),
            ("a.png|40|1|train\na.png|40|1|test\n", "line 2: a is named a second time"),
            ("", "does not name 80 of 80 images"),
        ],
    )
    def test_a_damaged_fold_file_is_refused_by_line(self, folder, rows, text, message):
        (folder / "dsfold1.txt").write_text(text)
        with pytest.raises(UsageError, match=message):
            read_official(folder, rows)

    def test_a_fold_file_that_is_not_there_is_named(self, folder, rows):
        (folder / "dsfold4.txt").unlink()
        with pytest.raises(UsageError, match=r"dsfold4\.txt: cannot be read"):
            read_official(folder, rows)

    def test_images_of_unknown_cases_are_refused(self, folder, rows):
        with pytest.raises(UsageError, match="80 of 80 images have no case"):
            read_official(folder, [row._replace(case="") for row in rows])


class TestPublished:
    @pytest.fixture
    def rows(self, shared):
        lines = (shared / "data" / "folds" / "dsfold1.txt").read_text().split()
        return [TestOfficial().breakhis(line.split("|")[0]) for line in lines]

    def test_the_published_folds_are_read_and_their_shared_cases_counted(self, shared, rows):
        splits = read_official(shared / "data" / "folds", rows)
        assert splits.protocol(rows) == (
            "official BreakHis folds: 10 of 70 cases have images on both sides"
        )
        sizes = [Counter(splits.roles(fold).values())["test"] for fold in splits.folds]
        assert sizes == [2904, 2403, 2577, 2698, 3083]

    def test_case_disjoint_folds_of_all_images_are_nearly_even(self, rows):
        splits = make_splits(rows)
        labels = {row.image_id: row.label for row in rows}
        assert share_nothing(splits, rows, "case")
        for roles in splits.table:
            sizes = Counter(labels[i] for i, role in roles.items() if role == "test")
            assert sizes["benign"] == pytest.approx(2480 / 5, rel=0.05)
            assert sizes["malignant"] == pytest.approx(5429 / 5, rel=0.05)

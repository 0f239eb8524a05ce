import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset.breakhis import LABELS, MAGNIFICATIONS, SUBTYPES, BreakHisName, parse_name

NAMES = st.builds(
    lambda letters, case, block, magnification, sequence: BreakHisName(
        label=LABELS[letters[0]],
        subtype=SUBTYPES[letters],
        slide=case + block,
        case=case,
        magnification=magnification,
        sequence=sequence,
    ),
    st.sampled_from(sorted(SUBTYPES)),
    st.from_regex(r"[0-9]{2}-[0-9]{1,6}", fullmatch=True),
    st.sampled_from(["", "A", "AB", "CD", "G"]),
    st.sampled_from(MAGNIFICATIONS),
    st.integers(0, 99_999),
)


@given(NAMES, st.sampled_from([".png", ".PNG", ".tif", ".jpeg"]))
def test_every_name_survives_format_and_parse(name, suffix):
    assert parse_name(name.image_id + suffix) == name


@given(st.text(max_size=40) | st.from_regex(r"SOB_[BM]_[A-Z]{1,2}-.*\.png", fullmatch=True))
def test_what_parses_is_the_name_it_formats_to(text):
    name = parse_name(text)
    assert name is None or text.startswith(name.image_id + ".")


def test_letters_after_the_number_are_of_the_slide_and_not_of_the_case():
    name = parse_name("SOB_B_A-14-22549AB-100-001.png")
    assert name == ("benign", "adenosis", "14-22549AB", "14-22549", 100, 1)


@pytest.mark.parametrize(("letters", "subtype"), SUBTYPES.items())
def test_each_subtype_has_its_full_name_and_class(letters, subtype):
    name = parse_name(f"SOB_{letters[0]}_{letters[1]}-14-4659-40-001.png")
    assert (name.label, name.subtype) == (LABELS[letters[0]], subtype)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".png",
        "SOB_B_TA-14-4659-40-001",
        "SOB_B_TA-14-4659-40-001.txt",
        "SOB_B_TA-14-4659-40-001.png.png",
        "SOB_B_TA-14-4659-40-001.png\n",
        "folder/SOB_B_TA-14-4659-40-001.png",
        " SOB_B_TA-14-4659-40-001.png",
        "sob_b_ta-14-4659-40-001.png",
        "SOB_B_DC-14-4659-40-001.png",
        "SOB_M_TA-14-4659-40-001.png",
        "SOB_B_XX-14-4659-40-001.png",
        "SOB_X_TA-14-4659-40-001.png",
        "SOB_B_TA_14-4659-40-001.png",
        "SOB_B_TA-4659-40-001.png",
        "SOB_B_TA-14-AB-40-001.png",
        "SOB_B_TA-14-4659ab-40-001.png",
        "SOB_B_TA-14-4659-40X-001.png",
        "SOB_B_TA-14-4659-50-001.png",
        "SOB_B_TA-14-4659-040-001.png",
        "SOB_B_TA-14-4659-40-1.png",
        "SOB_B_TA-14-4659-40-0001.png",
        "SOB_B_TA-14-4659-40-١٢٣.png",
    ],
)
def test_anything_else_is_not_a_name(text):
    assert parse_name(text) is None


def test_all_published_names_parse(shared):
    lines = (shared / "data" / "folds" / "dsfold1.txt").read_text().split()
    names = [parse_name(line.split("|")[0]) for line in lines]
    assert len(names) == 7909
    assert len({name.slide for name in names}) == 81
    assert len({name.case for name in names}) == 70
    assert len({(name.subtype, name.slide) for name in names}) == 82

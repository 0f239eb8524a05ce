"""The synthetic data set: layout, balance, determinism, and stain that does not tell the label."""

from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.breakhis import LABELS, SUBTYPES, parse_name
from pipeline.demo.make import COMMENT, make_demo
from pipeline.demo.slides import (
    ARCHITECTURES,
    BENIGN_EXTREME,
    MALIGNANT_EXTREME,
    PREPARATION_HIGH,
    PREPARATION_LOW,
    Morphology,
    draw_slides,
)
from pipeline.demo.tissue import draw_field
from pipeline.errors import UsageError

SMALL = {"slides": 4, "images": 6, "width": 96, "height": 64}


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, make_demo(folder, **SMALL)


def test_the_paths_are_those_of_breakhis(demo):
    folder, paths = demo
    assert paths[0].relative_to(folder) == Path(
        "BreaKHis_v1/histology_slides/breast/benign/SOB/fibroadenoma"
    ).joinpath("SOB_B_F_14-99001", "100X", "SOB_B_F-14-99001-100-001.png")
    for path in paths:
        name = parse_name(path.name)
        letter, letters = path.name[4], path.name[6:].split("-")[0]
        below = path.relative_to(folder / "BreaKHis_v1/histology_slides/breast").parts
        slide_folder = f"SOB_{letter}_{letters}_{name.slide}"
        assert below == (name.label, "SOB", name.subtype, slide_folder, "100X", path.name)


def test_only_the_returned_images_are_written(demo):
    folder, paths = demo
    assert {folder / path for path in content(folder)} == set(paths)
    assert len(paths) == SMALL["images"]


def test_images_are_8_bit_rgb_of_the_size_asked_for_and_say_they_are_synthetic(demo):
    for path in demo[1]:
        with Image.open(path) as image:
            image.load()
            found = (image.format, image.mode, image.size, image.text)
        assert found == ("PNG", "RGB", (96, 64), {"Comment": COMMENT})


def test_images_are_shared_out_evenly_among_the_slides(demo):
    slides = [parse_name(path.name).slide for path in demo[1]]
    counts = [slides.count(slide) for slide in dict.fromkeys(slides)]
    assert counts == [2, 2, 1, 1]


def test_the_default_plan_has_six_cases_a_class_and_all_subtypes():
    slides = draw_slides(12, 0)
    assert [slide.letter for slide in slides].count("B") == 6
    assert len({slide.number for slide in slides}) == 12
    assert {(slide.letter, slide.subtype) for slide in slides} == set(SUBTYPES)


def test_the_subtypes_are_those_of_the_name_parser():
    assert set(ARCHITECTURES) == set(SUBTYPES)
    assert {letter for letter, _ in ARCHITECTURES} == set(LABELS)


def test_a_second_call_gives_the_same_bytes(demo, tmp_path):
    folder, _ = demo
    before = content(folder)
    make_demo(folder, **SMALL)
    make_demo(tmp_path, **SMALL)
    assert content(folder) == before == content(tmp_path)


def test_an_image_does_not_depend_on_those_made_before_it():
    slide = draw_slides(4, 0)[3]
    alone = draw_field(slide, 64, 48, np.random.default_rng([0, slide.number, 1]))
    draw_field(slide, 64, 48, np.random.default_rng([0, slide.number, 2]))
    again = draw_field(slide, 64, 48, np.random.default_rng([0, slide.number, 1]))
    assert np.array_equal(alone, again)


def test_another_seed_gives_other_slides_and_other_pixels(demo, tmp_path):
    folder, _ = demo
    make_demo(tmp_path, **SMALL, seed=1)
    assert set(content(folder).values()).isdisjoint(content(tmp_path).values())
    assert draw_slides(4, 0) != draw_slides(4, 1)


@pytest.mark.parametrize("seed", range(5))
def test_every_part_of_the_preparation_is_balanced_between_the_classes(seed):
    low, high = np.array(astuple(PREPARATION_LOW)), np.array(astuple(PREPARATION_HIGH))
    slides = draw_slides(12, seed)
    drawn = {
        letter: np.array([astuple(s.preparation) for s in slides if s.letter == letter])
        for letter in LABELS
    }
    scaled = {letter: (values - low) / (high - low) for letter, values in drawn.items()}
    for values in scaled.values():
        # One slide of six in each sixth of the range, for each parameter.
        assert (np.sort(np.floor(values * 6), axis=0) == np.arange(6)[:, None]).all()
    difference = np.abs(scaled["B"].mean(axis=0) - scaled["M"].mean(axis=0))
    assert difference.max() < 1 / 6


def test_stain_differs_from_slide_to_slide_more_than_within_one():
    means = []
    for slide in draw_slides(12, 0):
        images = [draw_field(slide, 160, 120, np.random.default_rng([7, n])) for n in range(3)]
        means.append([image.mean(axis=(0, 1)) for image in images])
    within = np.var(means, axis=1).mean()
    between = np.var(np.mean(means, axis=1), axis=0).mean()
    assert between > 2 * within


def test_malignant_slides_have_the_higher_grades_but_single_traits_overlap():
    slides = draw_slides(200, 0)
    benign, malignant = ([s for s in slides if s.letter == letter] for letter in "BM")
    assert max(s.grade for s in benign) < min(s.grade for s in malignant)
    for field in fields(Morphology):
        ends = [getattr(end, field.name) for end in (BENIGN_EXTREME, MALIGNANT_EXTREME)]
        values = [[getattr(s.morphology, field.name) for s in kind] for kind in (benign, malignant)]
        assert np.mean(values[0]) < np.mean(values[1])
        assert max(values[0]) > min(values[1])
        assert ends[0] <= min(values[0]) <= max(values[1]) <= ends[1]


def test_malignant_fields_hold_more_haematoxylin_than_benign_ones_in_the_same_stain():
    slides = draw_slides(8, 0)
    dark = {"B": [], "M": []}
    for slide in slides:
        same = replace(slide, preparation=slides[0].preparation)
        pixels = draw_field(same, 350, 230, np.random.default_rng(slide.number))
        dark[slide.letter].append(np.mean(pixels[..., 0] < 120))
    assert np.mean(dark["M"]) > np.mean(dark["B"])


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (300, 40)])
def test_unusual_sizes_can_be_drawn(size):
    for slide in draw_slides(8, 3):
        pixels = draw_field(slide, *size, np.random.default_rng(0))
        assert pixels.shape == (size[1], size[0], 3)
        assert pixels.dtype == np.uint8


def test_a_folder_with_other_images_is_refused_untouched(tmp_path):
    real = tmp_path / "BreaKHis_v1/histology_slides/breast/benign/SOB_B_A-14-22549AB-100-001.png"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"real")
    with pytest.raises(UsageError, match=r"holds 1 .*SOB_B_A-14-22549AB-100-001\.png"):
        make_demo(tmp_path, **SMALL)
    assert content(tmp_path) == {real.relative_to(tmp_path): b"real"}


def test_a_larger_demo_is_not_left_mixed_with_a_smaller_one(demo, tmp_path):
    make_demo(tmp_path, **SMALL)
    before = content(tmp_path)
    with pytest.raises(UsageError, match="older demo"):
        make_demo(tmp_path, **{**SMALL, "images": 4})
    assert content(tmp_path) == before


def test_files_beside_the_data_set_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    make_demo(tmp_path, **{**SMALL, "slides": 2, "images": 2})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_place_of_the_data_set_is_refused(tmp_path):
    (tmp_path / "BreaKHis_v1").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        make_demo(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"slides": 1}, "slides is 1"),
        ({"slides": 999, "images": 999}, "slides is 999"),
        ({"images": 3}, "images is 3"),
        ({"width": 31}, "width is 31"),
        ({"height": 5000}, "height is 5000"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(tmp_path, wrong, named):
    with pytest.raises(UsageError, match=named):
        make_demo(tmp_path, **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_progress_is_told_of_every_image(tmp_path):
    told = []

    @contextmanager
    def progress(total, done):
        told.append((total, done))
        yield told.append

    make_demo(tmp_path, **{**SMALL, "slides": 2, "images": 3}, progress=progress)
    assert told == [(3, 0), 1, 1, 1]

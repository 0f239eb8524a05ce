"""A synthetic data set in the layout of BreakHis, to try the pipeline without real tissue."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from cache.files import publish
from pipeline.dataset.breakhis import LABELS, SUBTYPES, BreakHisName
from pipeline.demo.slides import Slide, draw_slides
from pipeline.demo.tissue import draw_field
from pipeline.errors import UsageError
from pipeline.progress import Progress, silent

DATASET_FOLDER = "BreaKHis_v1"
COMMENT = "synthetic, not tissue"
"""Text of each PNG's `Comment`."""

MAX_SLIDES = 998
MAX_IMAGES_A_SLIDE = 999
SIDES = (32, 4096)
"""Least and greatest width and height, px."""

_YEAR = 14
_MAGNIFICATION = 100
_COMPRESSION = 3  # zlib's level: noise hardly shrinks further, but takes long to try


@dataclass(frozen=True)
class _Field:
    """One image to make: a field of view of a slide. `sequence` counts from 1 within it."""

    slide: Slide
    sequence: int

    @property
    def path(self) -> Path:
        """Path below the folder of the data set."""
        slide, number = self.slide, f"{_YEAR}-{self.slide.number}"
        label, subtype = LABELS[slide.letter], SUBTYPES[slide.letter, slide.subtype]
        name = BreakHisName(label, subtype, number, number, _MAGNIFICATION, self.sequence)
        of_slide = f"SOB_{slide.letter}_{slide.subtype}_{number}"
        parts = ("histology_slides/breast", label, "SOB", subtype, of_slide, f"{_MAGNIFICATION}X")
        return Path(*parts, f"{name.image_id}.png")


def make_demo(
    folder: Path,
    *,
    slides: int = 12,
    images: int = 60,
    width: int = 700,
    height: int = 460,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Path]:
    """Make a synthetic data set of H&E-like images at 100X in the layout of BreakHis.

    Every slide is a case of its own; benign and malignant slides take turns. With the same
    arguments, numpy and Pillow, the files are the same byte for byte.

    Args:
        folder: where the folder `BreaKHis_v1` is made. Other things in it stay as they are.
        slides: 2 to `MAX_SLIDES`.
        images: at least one a slide, shared out evenly.
        width: of an image, px.
        height: of an image, px.
        seed: not negative; another seed gives other slides.
        progress: told of each image made.

    Returns:
        The images' paths below `folder`, `images` of them, slide after slide.

    Raises:
        UsageError: an argument is out of its range, or `BreaKHis_v1` holds files that this call
            would not write.
        PublishError: a file cannot be written.
    """
    _check(slides, images, width, height, seed)
    root = folder / DATASET_FOLDER
    fields = {root / field.path: field for field in _plan(slides, images, seed)}
    _refuse_strangers(root, fields)
    with progress(images, 0) as advance:
        for path, field in fields.items():
            _make_image(path, field, width, height, seed)
            advance(1)
    return list(fields)


def _check(slides: int, images: int, width: int, height: int, seed: int) -> None:
    for name, value, least, greatest in (
        ("slides", slides, 2, MAX_SLIDES),
        ("images", images, slides, slides * MAX_IMAGES_A_SLIDE),
        ("width", width, *SIDES),
        ("height", height, *SIDES),
    ):
        if not least <= value <= greatest:
            raise UsageError(f"demo: {name} is {value}, expected {least} to {greatest}")
    if seed < 0:
        raise UsageError(f"demo: seed is {seed}, expected 0 or more")


def _plan(slides: int, images: int, seed: int) -> list[_Field]:
    """Share the images out among the slides; the first slides take what is left over."""
    each, rest = divmod(images, slides)
    return [
        _Field(slide, sequence)
        for place, slide in enumerate(draw_slides(slides, seed))
        for sequence in range(1, each + (place < rest) + 1)
    ]


def _refuse_strangers(root: Path, planned: Iterable[Path]) -> None:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: is a file, expected a folder or nothing: choose another folder")
    strangers = sorted({path for path in root.rglob("*") if not path.is_dir()} - set(planned))
    if strangers:
        raise UsageError(
            f"{root}: holds {len(strangers)} files that are not of this demo, "
            f"first {strangers[0].relative_to(root)}; expected none: choose another folder, "
            "or delete that one if it is an older demo"
        )


def _make_image(path: Path, field: _Field, width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng([seed, field.slide.number, field.sequence])
    pixels = draw_field(field.slide, width, height, rng)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", COMMENT)
    with publish(path) as temporary:
        Image.fromarray(pixels).save(
            temporary, format="PNG", pnginfo=notes, compress_level=_COMPRESSION
        )

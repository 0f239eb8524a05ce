"""The picture of an image with what each patch contributes, and a legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.views import unview
from pipeline.prediction.reader import Seen

FOR = (230, 97, 1)
AGAINST = (0, 114, 178)
"""Orange for, blue against: told apart with any of the usual kinds of colour blindness."""

MAX_SIDE = 1600
"""Pixels of the longer side of a picture; larger images are drawn smaller."""

_MIN_SIDE = 640
_STRENGTH = 0.5
_FRAME = 5
_LEAST_SCALE = 0.02
_MOST_LABELS = 64
_LEAST_LABELLED = 56
_LEAST_FRAMED = 12
_INK, _PAPER = (24, 24, 24), (255, 255, 255)


@dataclass(frozen=True)
class Legend:
    """What is written below the picture.

    Attributes:
        lines: of text, what is said of the image first.
        meaning: of a contribution above 0.
    """

    lines: Sequence[str]
    meaning: str


def scale_of(contributions: NDArray[np.float64]) -> float:
    """The contribution of the strongest colour: 1, 2 or 5 times a power of ten, or 1."""
    known = np.abs(contributions[np.isfinite(contributions)])
    most = max(float(known.max()) if known.size else 0.0, _LEAST_SCALE)
    power = 10.0 ** math.floor(math.log10(most))
    step = next(step for step in (1, 2, 5, 10) if most <= step * power * (1 + 1e-9))
    return float(min(step * power, 1.0))


def draw_overlay(
    seen: Seen, contributions: NDArray[np.float64], options: PatchOptions, legend: Legend
) -> Image.Image:
    """Draw an image with its patches coloured by what each contributes.

    Args:
        seen: the image.
        contributions: (n,) of its patches; not a number leaves a patch without colour.
        options: how it was cut.
        legend: what is written below.
    """
    scale = scale_of(contributions)
    height, width = seen.pixels.shape[:2]
    factor = seen.factor
    zoom = min(max(_MIN_SIDE / max(width, height), 1.0), MAX_SIDE / max(width, height))
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    tinted = _tinted(seen.pixels, contribution_map(seen, contributions, options), scale)
    picture = Image.fromarray(tinted).resize(size, Image.Resampling.LANCZOS)
    if len(options.views) == 1 and options.views[0] == "identity":
        side = options.patch_size * zoom / factor
        _draw_patches(picture, seen.coords * zoom / factor, contributions, side, scale)
    return _with_legend(picture, legend, scale)


def contribution_map(
    seen: Seen, contributions: NDArray[np.float64], options: PatchOptions
) -> NDArray[np.float64]:
    """(H', W') mean contribution of the patches that cover a pixel of the reduced image.

    Not a number where there is none.
    """
    height, width = seen.pixels.shape[:2]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    a_view = len(seen.coords) // len(options.views)
    # Without a gap between patches, whatever the reduction.
    corners = np.stack([seen.coords, seen.coords + options.patch_size], axis=1) // seen.factor
    for number, view in enumerate(options.views):
        seen_as = unview(total, view).shape
        sums, covers = np.zeros(seen_as), np.zeros(seen_as)
        for k in range(number * a_view, (number + 1) * a_view):
            (left, top), (right, bottom) = corners[k]
            place = np.s_[top:bottom, left:right]
            if np.isfinite(contributions[k]):
                sums[place] += contributions[k]
                covers[place] += 1
        total += unview(sums, view, back=True)
        count += unview(covers, view, back=True)
    mean = np.full((height, width), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _tinted(
    pixels: NDArray[np.uint8], mean: NDArray[np.float64], scale: float
) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) mixed with the colour of each one's contribution (H, W)."""
    known = np.nan_to_num(mean)
    strength = _STRENGTH * np.minimum(np.abs(known) / scale, 1.0)[..., None]  # (H, W, 1)
    colour = np.where(known[..., None] > 0, FOR, AGAINST)  # (H, W, 3)
    return np.rint(pixels * (1 - strength) + colour * strength).astype(np.uint8)


def _draw_patches(
    picture: Image.Image,
    corners: NDArray[np.float64],
    contributions: NDArray[np.float64],
    side: float,
    scale: float,
) -> None:
    """Frame each patch, and write its number in scan order and what it contributes.

    Of patches that are too small for a frame, the colour is seen.
    """
    if side < _LEAST_FRAMED:
        return
    draw = ImageDraw.Draw(picture)
    labelled = len(corners) <= _MOST_LABELS and side >= _LEAST_LABELLED
    font = _font(max(11, min(20, int(side / 11))))
    for number, ((x, y), part) in enumerate(zip(corners, contributions, strict=True), 1):
        box = (x, y, x + side - 1, y + side - 1)
        draw.rectangle(box, outline=_frame_colour(part, scale), width=_FRAME if labelled else 2)
        if labelled:
            shown = f"{number}: {signed(part)}"
            place = (x + _FRAME + 6, y + _FRAME + 4)
            left, top, right, bottom = draw.textbbox(place, shown, font=font)
            draw.rectangle((left - 5, top - 4, right + 5, bottom + 4), fill=_PAPER)
            draw.text(place, shown, fill=_INK, font=font)


def _frame_colour(part: float, scale: float) -> tuple[int, int, int]:
    """White for nothing, the full colour for the strongest contribution."""
    strength = min(abs(part) / scale, 1.0) if math.isfinite(part) else 0.0
    colour = FOR if part > 0 else AGAINST
    red, green, blue = (round(255 + (one - 255) * strength) for one in colour)
    return red, green, blue


def signed(contribution: float) -> str:
    """A contribution with its sign; a dash if there is none."""
    if not math.isfinite(contribution):
        return "–"
    return f"{contribution:+.3f}".replace("-", "−")


def _with_legend(picture: Image.Image, legend: Legend, scale: float) -> Image.Image:
    font = _font(15)
    line, margin = 24, 14
    lines = [part for text in legend.lines for part in _wrapped(text, font, picture.width - 28)]
    below = margin + line * len(lines) + 74
    whole = Image.new("RGB", (picture.width, picture.height + below), _PAPER)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    top = picture.height + margin
    for number, text in enumerate(lines):
        draw.text((margin, top + number * line), text, fill=_INK, font=font)
    top += line * len(lines) + 6
    _draw_bar(whole, (margin, top, picture.width - margin, top + 16), scale)
    draw.text((margin, top + 22), f"−{scale:g} against", fill=_INK, font=font)
    draw.text((picture.width / 2, top + 22), "0", fill=_INK, font=font, anchor="ma")
    right = f"+{scale:g} {legend.meaning}"
    draw.text((picture.width - margin, top + 22), right, fill=_INK, font=font, anchor="ra")
    return whole


def _draw_bar(whole: Image.Image, box: tuple[int, int, int, int], scale: float) -> None:
    """A bar from the strongest colour against to the strongest for, as they look on white."""
    left, top, right, bottom = box
    values = np.linspace(-scale, scale, right - left)[None].repeat(bottom - top, 0)
    white = np.full((*values.shape, 3), 255, np.uint8)
    whole.paste(Image.fromarray(_tinted(white, values, scale)), (left, top))
    ImageDraw.Draw(whole).rectangle((left, top, right - 1, bottom - 1), outline=(120, 120, 120))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which has the letters of most names that classes are given."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines

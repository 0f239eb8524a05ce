"""Draw the nuclei of the synthetic data set: epithelium, fibroblasts and lymphocytes."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.demo.slides import Slide
from pipeline.demo.stroma import Stroma

Floats = NDArray[np.float64]

SUPERSAMPLING = 2
"""Canvas pixels a pixel of the image, along each axis."""

FULL = 255
"""A canvas' value for "all of it"."""

AREA = 10_000.0
"""Area that counts of cells refer to, px²."""

_VERTICES = 12
_LYMPHOCYTE_RADIUS = 3.0  # px
_SPINDLE_RADIUS = 3.0  # px, of the circle with the area of a spindle cell's nucleus


class Nuclei(NamedTuple):
    """Nuclei to draw: centres (N, 2) in px, then (N,) each. Angles are in radians."""

    centre: Floats
    radius: Floats
    angle: Floats
    elongation: Floats
    irregularity: Floats
    chromatin: Floats
    nucleolus: NDArray[np.bool_]


def epithelial_nuclei(slide: Slide, centre: Floats, angle: Floats, rng: Generator) -> Nuclei:
    """Nuclei at `centre` (N, 2), lying along `angle` (N,), as the slide's morphology has them."""
    traits, count = slide.morphology, len(centre)
    return Nuclei(
        centre=centre,
        radius=traits.nucleus_radius * np.exp(traits.nucleus_spread * rng.standard_normal(count)),
        angle=angle + traits.disorder * rng.normal(0, 2, count),
        elongation=1.15 + np.abs(rng.normal(0, 0.25, count)),
        irregularity=np.full(count, traits.nucleus_irregularity),
        chromatin=rng.normal(traits.chromatin, traits.chromatin_spread, count),
        nucleolus=rng.random(count) < traits.nucleoli,
    )


def spindle_cells(slide: Slide, stroma: Stroma, rng: Generator) -> Nuclei:
    """Long nuclei of fibroblasts, anywhere in the field, along the fibres."""
    height, width = stroma.density.shape
    count = rng.poisson(slide.architecture.stroma_cells * width * height / AREA)
    centre = rng.uniform((0, 0), (width, height), (count, 2))
    column, row = centre.astype(int).T
    return Nuclei(
        centre=centre,
        radius=_SPINDLE_RADIUS * np.exp(rng.normal(0, 0.15, count)),
        angle=stroma.direction[row, column] + rng.normal(0, 0.2, count),
        elongation=rng.uniform(1.8, 4.5, count),
        irregularity=np.full(count, 0.05),
        chromatin=rng.normal(0.7, 0.12, count),
        nucleolus=np.zeros(count, dtype=bool),
    )


def lymphocytes(slide: Slide, width: int, height: int, rng: Generator) -> Nuclei:
    """Small, round, dark nuclei: some scattered, most around a few foci."""
    count = rng.poisson(slide.preparation.lymphocytes * width * height / AREA)
    foci = rng.uniform((0, 0), (width, height), (3, 2))
    clustered = foci[rng.integers(3, size=count)] + rng.normal(0, (45, 25), (count, 2))
    scattered = rng.uniform((0, 0), (width, height), (count, 2))
    return Nuclei(
        centre=np.where(rng.random((count, 1)) < 0.7, clustered, scattered),
        radius=_LYMPHOCYTE_RADIUS * np.exp(rng.normal(0, 0.08, count)),
        angle=np.zeros(count),
        elongation=np.full(count, 1.05),
        irregularity=np.full(count, 0.03),
        chromatin=rng.normal(0.92, 0.05, count),
        nucleolus=np.zeros(count, dtype=bool),
    )


def draw_nuclei(canvas: Image.Image, nuclei: Nuclei, rng: Generator) -> None:
    """Draw each nucleus as a dark rim of chromatin, a paler inside and maybe a nucleolus."""
    draw = ImageDraw.Draw(canvas)
    outlines = _nuclear_outlines(nuclei, rng) * SUPERSAMPLING
    centres = nuclei.centre[:, None, :] * SUPERSAMPLING
    fills = np.clip(nuclei.chromatin, 0.35, 1.0) * FULL
    paleness = rng.uniform(0.68, 0.98, len(fills))
    for outline, centre, fill, inside, dot in zip(
        outlines, centres, fills, fills * paleness, nuclei.nucleolus, strict=True
    ):
        draw.polygon((centre + outline).ravel().tolist(), fill=int(fill))
        draw.polygon((centre + 0.68 * outline).ravel().tolist(), fill=int(inside))
        if dot:
            draw.polygon((centre + 0.27 * outline).ravel().tolist(), fill=FULL)


def _nuclear_outlines(nuclei: Nuclei, rng: Generator) -> Floats:
    """Contours (N, V, 2) of the nuclei around their centres, px."""
    turn = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    order = np.array([2, 3])[:, None, None]
    shape = (2, len(nuclei.radius), 1)
    bumps = rng.standard_normal(shape) * np.cos(order * turn + rng.uniform(0, 2 * np.pi, shape))
    polar = nuclei.radius[:, None] * (1 + nuclei.irregularity[:, None] * bumps.sum(axis=0))
    long = polar * np.cos(turn) * np.sqrt(nuclei.elongation)[:, None]
    short = polar * np.sin(turn) / np.sqrt(nuclei.elongation)[:, None]
    cos, sin = np.cos(nuclei.angle)[:, None], np.sin(nuclei.angle)[:, None]
    return np.stack([long * cos - short * sin, long * sin + short * cos], axis=-1)

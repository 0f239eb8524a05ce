"""Draw a synthetic field of breast tissue at 100X, stained with haematoxylin and eosin."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.demo.nuclei import (
    AREA,
    FULL,
    SUPERSAMPLING,
    Nuclei,
    draw_nuclei,
    epithelial_nuclei,
    lymphocytes,
    spindle_cells,
)
from pipeline.demo.optics import photograph
from pipeline.demo.slides import Preparation, Slide
from pipeline.demo.stroma import Map, Stroma, draw_stroma, smooth_noise

Floats = NDArray[np.float64]

_NEST_VERTICES = 48
_NEST_SPREAD = 0.22  # standard deviation of the logarithm of a nest's radius
_NESTS_PRESENT = 0.85  # fraction of the places of nests that hold one
_FAT_RADIUS = 17.0  # px
_SECRETIONS = (0.0, 0.0, 0.35)  # cytoplasm's amount in lumens, each as likely
_CYTOPLASM_EOSIN, _CYTOPLASM_HAEMATOXYLIN = 0.62, 0.16


class Nest(NamedTuple):
    """A gland or nest: centre (2,), contour (V, 2) around it and mean radius, px.

    `lumen` is the radius of the lumen as a fraction of the mean radius.
    """

    place: Floats
    contour: Floats
    radius: float
    lumen: float


class Canvases(NamedTuple):
    """Supersampled maps, 0 to 255: where stroma is gone, where cytoplasm is, haematoxylin."""

    empty: Image.Image
    cytoplasm: Image.Image
    nuclei: Image.Image


def draw_field(slide: Slide, width: int, height: int, rng: Generator) -> NDArray[np.uint8]:
    """Draw one field of view of a slide.

    Args:
        slide: the slide.
        width: of the field, px.
        height: of the field, px.
        rng: what is random within a slide.

    Returns:
        RGB pixels (height, width, 3).
    """
    stroma = draw_stroma(slide.preparation.clefts, width, height, rng)
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    canvases = Canvases(*(Image.new("L", size) for _ in Canvases._fields))
    _draw_fat(canvases, slide.preparation, rng)
    nuclei = _draw_nests(canvases, slide, stroma, rng)
    nuclei += [
        _where_tissue_is(canvases, batch)
        for batch in (spindle_cells(slide, stroma, rng), lymphocytes(slide, width, height, rng))
    ]
    nuclei.append(_stray_cells(canvases, slide, rng))
    for batch in nuclei:
        draw_nuclei(canvases.nuclei, batch, rng)
    haematoxylin, eosin = _stain_maps(canvases, stroma, slide, rng)
    return photograph(haematoxylin, eosin, slide.preparation, rng)


def _draw_fat(canvases: Canvases, preparation: Preparation, rng: Generator) -> None:
    """Draw fat cells, close together in one corner of the field or none."""
    width, height = (side / SUPERSAMPLING for side in canvases.empty.size)
    count = rng.poisson(preparation.fat * width * height / AREA)
    corner = rng.uniform((0, 0), (width, height))
    places = corner + rng.normal(0, 4 * _FAT_RADIUS, (count, 2))
    for place, radius in zip(places, rng.normal(_FAT_RADIUS, 3, count), strict=True):
        cell = place + _contour(radius, 0.05, 1.0, 0.0, rng)
        _fill(canvases.empty, cell, 1.0)


def _fill(canvas: Image.Image, polygon: Floats, amount: float) -> None:
    points = (polygon * SUPERSAMPLING).ravel().tolist()
    ImageDraw.Draw(canvas).polygon(points, fill=round(FULL * amount))


def _contour(
    radius: float, irregularity: float, elongation: float, angle: float, rng: Generator
) -> Floats:
    """Closed contour (V, 2) around the origin, a stretched circle with random harmonics."""
    turn = np.linspace(0, 2 * np.pi, _NEST_VERTICES, endpoint=False)
    order = np.arange(2, 8)[:, None]
    phase = rng.uniform(0, 2 * np.pi, order.shape)
    height = irregularity * rng.standard_normal(order.shape) * 2 / order
    polar = radius * np.maximum(1 + np.sum(height * np.cos(order * turn + phase), axis=0), 0.3)
    circle = np.stack([polar * np.cos(turn), polar * np.sin(turn)], axis=1)
    return _stretch(circle, elongation, angle)


def _stretch(points: Floats, elongation: float, angle: float) -> Floats:
    """Stretch by `elongation` at constant area, then turn by `angle`."""
    stretched = points * np.sqrt([elongation, 1 / elongation])
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = stretched.T
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)


def _nest_places(slide: Slide, width: int, height: int, rng: Generator) -> Floats:
    """Centres (N, 2) of glands and nests: a disturbed grid, some places left empty."""
    pitch = slide.architecture.nest_pitch
    start = -pitch * rng.random(2)
    x = np.arange(start[0], width + pitch, pitch)
    y = np.arange(start[1], height + pitch, pitch * 0.87)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    grid[1::2, :, 0] += pitch / 2
    places = grid.reshape(-1, 2)
    places = places[rng.random(len(places)) < _NESTS_PRESENT]
    return np.asarray(places + rng.normal(0, 0.16 * pitch, places.shape))


def _draw_nests(canvases: Canvases, slide: Slide, stroma: Stroma, rng: Generator) -> list[Nuclei]:
    """Draw the glands and nests of the field; give their nuclei."""
    height, width = stroma.density.shape
    batches = []
    for place in _nest_places(slide, width, height, rng):
        column, row = np.clip(place, 0, (width - 1, height - 1)).astype(int)
        nest = _shape_nest(place, slide, stroma.direction[row, column], rng)
        _draw_nest(canvases, nest, slide, rng)
        batches.append(_nest_nuclei(nest, slide, rng))
    return batches


def _shape_nest(place: Floats, slide: Slide, direction: float, rng: Generator) -> Nest:
    layout, traits = slide.architecture, slide.morphology
    radius = layout.nest_radius * np.exp(_NEST_SPREAD * rng.standard_normal())
    elongation = max(1.0, layout.elongation * np.exp(rng.normal(0, 0.15)))
    angle = direction + rng.normal(0, 0.3)
    contour = _contour(radius, traits.nest_irregularity, elongation, angle, rng)
    wall = traits.cell_layers * np.exp(rng.normal(0, 0.2)) * traits.cell_pitch + 3
    return Nest(place, contour, float(radius), max(0.0, float(1 - wall / radius)))


def _draw_nest(canvases: Canvases, nest: Nest, slide: Slide, rng: Generator) -> None:
    """Draw the gap around a nest, its cytoplasm and its lumen."""
    gap = slide.preparation.retraction * rng.random()
    _fill(canvases.empty, nest.place + nest.contour * (1 + gap / nest.radius), 1.0)
    _fill(canvases.cytoplasm, nest.place + nest.contour, rng.uniform(0.85, 1.0))
    if nest.lumen * nest.radius > slide.morphology.cell_pitch / 2:
        secretion = rng.choice(_SECRETIONS)
        _fill(canvases.cytoplasm, nest.place + nest.contour * nest.lumen, secretion)


def _nest_nuclei(nest: Nest, slide: Slide, rng: Generator) -> Nuclei:
    """Nuclei in rings from the edge of a nest inwards to its lumen, disturbed by disorder."""
    traits = slide.morphology
    pitch = traits.cell_pitch / nest.radius
    fractions = np.arange(1 - 0.55 * pitch, nest.lumen + 1 / nest.radius, -pitch)
    if not nest.lumen:
        fractions = np.append(fractions[fractions > pitch / 2], 0)
    counts = np.maximum(1, np.round(2 * np.pi * fractions / pitch)).astype(int)
    turn = np.concatenate([np.arange(count) / count + rng.random() for count in counts])
    edge = _along(nest.contour, turn % 1)
    centre = nest.place + edge * np.repeat(fractions, counts)[:, None]
    centre += rng.normal(0, 0.5 * traits.disorder * traits.cell_pitch, centre.shape)
    return epithelial_nuclei(slide, centre, np.arctan2(edge[:, 1], edge[:, 0]), rng)


def _along(contour: Floats, turn: Floats) -> Floats:
    """Points (N, 2) of a closed contour at fractions (N,) of its vertices."""
    closed = np.vstack([contour, contour[:1]])
    vertex = np.arange(len(closed)) / len(contour)
    return np.stack([np.interp(turn, vertex, closed[:, axis]) for axis in (0, 1)], axis=1)


def _stray_cells(canvases: Canvases, slide: Slide, rng: Generator) -> Nuclei:
    """Epithelial cells that infiltrate the stroma, each with a little cytoplasm."""
    width, height = (side / SUPERSAMPLING for side in canvases.empty.size)
    count = rng.poisson(slide.morphology.stray_cells * width * height / AREA)
    centre = rng.uniform((0, 0), (width, height), (count, 2))
    for place in centre:
        size = slide.morphology.nucleus_radius * rng.uniform(1.3, 1.8)
        _fill(canvases.cytoplasm, place + _contour(size, 0.08, 1.2, rng.uniform(0, 3), rng), 0.9)
    return epithelial_nuclei(slide, centre, rng.uniform(0, np.pi, count), rng)


def _where_tissue_is(canvases: Canvases, nuclei: Nuclei) -> Nuclei:
    """Leave out the nuclei of the stroma that would float in a lumen, a gap or a fat cell."""
    empty = np.asarray(canvases.empty)
    furthest = np.array(canvases.empty.size) - 1
    x, y = np.clip(nuclei.centre * SUPERSAMPLING, 0, furthest).astype(int).T
    kept = empty[y, x] == 0
    return Nuclei(*(values[kept] for values in nuclei))


def _stain_maps(
    canvases: Canvases, stroma: Stroma, slide: Slide, rng: Generator
) -> tuple[Map, Map]:
    """Amounts (H, W) of haematoxylin and of eosin."""
    empty, cytoplasm, chromatin = (_shrunk(canvas) for canvas in canvases)
    height, width = empty.shape
    cloudy = 1 + 0.12 * smooth_noise(rng, width, height, 40)
    grain = 1 + 0.22 * smooth_noise(rng, width, height, 2.5)
    mucin = slide.architecture.mucin
    collagen = stroma.density * (1 - empty) * (1 - cytoplasm) * (1 - 0.85 * mucin)
    collagen *= 1 + 0.13 * smooth_noise(rng, width, height, 2.0)
    eosin = (collagen + _CYTOPLASM_EOSIN * cytoplasm * grain) * cloudy
    basophilia = _CYTOPLASM_HAEMATOXYLIN * cytoplasm * grain + 0.06 * collagen
    basophilia += 0.10 * mucin * (1 - empty) * (1 - cytoplasm)
    haematoxylin = basophilia * (1 - chromatin) + chromatin * (0.75 + 0.25 * grain)
    return np.maximum(haematoxylin, 0), np.maximum(eosin, 0)


def _shrunk(canvas: Image.Image) -> Map:
    """The canvas at the image's size, as fractions."""
    return np.asarray(canvas.reduce(SUPERSAMPLING), np.float32) / np.float32(FULL)

"""The slides of the synthetic data set: what they are of, how they were prepared and stained.

Lengths are in pixels at 100X, where a nucleus is about ten pixels wide. Amounts of stain are
relative to the slide's own strength: 0 is none, 1 is a dark nucleus or dense collagen.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

FIRST_SLIDE = 99001
"""Number of the first slide, beyond those of BreakHis."""


@dataclass(frozen=True, kw_only=True)
class Morphology:
    """What tells benign from malignant epithelium, and overlaps between the two.

    Attributes:
        nucleus_radius: geometric mean of the nuclei's radii, px.
        nucleus_spread: standard deviation of the logarithm of the radius.
        nucleus_irregularity: relative amplitude of the contour's departure from an ellipse.
        chromatin: mean haematoxylin of a nucleus.
        chromatin_spread: its standard deviation from nucleus to nucleus.
        nucleoli: fraction of nuclei with a prominent nucleolus.
        cell_pitch: distance between neighbouring nuclei, px.
        cell_layers: cells between the edge of a gland and its lumen; many leave no lumen.
        disorder: displacement of nuclei from their places, in pitches.
        nest_irregularity: relative amplitude of the contour of a gland or nest.
        stray_cells: epithelial cells outside glands and nests, per 10,000 px².
    """

    nucleus_radius: float
    nucleus_spread: float
    nucleus_irregularity: float
    chromatin: float
    chromatin_spread: float
    nucleoli: float
    cell_pitch: float
    cell_layers: float
    disorder: float
    nest_irregularity: float
    stray_cells: float


BENIGN_EXTREME = Morphology(
    nucleus_radius=3.4,
    nucleus_spread=0.08,
    nucleus_irregularity=0.04,
    chromatin=0.58,
    chromatin_spread=0.05,
    nucleoli=0.0,
    cell_pitch=10.0,
    cell_layers=1.2,
    disorder=0.08,
    nest_irregularity=0.05,
    stray_cells=0.0,
)
"""Morphology at grade 0."""

MALIGNANT_EXTREME = Morphology(
    nucleus_radius=6.0,
    nucleus_spread=0.34,
    nucleus_irregularity=0.17,
    chromatin=0.74,
    chromatin_spread=0.20,
    nucleoli=0.5,
    cell_pitch=12.2,
    cell_layers=5.5,
    disorder=0.55,
    nest_irregularity=0.30,
    stray_cells=5.0,
)
"""Morphology at grade 1."""

GRADES = {"B": (0.0, 0.42), "M": (0.58, 1.0)}
"""Letter of the class → range of its slides' grades. A trait varies around its slide's grade."""

_GRADE_NOISE = 0.12  # standard deviation of each trait of a slide around its grade


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the tissue of a subtype is laid out.

    Attributes:
        nest_radius: mean radius of glands and nests, px.
        nest_pitch: distance between their centres, px.
        elongation: ratio of their length to their width.
        stroma_cells: spindle cells of the stroma, per 10,000 px².
        mucin: fraction of the stroma's eosin that gives way to pale mucin.
    """

    nest_radius: float
    nest_pitch: float
    elongation: float
    stroma_cells: float
    mucin: float


ARCHITECTURES = {
    ("B", "F"): Architecture(
        nest_radius=44, nest_pitch=155, elongation=1.7, stroma_cells=14, mucin=0.0
    ),
    ("B", "TA"): Architecture(
        nest_radius=29, nest_pitch=76, elongation=1.1, stroma_cells=9, mucin=0.0
    ),
    ("B", "A"): Architecture(
        nest_radius=25, nest_pitch=82, elongation=1.3, stroma_cells=12, mucin=0.0
    ),
    ("B", "PT"): Architecture(
        nest_radius=58, nest_pitch=215, elongation=2.6, stroma_cells=28, mucin=0.15
    ),
    ("M", "DC"): Architecture(
        nest_radius=54, nest_pitch=135, elongation=1.3, stroma_cells=12, mucin=0.0
    ),
    ("M", "LC"): Architecture(
        nest_radius=24, nest_pitch=95, elongation=2.2, stroma_cells=16, mucin=0.0
    ),
    ("M", "MC"): Architecture(
        nest_radius=40, nest_pitch=130, elongation=1.3, stroma_cells=5, mucin=0.6
    ),
    ("M", "PC"): Architecture(
        nest_radius=46, nest_pitch=120, elongation=2.3, stroma_cells=10, mucin=0.1
    ),
}
"""Letter of the class and letters of the subtype, as in BreakHis names → how it is laid out."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a slide was cut, stained and photographed, whatever it is of.

    The ranges are those of one laboratory with some care, not of several.

    Attributes:
        haematoxylin: optical density of the stain's strongest channel where its amount is 1.
        eosin: the same for eosin.
        haematoxylin_hue: 0 blue to 1 purple.
        eosin_hue: 0 salmon to 1 magenta.
        brightness: of the empty background, as a fraction of white.
        warmth: of the background's colour, -1 bluish to 1 yellowish.
        vignette: loss of light in the corners, as a fraction.
        blur: standard deviation of the blur, px.
        noise: standard deviation of the camera's noise, grey levels of 255.
        clefts: fraction of the stroma torn open by the knife.
        retraction: width of the gap around glands and nests, px.
        fat: fat cells, per 10,000 px².
        lymphocytes: lymphocytes, per 10,000 px².
    """

    haematoxylin: float
    eosin: float
    haematoxylin_hue: float
    eosin_hue: float
    brightness: float
    warmth: float
    vignette: float
    blur: float
    noise: float
    clefts: float
    retraction: float
    fat: float
    lymphocytes: float


PREPARATION_LOW = Preparation(
    haematoxylin=0.62,
    eosin=0.42,
    haematoxylin_hue=0.3,
    eosin_hue=0.3,
    brightness=0.90,
    warmth=-0.4,
    vignette=0.0,
    blur=0.70,
    noise=1.5,
    clefts=0.02,
    retraction=0.0,
    fat=0.0,
    lymphocytes=0.5,
)

PREPARATION_HIGH = Preparation(
    haematoxylin=0.83,
    eosin=0.58,
    haematoxylin_hue=0.7,
    eosin_hue=0.7,
    brightness=0.98,
    warmth=0.4,
    vignette=0.25,
    blur=0.9,
    noise=4.0,
    clefts=0.20,
    retraction=5.0,
    fat=0.25,
    lymphocytes=6.0,
)


@dataclass(frozen=True, kw_only=True)
class Slide:
    """One slide of one case.

    Attributes:
        number: of the slide and of its case.
        letter: `B` of the benign or `M` of the malignant.
        subtype: letters of the subtype.
        grade: 0 most benign to 1 most malignant.
        architecture: that of the subtype.
        morphology: drawn around the grade.
        preparation: drawn whatever the class.
    """

    number: int
    letter: str
    subtype: str
    grade: float
    architecture: Architecture
    morphology: Morphology
    preparation: Preparation


def draw_slides(count: int, seed: int) -> list[Slide]:
    """Draw the slides of a data set, benign and malignant in turn.

    Within each class every parameter of the preparation is spread evenly over one and the same
    range, in an order of its own (a Latin hypercube). So stain cannot tell the classes apart.

    Args:
        count: slides, at least 2.
        seed: not negative. The same count and seed give the same slides.

    Returns:
        `count` slides, numbered from `FIRST_SLIDE`.
    """
    slides: list[Slide | None] = [None] * count
    for turn, letter in enumerate(GRADES):
        places = range(turn, count, len(GRADES))
        rng = np.random.default_rng([seed, count, turn])
        for place, slide in zip(places, _draw_class(letter, places, rng), strict=True):
            slides[place] = slide
    return [slide for slide in slides if slide is not None]


def _draw_class(letter: str, places: range, rng: Generator) -> Iterator[Slide]:
    subtypes = [subtype for of, subtype in ARCHITECTURES if of == letter]
    low, high = np.array(astuple(PREPARATION_LOW)), np.array(astuple(PREPARATION_HIGH))
    fractions = _latin_hypercube(len(places), 1 + low.size, rng)
    for rank, (place, fraction) in enumerate(zip(places, fractions, strict=True)):
        grade = float(np.interp(fraction[0], (0, 1), GRADES[letter]))
        subtype = subtypes[rank % len(subtypes)]
        yield Slide(
            number=FIRST_SLIDE + place,
            letter=letter,
            subtype=subtype,
            grade=grade,
            architecture=ARCHITECTURES[letter, subtype],
            morphology=_morphology(grade, rng),
            preparation=Preparation(**_named(Preparation, low + (high - low) * fraction[1:])),
        )


def _latin_hypercube(rows: int, columns: int, rng: Generator) -> NDArray[np.float64]:
    """Points (rows, columns) in the unit cube, one in each of `rows` slices of each axis."""
    slices = rng.permuted(np.tile(np.arange(rows), (columns, 1)), axis=1).T
    return (slices + rng.random((rows, columns))) / rows


def _morphology(grade: float, rng: Generator) -> Morphology:
    low, high = np.array(astuple(BENIGN_EXTREME)), np.array(astuple(MALIGNANT_EXTREME))
    traits = np.clip(grade + _GRADE_NOISE * rng.standard_normal(low.size), 0, 1)
    return Morphology(**_named(Morphology, low + (high - low) * traits))


def _named(
    kind: type[Morphology] | type[Preparation], values: NDArray[np.float64]
) -> dict[str, float]:
    return dict(zip(kind.__dataclass_fields__, values.tolist(), strict=True))

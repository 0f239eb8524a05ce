"""Draw the connective tissue of the synthetic data set, and the noise that textures it."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Map = NDArray[np.float32]

_FIBRE_SIZES = ((60.0, 8.0), (26.0, 3.4), (11.0, 1.7))  # px, length and width, coarse to fine
_FIBRE_SHARES = (0.40, 0.34, 0.26)
_WAVE = (90.0, 16.0)  # px, length and height of the waves of the fibres
_BICUBIC_LOSS = 1.4  # interpolated noise varies less than its grid does
_TEXTURE = 256  # px, side of a random texture that repeats; a power of two


class Stroma(NamedTuple):
    """Maps (H, W): density of the collagen, 0 to about 1, and direction of its fibres, radians."""

    density: Map
    direction: Map


def draw_stroma(clefts: float, width: int, height: int, rng: Generator) -> Stroma:
    """Draw wavy collagen: noise stretched along the fibres and bent by smooth noise.

    Args:
        clefts: fraction of the field that is torn open along the fibres.
        width: of the field, px.
        height: of the field, px.
        rng: source of the noise.
    """
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    length, amplitude = _WAVE
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)
    along = x * cos + y * sin
    across = y * cos - x * sin + amplitude * smooth_noise(rng, width, height, length)
    fibres = _fibres(along, across, rng)
    torn = fibres + 0.05 * smooth_noise(rng, width, height, length)
    threshold = float(np.quantile(torn[::4, ::4], clefts))
    density = (0.6 + 1.3 * (fibres - 0.5)) * np.clip((torn - threshold) / 0.05 + 0.5, 0, 1)
    down, right = np.gradient(across)
    return Stroma(density, np.arctan2(-right, down))


def smooth_noise(rng: Generator, width: int, height: int, scale: float) -> Map:
    """Noise (H, W) of mean 0 and about unit variance that varies over `scale` px."""
    coarse = rng.standard_normal((int(height / scale) + 3, int(width / scale) + 3), np.float32)
    box = (0.5, 0.5, 0.5 + width / scale, 0.5 + height / scale)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fine) * np.float32(_BICUBIC_LOSS)


def _fibres(along: Map, across: Map, rng: Generator) -> Map:
    """Noise (H, W) in 0 to 1 over coordinates (H, W) along and across the fibres, px."""
    fibres = np.zeros_like(along)
    for share, (length, width) in zip(_FIBRE_SHARES, _FIBRE_SIZES, strict=True):
        texture = rng.random(_TEXTURE * _TEXTURE, np.float32)
        fibres += share * _bilinear(texture, along / length, across / width)
    return fibres


def _bilinear(texture: Map, x: Map, y: Map) -> Map:
    """Samples of a square texture, flattened, that repeats in both directions."""
    floor_x, floor_y = np.floor(x), np.floor(y)
    dx, dy = x - floor_x, y - floor_y
    column, row = floor_x.astype(np.int32), floor_y.astype(np.int32)
    wrap = _TEXTURE - 1
    left, right = column & wrap, (column + 1) & wrap
    upper, lower = (row & wrap) * _TEXTURE, ((row + 1) & wrap) * _TEXTURE
    above = texture[upper + left]
    above += (texture[upper + right] - above) * dx
    below = texture[lower + left]
    below += (texture[lower + right] - below) * dx
    return above + (below - above) * dy

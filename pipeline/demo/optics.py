"""Photograph the synthetic tissue: light through two stains, a lens and a camera."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.demo.slides import Preparation
from pipeline.demo.stroma import Map

_BLUE, _PURPLE = np.array([0.74, 0.62, 0.27]), np.array([0.52, 0.80, 0.30])
_SALMON, _MAGENTA = np.array([0.08, 0.83, 0.52]), np.array([0.17, 0.96, 0.22])
_WARM = np.array([0.03, 0.0, -0.07])  # change of the background's RGB, as a fraction


def photograph(
    haematoxylin: Map, eosin: Map, preparation: Preparation, rng: Generator
) -> NDArray[np.uint8]:
    """Absorb the lamp's light by the stains, blur it and add the camera's noise.

    The stains absorb by the Beer–Lambert law, with optical density vectors around those of
    A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical staining by color
    deconvolution", 2001.

    Args:
        haematoxylin: amount of the stain (H, W).
        eosin: amount of the stain (H, W).
        preparation: strength and hue of the stains, lamp, lens and camera.
        rng: source of the noise.

    Returns:
        RGB pixels (H, W, 3).
    """
    density = np.multiply.outer(haematoxylin, _haematoxylin_vector(preparation))
    density += np.multiply.outer(eosin, _eosin_vector(preparation))
    light: Map = np.exp(density * np.float32(-np.log(10)))
    height, width = eosin.shape
    light *= np.multiply.outer(_vignette(width, height, preparation.vignette), _lamp(preparation))
    sharp = Image.fromarray(_to_bytes(light))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(preparation.blur)))
    noise = rng.standard_normal(blurred.shape, np.float32)
    return _to_bytes(blurred + np.float32(preparation.noise) * noise)


def _haematoxylin_vector(preparation: Preparation) -> Map:
    """Optical density (3,) in red, green and blue where the amount is 1."""
    vector = _BLUE + (_PURPLE - _BLUE) * preparation.haematoxylin_hue
    return np.asarray(preparation.haematoxylin * vector / vector.max(), np.float32)


def _eosin_vector(preparation: Preparation) -> Map:
    """Optical density (3,) in red, green and blue where the amount is 1."""
    vector = _SALMON + (_MAGENTA - _SALMON) * preparation.eosin_hue
    return np.asarray(preparation.eosin * vector / vector.max(), np.float32)


def _lamp(preparation: Preparation) -> Map:
    """Grey levels (3,) of the empty background."""
    return np.asarray(255 * preparation.brightness * (1 + _WARM * preparation.warmth), np.float32)


def _vignette(width: int, height: int, loss: float) -> Map:
    """Fraction of the light (H, W) that arrives: all in the centre, less `loss` in the corners."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    return np.asarray(1 - loss / 2 * (x**2 + y**2), np.float32)


def _to_bytes(light: Map) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(light), 0, 255), np.uint8)

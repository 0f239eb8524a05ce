"""Which columns of the features are which layer's, and which statistic of its positions."""

from typing import NamedTuple

from cache.errors import RecipeError
from cache.schema import Recipe

VGG16_CHANNELS = {
    "features.3": 64,
    "features.8": 128,
    "features.15": 256,
    "features.22": 512,
    "features.29": 512,
    "features.30": 512,
}
"""Layers of VGG16 that a recipe may name, in the order of the network, and their channels."""

VGG16_NAMES = {
    "conv1_2": "features.3",
    "conv2_2": "features.8",
    "conv3_3": "features.15",
    "conv4_3": "features.22",
    "conv5_3": "features.29",
    "pool5": "features.30",
}
"""The layers by the names that Simonyan and Zisserman (2014) give them, after their ReLU."""

POOLINGS = {"mean": ("mean",), "mean+sd": ("mean", "sd")}
"""What a recipe may name, and the statistics of the positions that it means, in order."""


class Columns(NamedTuple):
    """Some columns of the features: what `pooled` (`mean` or `sd`) of which `layer`, and where."""

    layer: str
    pooled: str
    columns: slice


def columns_of(recipe: Recipe) -> list[Columns]:
    """Say which columns of a cache's features belong to which layer.

    Returns:
        The parts of a feature vector, in order; together they are all of its columns.

    Raises:
        RecipeError: the recipe is of a network, layer or pooling that is not known here.
    """
    layers = recipe.layer.split(",")
    unknown = [layer for layer in layers if layer not in VGG16_CHANNELS]
    if recipe.encoder != "vgg16" or unknown or recipe.pooling not in POOLINGS:
        raise RecipeError(
            f"recipe: encoder {recipe.encoder!r}, layer {recipe.layer!r}, pooling "
            f"{recipe.pooling!r}: expected vgg16, layers of {', '.join(VGG16_CHANNELS)} and "
            f"{' or '.join(POOLINGS)}, whose columns are known"
        )
    parts, start = [], 0
    for pooled in POOLINGS[recipe.pooling]:
        for layer in layers:
            stop = start + VGG16_CHANNELS[layer]
            parts.append(Columns(layer, pooled, slice(start, stop)))
            start = stop
    if start != recipe.feature_dim:
        raise RecipeError(f"recipe: feature_dim is {recipe.feature_dim}, its layers give {start}")
    return parts

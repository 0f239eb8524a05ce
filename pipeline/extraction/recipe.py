"""The recipe of the VGG16 patch features, and the options of it that a user sets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from cache.columns import POOLINGS, VGG16_CHANNELS, VGG16_NAMES
from cache.schema import FEATURE_DTYPES, Recipe
from pipeline.errors import UsageError
from pipeline.extraction.patches import EDGE_POLICIES
from pipeline.extraction.tissue import min_tissue_of, scan_order
from pipeline.extraction.views import VIEWS

ENCODER = "vgg16"
_IMPORTED = "imported:"
LAYERS = VGG16_NAMES
"""Layers whose output can be pooled, in the order of the network (those of convolutions after
their ReLU), and their names in a recipe: those of torchvision."""

DEFAULT_LAYERS = ("conv2_2", "conv3_3", "pool5")
DEFAULT_POOLING = "mean+sd"
DEFAULT_VIEWS = ("identity",)
RGB_MEAN = (123.68, 116.779, 103.939)
"""Mean of the ImageNet training pixels that Simonyan and Zisserman (2014) subtract."""

PRECISIONS = ("float32", "float16", "bfloat16")
"""Arithmetic of the encoder; the last two are mixed precision, on CUDA only."""


@dataclass(frozen=True)
class PatchOptions:
    """What a user chooses about patches, their features and storage.

    Attributes:
        patch_size: side of a patch, in pixels.
        stride: distance between neighbouring patches, in pixels.
        edge: one of `pipeline.extraction.patches.EDGE_POLICIES`.
        dtype: type in which features are stored.
        layers: some of `LAYERS`; whatever their order, features have that of the network.
        pooling: one of `cache.columns.POOLINGS`: the mean over a layer's positions, or the means
            of all layers followed by the population standard deviations of all.
        views: some of `pipeline.extraction.views.VIEWS`, encoded in this order.
        encoder: `vgg16`, or a name that `pipeline.extraction.encoders` knows, whose features are
            its own: `layers` and `pooling` are those of VGG16 only.
        min_tissue: least share of a patch's pixels that show tissue, by the rule of
            `pipeline.extraction.tissue`; patches of less are left out. 0 keeps all.
    """

    patch_size: int = 224
    stride: int = 224
    edge: str = "drop"
    dtype: str = "float16"
    layers: tuple[str, ...] = DEFAULT_LAYERS
    pooling: str = DEFAULT_POOLING
    views: tuple[str, ...] = DEFAULT_VIEWS
    encoder: str = ENCODER
    min_tissue: float = 0.0

    def __post_init__(self) -> None:
        if not 32 <= self.patch_size <= 2048:
            raise UsageError(f"patch size {self.patch_size}: expected 32 to 2048 pixels")
        if not 1 <= self.stride <= 65536:
            raise UsageError(f"stride {self.stride}: expected 1 to 65536 pixels")
        if self.edge not in EDGE_POLICIES:
            raise UsageError(f"edge policy {self.edge!r}: expected {' or '.join(EDGE_POLICIES)}")
        if self.dtype not in FEATURE_DTYPES:
            raise UsageError(f"dtype {self.dtype!r}: expected {' or '.join(FEATURE_DTYPES)}")
        if self.pooling not in POOLINGS:
            raise UsageError(f"pooling {self.pooling!r}: expected {' or '.join(POOLINGS)}")
        _check_names("layers", self.layers, tuple(LAYERS))
        _check_names("views", self.views, VIEWS)
        self._check_tissue()
        own = (DEFAULT_LAYERS, DEFAULT_POOLING)
        if self.encoder != ENCODER and (self.layers, self.pooling) != own:
            raise UsageError(
                f"encoder {self.encoder}: its features are its own: --layers and --pooling are "
                f"for {ENCODER}: leave them out"
            )

    def _check_tissue(self) -> None:
        if not 0 <= self.min_tissue <= 1 or round(self.min_tissue, 4) != self.min_tissue:
            raise UsageError(
                f"least share of tissue {self.min_tissue}: expected 0 to 1, of at most 4 decimals"
            )
        if self.min_tissue and self.views != DEFAULT_VIEWS:
            raise UsageError(
                "patches without tissue cannot be left out of several views, as the views of an "
                "image must have equally many: leave out --min-tissue or --views"
            )

    @property
    def recipe_layers(self) -> tuple[str, ...]:
        """The layers' names in a recipe, in the order of the network."""
        return tuple(LAYERS[layer] for layer in LAYERS if layer in self.layers)

    @property
    def vgg16_dim(self) -> int:
        """Length of a patch's features of VGG16."""
        channels = sum(VGG16_CHANNELS[layer] for layer in self.recipe_layers)
        return channels * len(POOLINGS[self.pooling])


class Chosen(TypedDict, total=False):
    """Those of the options of `PatchOptions` that a user gave."""

    layers: tuple[str, ...]
    pooling: str
    views: tuple[str, ...]


def parse_names(layers: str | None, pooling: str | None, views: str | None) -> Chosen:
    """Read options from a command line; those that are None keep their default."""
    chosen: Chosen = {}
    if layers is not None:
        chosen["layers"] = tuple(layers.split(","))
    if pooling is not None:
        chosen["pooling"] = pooling
    if views is not None:
        chosen["views"] = tuple(views.split(","))
    return chosen


def _check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    if not names or len(set(names)) < len(names) or set(names) - set(known):
        raise UsageError(
            f"{option} {','.join(names)!r}: expected one or more of {', '.join(known)}, each once, "
            "separated by commas"
        )


def vgg16_recipe(
    options: PatchOptions, weights_name: str, weights_sha256: str, precision: str
) -> Recipe:
    """The recipe of VGG16 features, pooled over the positions of some layers' outputs."""
    mean = ", ".join(map(str, RGB_MEAN))
    return Recipe(
        encoder=ENCODER,
        weights=weights_name,
        weights_sha256=weights_sha256,
        layer=",".join(options.recipe_layers),
        pooling=options.pooling,
        feature_dim=options.vgg16_dim,
        patch_size=options.patch_size,
        stride=options.stride,
        scan_order=scan_order(options.min_tissue),
        edge_policy=options.edge,
        colour="8-bit RGB, profiles ignored",
        normalisation=f"0-255 minus ({mean})",
        precision=precision,
        dtype=options.dtype,
        views=options.views,
    )


def options_of(recipe: Recipe) -> PatchOptions:
    """The options by which a recipe was made, as far as it is one of VGG16's.

    Layers that are not known are left out: then its recipe is another one.

    Raises:
        UsageError: it was not made by this software.
    """
    if recipe.encoder.startswith(_IMPORTED):
        raise UsageError(
            f"the features are of encoder {recipe.encoder!r}: they were imported, and cannot be "
            "made here from images"
        )
    size, stride, edge = recipe.patch_size, recipe.stride, recipe.edge_policy
    common = PatchOptions(
        size,
        stride,
        edge,
        recipe.dtype,
        views=recipe.views,
        min_tissue=min_tissue_of(recipe.scan_order),
    )
    if recipe.encoder != ENCODER:
        return replace(common, encoder=recipe.encoder.partition(",")[0])
    named = recipe.layer.split(",")
    layers = tuple(layer for layer, name in LAYERS.items() if name in named) or DEFAULT_LAYERS
    return replace(common, layers=layers, pooling=recipe.pooling)

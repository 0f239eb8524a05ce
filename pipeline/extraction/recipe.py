"""The recipe of the VGG16 patch features, and the options of it that a user sets."""

from dataclasses import dataclass

from cache.schema import FEATURE_DTYPES, Recipe
from pipeline.errors import UsageError
from pipeline.extraction.patches import EDGE_POLICIES, SCAN_ORDER

ENCODER = "vgg16"
FEATURE_DIM = 512
RGB_MEAN = (123.68, 116.779, 103.939)
"""Mean of the ImageNet training pixels that Simonyan and Zisserman (2014) subtract."""

PRECISIONS = ("float32", "float16", "bfloat16")
"""Arithmetic of the encoder; the last two are mixed precision, on CUDA only."""


@dataclass(frozen=True)
class PatchOptions:
    """What a user chooses about patches and storage.

    Attributes:
        patch_size: side of a patch, in pixels.
        stride: distance between neighbouring patches, in pixels.
        edge: one of `pipeline.extraction.patches.EDGE_POLICIES`.
        dtype: type in which features are stored.
    """

    patch_size: int = 224
    stride: int = 224
    edge: str = "drop"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if not 32 <= self.patch_size <= 2048:
            raise UsageError(f"patch size {self.patch_size}: expected 32 to 2048 pixels")
        if not 1 <= self.stride <= 65536:
            raise UsageError(f"stride {self.stride}: expected 1 to 65536 pixels")
        if self.edge not in EDGE_POLICIES:
            raise UsageError(f"edge policy {self.edge!r}: expected {' or '.join(EDGE_POLICIES)}")
        if self.dtype not in FEATURE_DTYPES:
            raise UsageError(f"dtype {self.dtype!r}: expected {' or '.join(FEATURE_DTYPES)}")


def vgg16_recipe(
    options: PatchOptions, weights_name: str, weights_sha256: str, precision: str
) -> Recipe:
    """The recipe of VGG16 features, globally averaged after the last pooling layer."""
    mean = ", ".join(map(str, RGB_MEAN))
    return Recipe(
        encoder=ENCODER,
        weights=weights_name,
        weights_sha256=weights_sha256,
        layer="features.30",
        pooling="mean",
        feature_dim=FEATURE_DIM,
        patch_size=options.patch_size,
        stride=options.stride,
        scan_order=SCAN_ORDER,
        edge_policy=options.edge,
        colour="8-bit RGB, profiles ignored",
        normalisation=f"0-255 minus ({mean})",
        precision=precision,
        dtype=options.dtype,
        views=("identity",),
    )

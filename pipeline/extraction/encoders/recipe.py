"""The recipe of any encoder, and its weights."""

from dataclasses import replace
from pathlib import Path

from cache import Recipe
from pipeline.errors import UsageError
from pipeline.extraction.encoders.architecture import Architecture, output_shape
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.recipe import ENCODER, PatchOptions, vgg16_recipe
from pipeline.extraction.tissue import scan_order
from pipeline.user_file import printable
from pipeline.weights.model_weights import ModelWeights, load_model_weights
from pipeline.weights.weights_file import Weights, load_weights

AnyWeights = Weights | ModelWeights


def load_encoder_weights(encoder: str, path: Path) -> AnyWeights:
    """Load the weights of an encoder.

    Raises:
        UsageError: there is no such encoder, or the file does not hold its weights.
    """
    if encoder == ENCODER:
        return load_weights(path)
    return load_model_weights(path, find_architecture(encoder).state())


def by_name(options: PatchOptions) -> PatchOptions:
    """The same options, with an encoder that is known without the folder it was read from.

    Raises:
        UsageError: there is no such encoder.
    """
    if options.encoder == ENCODER:
        return options
    return replace(options, encoder=find_architecture(options.encoder).name)


def make_recipe(options: PatchOptions, weights: AnyWeights, precision: str) -> Recipe:
    """The recipe by which features are made.

    Raises:
        UsageError: the encoder takes no patches of that size.
    """
    if options.encoder == ENCODER:
        return vgg16_recipe(options, weights.name, weights.sha256, precision)
    architecture = find_architecture(options.encoder)
    check_size(architecture, options)
    return Recipe(
        encoder=architecture.identifier,
        weights=weights.name,
        weights_sha256=weights.sha256,
        layer=architecture.layer,
        pooling="of the encoder",
        feature_dim=architecture.feature_dim,
        patch_size=options.patch_size,
        stride=options.stride,
        scan_order=scan_order(options.min_tissue),
        edge_policy=options.edge,
        colour="8-bit RGB, profiles ignored",
        normalisation=architecture.normalisation,
        precision=precision,
        dtype=options.dtype,
        views=options.views,
    )


def check_size(architecture: Architecture, options: PatchOptions) -> None:
    """Refuse patches of a size that a network does not take.

    Raises:
        UsageError: they are of another size.
    """
    size = architecture.input_size
    if size is not None and options.patch_size != size:
        raise UsageError(
            f"encoder {architecture.name}: takes patches of {size} pixels, not "
            f"{options.patch_size}: give --patch-size {size}"
        )
    try:
        output_shape(architecture.on_meta(), options.patch_size, options.patch_size)
    except Exception as error:
        raise UsageError(
            f"encoder {architecture.name}: does not take patches of {options.patch_size} pixels "
            f"({printable(str(error))}): give another --patch-size"
        ) from error

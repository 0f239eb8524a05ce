"""The weights that a model's features were made with, found without a network."""

from pathlib import Path

from cache import Recipe
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.encoders.recipe import AnyWeights, load_encoder_weights
from pipeline.extraction.recipe import ENCODER, options_of
from pipeline.weights.model_weights import random_model_weights
from pipeline.weights.sources import obtain_weights
from pipeline.weights.weights_file import random_seed, random_weights


def weights_for(recipe: Recipe, file: Path | None) -> AnyWeights:
    """The weights of a file; without one, those of the user's cache, or drawn again.

    Raises:
        UsageError: the file holds no weights, or none was given and none are at hand.
    """
    encoder = options_of(recipe).encoder
    if file is not None:
        return load_encoder_weights(encoder, file)
    seed = random_seed(recipe.weights)
    if seed is not None and encoder != ENCODER:
        return random_model_weights(find_architecture(encoder).state(), seed)
    if seed is not None:
        return random_weights(seed)
    if encoder != ENCODER:
        raise UsageError(f"the models need the weights of {encoder}: give --weights with them")
    try:
        return obtain_weights(offline=True)
    except PipelineError as error:
        raise UsageError(
            f"the {recipe.weights} weights that the models need are not at hand: give --weights "
            "with the file that `pipeline extract` was given"
        ) from error

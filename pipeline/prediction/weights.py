"""The weights that a model's features were made with, found without a network."""

from pathlib import Path

from cache import Recipe
from pipeline.errors import PipelineError, UsageError
from pipeline.weights.sources import obtain_weights
from pipeline.weights.weights_file import Weights, load_weights, random_seed, random_weights


def weights_for(recipe: Recipe, file: Path | None) -> Weights:
    """The weights of a file; without one, those of the user's cache, or drawn again.

    Raises:
        UsageError: the file holds no weights, or none was given and none are at hand.
    """
    if file is not None:
        return load_weights(file)
    seed = random_seed(recipe.weights)
    if seed is not None:
        return random_weights(seed)
    try:
        return obtain_weights(offline=True)
    except PipelineError as error:
        raise UsageError(
            f"the {recipe.weights} weights that the models need are not at hand: give --weights "
            "with the file that `pipeline extract` was given"
        ) from error

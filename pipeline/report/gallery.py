"""The surest mistakes, with what each patch contributed."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from pipeline.dataset.images import ImageError
from pipeline.dataset.manifest import image_path
from pipeline.dataset.picture import open_picture
from pipeline.dataset.reduce import reduce_picture
from pipeline.errors import UsageError
from pipeline.extraction.recipe import options_of
from pipeline.fitting.model_file import load_model
from pipeline.fitting.predictions import Prediction
from pipeline.fitting.record import Fits
from pipeline.prediction.ensemble import Ensemble
from pipeline.prediction.occlusion import contributions
from pipeline.prediction.overlay import Legend, draw_overlay
from pipeline.prediction.reader import Seen
from pipeline.report.run_files import RunFiles

MOST = 8
_QUALITY = 85


class Mistake(NamedTuple):
    """A test image that was called wrongly.

    Attributes:
        prediction: what was said of it.
        probability: of the class that was called.
        picture: a `data:` address; empty if the image cannot be shown.
        problem: why not.
    """

    prediction: Prediction
    probability: float
    picture: str
    problem: str


def surest_mistakes(run: RunFiles, most: int = MOST) -> list[Mistake]:
    """The test images called wrongly with the highest probability, each once."""
    labels = run.fits.records[0].labels
    wrong = [p for p in run.fits.predictions if p.role == "test" and p.called != p.truth]
    wrong.sort(key=lambda p: (-called_probability(p, labels), p.image_id, p.fold))
    chosen: dict[str, Prediction] = {}
    for prediction in wrong:
        if len(chosen) == most:
            break
        chosen.setdefault(prediction.image_id, prediction)
    return [_shown(run, prediction, labels) for prediction in chosen.values()]


def called_probability(prediction: Prediction, labels: Sequence[str]) -> float:
    """The calibrated probability of the class that is called."""
    place = labels.index(prediction.called)
    if len(labels) > 2:
        return prediction.probabilities[place]
    return prediction.probabilities[0] if place == 1 else 1 - prediction.probabilities[0]


def _shown(run: RunFiles, prediction: Prediction, labels: Sequence[str]) -> Mistake:
    probability = called_probability(prediction, labels)
    try:
        picture, problem = as_data(_draw(run, prediction)), ""
    except (ImageError, UsageError) as error:
        picture, problem = "", str(error)
    return Mistake(prediction, probability, picture, problem)


def _draw(run: RunFiles, prediction: Prediction) -> Image.Image:
    """The picture of a test image by the model of its fold, from the cached features."""
    number = run.cache.images.index(prediction.image_id)
    options = options_of(run.recipe)
    seen = cached_image(run, number)
    ensemble = fold_ensemble(run.fits, prediction.fold)
    parts = contributions(ensemble, seen.features, seen.coords)
    shown = ensemble.classes[-1] if len(ensemble.classes) == 2 else prediction.called
    lines = ["Of each patch: the probability with it minus that without it."]
    return draw_overlay(seen, parts, options, Legend(lines, f"for {shown}"))


def fold_ensemble(fits: Fits, fold: int) -> Ensemble:
    """The model of one fold."""
    return Ensemble((load_model(fits.folder / f"fold{fold}" / "model.safetensors"),))


def cached_image(run: RunFiles, number: int) -> Seen:
    """An image of the cache: its pixels from its file, its features from the cache.

    Raises:
        ImageError: the file is not there, or not the one that was encoded.
    """
    row = run.rows[number]
    size = (row.width, row.height)
    pixels, factor = reduce_picture(open_picture(image_path(run.manifest, row), row.sha256, size))
    mine = slice(*run.cache.offsets[number : number + 2].tolist())
    coords = run.cache.all_coords(mine.start, mine.stop)
    return Seen(row.image_id, row.sha256, *size, pixels, factor, coords, run.features[mine])


def as_data(picture: Image.Image) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

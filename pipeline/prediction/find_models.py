"""Where the models are: files, folders of a fold, of a fit or of a workflow."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.fitting.record import check_models

_SUFFIX = ".safetensors"
_NAME = f"model{_SUFFIX}"


def split_models(arguments: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell models from images among the arguments of a command; both must be there.

    Raises:
        UsageError: there are no models, or no images, or a model is not the one that was fitted.
    """
    models: list[Path] = []
    images: list[Path] = []
    for argument in arguments:
        found = find_models(argument)
        if found:
            models += found
        else:
            images.append(argument)
    if not models:
        raise UsageError(
            f"no model among {', '.join(map(str, arguments))}: give a folder of `pipeline "
            f"fit-lstm`, or a file {_NAME}, before the images"
        )
    if not images:
        raise UsageError(f"{len(models)} models, but no images: name them after the models")
    return models, images


def find_models(place: Path) -> list[Path]:
    """The models at a place, by the number of their fold; none if it has none.

    Raises:
        UsageError: a model is not the one that was fitted there.
    """
    if place.suffix == _SUFFIX:
        return [place]
    if not place.is_dir():
        return []
    if (place / _NAME).is_file():
        return [place / _NAME]
    for folder in (place, place / "fits"):
        found = sorted(folder.glob(f"fold*/{_NAME}"), key=_fold)
        if found:
            check_models(folder)
            return found
    return []


def _fold(model: Path) -> tuple[int, str]:
    number = model.parent.name.removeprefix("fold")
    return (int(number) if number.isdecimal() else -1, number)

"""What a fit leaves for the evaluation: the table of predictions of one model in one fold."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.dataset.manifest import MAX_IMAGES, parse_number
from pipeline.errors import UsageError
from pipeline.tables import read_table, write_table


class Prediction(NamedTuple):
    """One image, as one fold's model sees it.

    Attributes:
        image_id: of the image, as the next five.
        slide: that it was cut from.
        case: patient.
        label: class.
        subtype: finer class.
        magnification: nominal.
        role: `train`, `val` or `test` in this fold.
        repeat: which division of the images the fold belongs to.
        fold: its number.
        group_by: what the splits keep together.
        truth: the class that is to be found: label or subtype.
        called: the class that the model calls, at its locked threshold.
        logits: before temperature scaling, one of two classes, else one a class.
        probabilities: after it, of the positive class, else one a class.
    """

    image_id: str
    slide: str
    case: str
    label: str
    subtype: str
    magnification: int
    role: str
    repeat: int
    fold: int
    group_by: str
    truth: str
    called: str
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]


_PLAIN = Prediction._fields[:-2]


def prediction_columns(classes: Sequence[str]) -> tuple[str, ...]:
    """The header of a table: `logit` and `probability`, or those of each class if over two."""
    endings = [""] if len(classes) == 2 else [f"_{name}" for name in classes]
    return (
        *_PLAIN,
        *(f"logit{ending}" for ending in endings),
        *(f"probability{ending}" for ending in endings),
    )


def write_predictions(
    path: Path, predictions: Iterable[Prediction], classes: Sequence[str]
) -> None:
    """Publish a table of predictions.

    Raises:
        PublishError: the file cannot be written.
    """
    rows = ((*p[:-2], *p.logits, *p.probabilities) for p in predictions)
    write_table(path, prediction_columns(classes), rows)


def read_predictions(path: Path, classes: Sequence[str], sha256: str) -> list[Prediction]:
    """Read a table of predictions.

    Args:
        path: the file.
        classes: the classes, the positive one last if there are two.
        sha256: that the file must have.

    Raises:
        UsageError: the file is not such a table, or has changed.
    """
    predictions: list[Prediction] = []
    columns = prediction_columns(classes)
    for line, row in read_table(path, columns):
        predictions.append(_prediction(f"{path}, line {line}", row, columns, classes))
        if len(predictions) > MAX_IMAGES:
            raise UsageError(f"{path}: more than {MAX_IMAGES:,} predictions")
    if file_sha256(path) != sha256:
        raise UsageError(f"{path}: was changed after it was made: fit again")
    return predictions


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prediction(
    where: str, row: Mapping[str, str], columns: Sequence[str], classes: Sequence[str]
) -> Prediction:
    for name in ("truth", "called"):
        if row[name] not in classes:
            shown = f"{row[name][:40]!r}, expected {', '.join(classes)[:200]}"
            raise UsageError(f"{where}: {name} is {shown}: fit again")
    numbers = columns[len(_PLAIN) :]
    try:
        values = [float(row[name]) for name in numbers]
    except ValueError as error:
        raise UsageError(f"{where}: not a prediction ({error}): fit again") from error
    half = len(values) // 2
    logits, probabilities = tuple(values[:half]), tuple(values[half:])
    if not all(map(math.isfinite, logits)):
        raise UsageError(f"{where}: logit {logits}, expected a finite number: fit again")
    if not all(0 <= p <= 1 for p in probabilities):
        raise UsageError(f"{where}: probability {probabilities}, expected 0 to 1: fit again")
    number = {
        name: parse_number(row[name], name, where) for name in ("magnification", "repeat", "fold")
    }
    texts = {name: row[name] for name in _PLAIN if name not in number}
    return Prediction(**texts, **number, logits=logits, probabilities=probabilities)  # type: ignore[arg-type]

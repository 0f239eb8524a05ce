"""New images to a table of predictions, and pictures of what each patch contributes."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cache import Failure
from cache.files import publish
from pipeline.errors import PipelineError, UsageError
from pipeline.fitting.sequences import Sequences
from pipeline.prediction.ensemble import Ensemble, Verdict
from pipeline.prediction.find_images import find_images
from pipeline.prediction.occlusion import contributions
from pipeline.prediction.overlay import Legend, draw_overlay
from pipeline.prediction.reader import Reader, Seen
from pipeline.prediction.weights import weights_for
from pipeline.progress import Progress, silent
from pipeline.tables import write_table

Item = TypeVar("Item")

_AT_ONCE = 32
"""Images whose features wait for the models."""

RESEARCH = "For research, not for diagnosis."


@dataclass(frozen=True)
class PredictOptions:
    """How a prediction is run.

    Attributes:
        weights: of the encoder; None takes those of the user's cache.
        overlay: folder for pictures of what each patch contributes; None draws none.
        device: as for `pipeline extract`.
        engine: as for `pipeline extract`.
        threads: CPU threads; None takes all that the process may use.
        allow_failures: images that may be left out.
    """

    weights: Path | None = None
    overlay: Path | None = None
    device: str = "auto"
    engine: str = "auto"
    threads: int | None = None
    allow_failures: int = 0


@dataclass(frozen=True)
class Predicted:
    """One image, and what is said of it.

    Attributes:
        image: its name.
        sha256: of its file.
        width: in pixels.
        height: in pixels.
        patches: how many it was cut into.
        verdict: of the models.
        overlay: the file of its picture; empty if none was asked for.
    """

    image: str
    sha256: str
    width: int
    height: int
    patches: int
    verdict: Verdict
    overlay: str = ""


@dataclass(frozen=True)
class PredictResult:
    """What was predicted, and what could not be."""

    predictions: list[Predicted]
    failures: list[Failure]
    classes: tuple[str, ...]
    models: int

    def to_json(self) -> str:
        """The rows of the table and the failures, as JSON."""
        columns = prediction_columns(self.classes)
        rows = [dict(zip(columns, table_row(one), strict=True)) for one in self.predictions]
        failures = [one._asdict() for one in self.failures]
        return json.dumps({"predictions": rows, "failures": failures}, indent=2)

    def summary(self) -> str:
        """One line for a person."""
        called = Counter(one.verdict.called for one in self.predictions)
        parts = [f"{len(self.predictions)} images by {self.models} models"]
        parts += [f"{count} {name}" for name, count in sorted(called.items())]
        unlike = sum(one.verdict.distance > 1 for one in self.predictions)
        if unlike:
            parts.append(f"{unlike} unlike the training images (see column `warning`)")
        if self.failures:
            parts.append(f"{len(self.failures)} could not be read")
        return f"{', '.join(parts)}. {RESEARCH}"


def predict(
    models: Sequence[Path],
    images: Sequence[Path],
    out: Path,
    options: PredictOptions | None = None,
    progress: Progress = silent,
) -> PredictResult:
    """Predict images that the models have not seen, and publish a table.

    Args:
        models: files of `pipeline fit-lstm`, of one fit.
        images: files, folders, or CSV files with a column `path`.
        out: the CSV file. Images that cannot be used are listed beside it, in
            `<stem>.failures.csv`.
        options: see `PredictOptions`.
        progress: told of each image.

    Raises:
        UsageError: a model or an option is wrong, or what is here gives other features than the
            models need.
        PipelineError: more images failed than were allowed, or all; the table has the others.
        PublishError: a file cannot be written.
    """
    options = options or PredictOptions()
    ensemble = Ensemble.load(models)
    asked = find_images(images, options.overlay)
    _keep_inputs(out, [one.path for one in asked])
    weights = weights_for(ensemble.recipe, options.weights)
    reader = Reader.of(ensemble.recipe, weights, options.device, options.engine, options.threads)
    run = _Run(ensemble, reader, _Names(options.overlay))
    failures: list[Failure] = []
    predictions: list[Predicted] = []
    with progress(len(asked), 0) as advance:
        for block in _blocks(_counted(reader.read(asked), advance)):
            failures += [one for one in block if isinstance(one, Failure)]
            predictions += run.judge([one for one in block if isinstance(one, Seen)])
    result = PredictResult(predictions, failures, ensemble.classes, len(ensemble.models))
    _publish(result, out, options.allow_failures)
    return result


def _keep_inputs(out: Path, images: Sequence[Path]) -> None:
    if out.resolve() in {path.resolve() for path in images}:
        raise UsageError(f"{out}: is an image, which --out would replace: choose another")


def _counted(items: Iterator[Item], advance: Callable[[int], object]) -> Iterator[Item]:
    for item in items:
        advance(1)
        yield item


def _blocks(items: Iterator[Item]) -> Iterator[list[Item]]:
    while block := list(islice(items, _AT_ONCE)):
        yield block


@dataclass
class _Names:
    """Names of pictures in a folder, no two alike."""

    folder: Path | None

    def __post_init__(self) -> None:
        self._used: Counter[str] = Counter()

    def next(self, image: str) -> Path | None:
        if self.folder is None:
            return None
        stem = Path(image).stem
        self._used[stem.casefold()] += 1
        count = self._used[stem.casefold()]
        return self.folder / (f"{stem}.png" if count == 1 else f"{stem}~{count}.png")


@dataclass(frozen=True)
class _Run:
    """What judges images and draws them."""

    ensemble: Ensemble
    reader: Reader
    names: _Names

    def judge(self, images: Sequence[Seen]) -> list[Predicted]:
        if not images:
            return []
        features = np.concatenate([seen.features for seen in images])  # (P, D)
        ends = np.cumsum([0, *(len(seen.features) for seen in images)])  # (N + 1,)
        verdicts = self.ensemble.judge(Sequences.from_arrays(features, ends))
        return [self._one(*pair) for pair in zip(images, verdicts, strict=True)]

    def _one(self, seen: Seen, verdict: Verdict) -> Predicted:
        picture = self.names.next(seen.name)
        if picture is not None:
            drawn = draw_seen(self.ensemble, self.reader, seen, verdict)
            with publish(picture) as temporary:
                drawn.save(temporary, "PNG")
        return Predicted(
            image=seen.name,
            sha256=seen.sha256,
            width=seen.width,
            height=seen.height,
            patches=len(seen.coords),
            verdict=verdict,
            overlay="" if picture is None else str(picture),
        )


def draw_seen(ensemble: Ensemble, reader: Reader, seen: Seen, verdict: Verdict) -> Image.Image:
    """The picture of an image with what each patch contributes to the verdict."""
    parts = contributions(ensemble, seen.features, seen.coords)
    legend = Legend(legend_lines(ensemble, seen, verdict), f"for {shown_class(ensemble, verdict)}")
    return draw_overlay(seen, parts, reader.options, legend)


def shown_class(ensemble: Ensemble, verdict: Verdict) -> str:
    """The class that a single probability is of: the positive one, or the called of several."""
    return ensemble.classes[-1] if len(ensemble.classes) == 2 else verdict.called


def legend_lines(ensemble: Ensemble, seen: Seen, verdict: Verdict) -> list[str]:
    """What is said of an image, for the legend of its picture."""
    name = shown_class(ensemble, verdict)
    place = 0 if len(ensemble.classes) == 2 else ensemble.classes.index(verdict.called)
    probability = verdict.probabilities[place]
    limit = "" if verdict.threshold is None else f" (threshold {verdict.threshold:.3f})"
    lines = [
        f"{Path(seen.name).name}: called {verdict.called}; probability of {name} "
        f"{probability:.3f}{limit}, {verdict.lowest:.3f} to {verdict.highest:.3f} by member.",
        "Of each patch: the probability with it minus that without it. " + RESEARCH,
    ]
    if verdict.warning:
        lines.insert(1, f"Warning: {verdict.warning}.")
    return lines


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """The header of the table: of two classes, the probability of the positive one only."""
    shown = classes[-1:] if len(classes) == 2 else classes
    return [
        *("image", "called"),
        *(f"probability_{name}" for name in shown),
        *("threshold", "lowest", "highest", "spread", "distance", "fitted", "warning"),
        *("patches", "width", "height", "sha256", "overlay"),
    ]


def table_row(one: Predicted) -> list[object]:
    """The values of one row of the table."""
    verdict = one.verdict
    threshold = "" if verdict.threshold is None else verdict.threshold
    return [
        *(one.image, verdict.called, *verdict.probabilities, threshold),
        *(verdict.lowest, verdict.highest, verdict.spread),
        *(verdict.distance, verdict.fitted, verdict.warning),
        *(one.patches, one.width, one.height, one.sha256, one.overlay),
    ]


def _publish(result: PredictResult, out: Path, allow_failures: int) -> None:
    failures = result.failures
    listing = out.with_name(f"{out.stem}.failures.csv")
    if failures:
        write_table(listing, Failure._fields, failures)
    else:
        listing.unlink(missing_ok=True)
    if result.predictions:
        write_table(out, prediction_columns(result.classes), map(table_row, result.predictions))
    if len(failures) > allow_failures or not result.predictions:
        lines = [f"  {failure.path}: {failure.reason}" for failure in failures[:10]]
        if len(failures) > 10:
            lines.append(f"  … and {len(failures) - 10} more")
        total = len(failures) + len(result.predictions)
        kept = f"; the others are in {out}" if result.predictions else ""
        raise PipelineError(
            f"{len(failures)} of {total} images could not be read (all are in {listing})"
            f"{kept}:\n" + "\n".join(lines)
        )

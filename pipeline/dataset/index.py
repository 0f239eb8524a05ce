"""From a dataset to the rows of its manifest and the list of what is wrong with it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cache.schema import ImageRow
from pipeline.ahead import ahead, usable_cpus
from pipeline.dataset.discover import LAYOUTS, Found, Problem, discover
from pipeline.dataset.images import ImageError
from pipeline.dataset.manifest import write_manifest
from pipeline.dataset.picture import open_picture
from pipeline.dataset.statistics import pixels_digest
from pipeline.errors import PipelineError, UsageError
from pipeline.progress import Progress, silent
from pipeline.tables import write_table

MAX_WORKERS = 8


@dataclass(frozen=True)
class IndexResult:
    """What a dataset holds.

    Attributes:
        rows: of the manifest, in the order of paths.
        problems: the files that are left out, in the order of paths.
        listing: where the problems are written.
    """

    rows: list[ImageRow]
    problems: list[Problem]
    listing: Path

    @property
    def failures(self) -> int:
        """How many files are left out for a fault; a repeated image is none."""
        return sum(problem.kind != "repeat" for problem in self.problems)

    def summary(self) -> str:
        """One line: how many images, of each label, slides, cases, and files left out."""
        labels = Counter(row.label for row in self.rows)
        parts = [f"{len(self.rows)} images"]
        parts += [f"{count} {label}" for label, count in sorted(labels.items())]
        parts += [
            f"{len(known)} {name}"
            for name, known in (
                ("slides", {row.slide for row in self.rows} - {""}),
                ("cases", {row.case for row in self.rows} - {""}),
                ("files left out", self.problems),
            )
            if known
        ]
        return ", ".join(parts)


class _Measured(NamedTuple):
    """A complete row, and the SHA-256 of the image's shape and pixels."""

    row: ImageRow
    pixels_sha256: str


def index_dataset(
    dataset: Path,
    manifest: Path,
    *,
    magnification: int | None = None,
    progress: Progress = silent,
) -> IndexResult:
    """Examine a dataset, and write its manifest and, beside that, the list of its problems.

    The arguments are those of `examine_dataset`.

    Raises:
        UsageError: as `examine_dataset`.
        PipelineError: no image can be used; the list of problems is written all the same.
        PublishError: a file cannot be written.
    """
    result = examine_dataset(dataset, manifest, magnification=magnification, progress=progress)
    write_problems(result.listing, result.problems)
    if not result.rows:
        raise PipelineError(
            f"{manifest}: not written, because none of {len(result.problems)} files can be used: "
            f"{result.listing} has the reason of each"
        )
    write_manifest(manifest, result.rows)
    return result


def examine_dataset(
    dataset: Path,
    manifest: Path,
    *,
    magnification: int | None = None,
    progress: Progress = silent,
) -> IndexResult:
    """List the images of a dataset, open each once, and say what is wrong with the others.

    Args:
        dataset: any level of a BreakHis tree, a folder with one subfolder a class, or a CSV file
            with the columns path and label (and image_id, subtype, slide, case, magnification).
        manifest: where the manifest will be; the paths in the rows are relative to its folder.
        magnification: take only images of this one.
        progress: told of each image that is opened.

    Returns:
        The rows, which may be of fewer than two labels or none if damage took the others.

    Raises:
        UsageError: the dataset does not exist, has none of the layouts, holds no images, fewer
            than two labels, or none of the magnification.
    """
    for written in (manifest, problems_path(manifest)):
        if dataset.resolve() == written.resolve():
            raise UsageError(
                f"{written}: is the dataset itself, and would be written: choose another name for "
                "the manifest"
            )
    listing = discover(dataset, manifest)
    found = sorted(listing.found, key=lambda image: image.row.path)
    if magnification is not None:
        found = _of_magnification(found, magnification, dataset)
    found, twice = _unique(found)
    named = [*listing.problems, *twice]
    _check_labels(found, named, dataset)
    measured, unreadable = _measure_all(found, progress)
    rows, repeats = _without_repeats(measured)
    problems = sorted([*named, *unreadable, *repeats])
    return IndexResult(rows, problems, problems_path(manifest))


def _of_magnification(found: list[Found], magnification: int, dataset: Path) -> list[Found]:
    chosen = [image for image in found if image.row.magnification == magnification]
    if chosen:
        return chosen
    known = sorted({image.row.magnification for image in found} - {0})
    if not known:
        raise UsageError(
            f"{dataset}: its images have no magnification: leave the option out, or give a CSV "
            "file with a column magnification"
        )
    raise UsageError(
        f"{dataset}: no image has magnification {magnification}, "
        f"found {', '.join(map(str, known))}: choose one of these"
    )


def _unique(found: list[Found]) -> tuple[list[Found], list[Problem]]:
    """Keep the first image of each id."""
    first: dict[str, Found] = {}
    problems = []
    for image in found:
        other = first.setdefault(image.row.image_id, image)
        if other is not image:
            reason = f"its image_id {image.row.image_id} is also that of {other.row.path}: rename"
            problems.append(Problem(image.row.path, "name", f"{reason} or remove one"))
    return list(first.values()), problems


def _check_labels(found: list[Found], problems: list[Problem], dataset: Path) -> None:
    labels = Counter(image.row.label for image in found)
    if len(labels) >= 2:
        return
    one = "".join(f"one label: {label} ({count} images)" for label, count in labels.items())
    message = f"{dataset}: found {one or 'no image with a label'}, expected at least two labels: "
    if problems:
        path, _, reason = min(problems)
        message += f"{len(problems)} files have problems, such as {path} ({reason}); "
    raise UsageError(f"{message}index the folder that holds all classes; {LAYOUTS}")


def _measure_all(found: list[Found], progress: Progress) -> tuple[list[_Measured], list[Problem]]:
    measured, problems = [], []
    with progress(len(found), 0) as advance:
        workers = min(MAX_WORKERS, usable_cpus())  # Pillow and hashlib let other threads run
        for result in ahead(_measure, found, workers, window=2 * workers):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                measured.append(result)
            advance(1)
    return measured, problems


def _measure(image: Found) -> _Measured | Problem:
    try:
        picture = open_picture(image.file)
        digest = pixels_digest(picture.height, picture.width)
        for band in picture.bands():
            digest.update(band.data)
    except ImageError as error:
        return Problem(image.row.path, "unreadable", str(error))
    row = image.row._replace(width=picture.width, height=picture.height, sha256=picture.sha256)
    return _Measured(row, digest.hexdigest())


def _without_repeats(measured: list[_Measured]) -> tuple[list[ImageRow], list[Problem]]:
    """Keep the first image of those with the same pixels; none if their labels differ."""
    same: dict[str, list[ImageRow]] = {}
    for row, digest in measured:
        same.setdefault(digest, []).append(row)
    rows, problems = [], []
    for first, *others in same.values():
        if any(row.label != first.label for row in others):
            problems += _conflicts([first, *others])
            continue
        rows.append(first)
        reason = f"the same pixels as {first.path}, which is kept"
        problems += [Problem(row.path, "repeat", reason) for row in others]
    return rows, problems


def _conflicts(rows: list[ImageRow]) -> list[Problem]:
    problems = []
    for row in rows:
        other = next(one for one in rows if one.label != row.label)
        reason = (
            f"{row.label} here, but {other.path} has the same pixels and is {other.label}: "
            "remove the wrong one"
        )
        problems.append(Problem(row.path, "conflict", reason))
    return problems


def problems_path(manifest: Path) -> Path:
    """Where the problems of a dataset are listed: `manifest.problems.csv` for `manifest.csv`."""
    return manifest.with_name(f"{manifest.stem}.problems.csv")


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Write the problems as CSV with the columns path, kind and reason, published whole.

    Raises:
        PublishError: the file cannot be written.
    """
    write_table(path, Problem._fields, problems)

"""Read the feature files of another tool into a cache."""

import itertools
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cache import Failure, ImageRow, Recipe, write_cache
from pipeline.dataset.manifest import read_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.exchange.describe import Described
from pipeline.exchange.find_files import Found, find_files
from pipeline.exchange.foreign_file import ForeignFileError
from pipeline.exchange.origin import Origin, find_origin
from pipeline.exchange.read_image import Imported, read_image, stored
from pipeline.interrupts import Interruption, watch_signals
from pipeline.progress import Advance, Progress, silent
from pipeline.tables import write_table


@dataclass(frozen=True)
class ImportOptions:
    """How files are imported.

    Attributes:
        mpp: micrometres a pixel of the images; for STAMP, whose coordinates are micrometres.
        stated: what the user says of the features, where the files do not say it.
        allow_failures: images that may be missing from the cache.
        overwrite: replace an output that exists.
    """

    mpp: float | None = None
    stated: Described = field(default_factory=Described)
    allow_failures: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes:
        images: images in the cache.
        patches: patches in the cache.
        encoder: what the recipe calls the network.
        failures: images that have no features.
        extra: names of files that no image of the manifest asked for.
    """

    images: int
    patches: int
    encoder: str
    failures: list[Failure]
    extra: list[str]

    def summary(self) -> str:
        """One line for a person."""
        parts = [f"{self.images} images, {self.patches} patches, encoder {self.encoder}"]
        if self.failures:
            parts.append(f"{len(self.failures)} images have no features")
        return "; ".join(parts)


def import_files(
    folder: Path,
    tool: str,
    manifest: Path,
    out: Path,
    options: ImportOptions | None = None,
    progress: Progress = silent,
) -> ImportResult:
    """Read a file an image, in the manifest's order, and publish a cache of their features.

    Args:
        folder: the tool's folder, or the one in it that holds the files.
        tool: one of `pipeline.exchange.layouts.LAYOUTS`.
        manifest: the images, their labels and their sizes.
        out: the cache. Images without features are listed beside it, in `<stem>.failures.csv`.
        options: see `ImportOptions`.
        progress: told of each image.

    Raises:
        UsageError: the manifest, the folder or an option is wrong, or `out` exists.
        PipelineError: more images failed than were allowed, or all of them.
        PublishError: the output cannot be written.
        StoppedError: a signal came; nothing was published.
    """
    options = options or ImportOptions()
    rows = read_manifest(manifest)
    origin = find_origin(folder, tool, options.stated, options.mpp)
    found = find_files(folder, tool, rows)
    _check_out(out, found, options.overwrite)
    job = _Job(rows, origin, found, out, options.allow_failures)
    with (
        watch_signals("stopping after this image") as interruption,
        progress(len(rows), 0) as advance,
    ):
        return job.run(interruption, advance)


def _check_out(out: Path, found: Found, overwrite: bool) -> None:
    if out.resolve().parent == found.folder.resolve():
        raise UsageError(f"{out}: lies among the files to import: choose another --out")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists: choose another --out, or replace it by --overwrite")


@dataclass(frozen=True, eq=False)
class _Job:
    """One import: what is asked for, and where it goes."""

    rows: Sequence[ImageRow]
    origin: Origin
    found: Found
    out: Path
    allow_failures: int
    failures: list[Failure] = field(default_factory=list)

    def run(self, interruption: Interruption, advance: Advance) -> ImportResult:
        images = self._images(interruption, advance)
        first = next(images, None)
        if first is None:
            raise self._error()
        patches = 0
        with write_cache(self.out, first.recipe, self._provenance()) as writer:
            for image in itertools.chain([first], images):
                writer.append(image.row, image.features, image.coords)
                patches += len(image.coords)
            self._list_failures()
            for failure in self.failures:
                writer.fail(failure)
        done = len(self.rows) - len(self.failures)
        return ImportResult(done, patches, first.recipe.encoder, self.failures, self.found.extra)

    def _images(self, interruption: Interruption, advance: Advance) -> Iterator[Imported]:
        """Those that can be taken; the others become failures."""
        recipe: Recipe | None = None
        for row in self.rows:
            if interruption:
                raise interruption.error("nothing was imported; run the same command again")
            path = self.found.path_of(row)
            try:
                image = read_image(path, row, self.origin)
                recipe = recipe or image.recipe
                image = replace(image, features=stored(image, recipe))
            except ForeignFileError as error:
                self.failures.append(Failure(row.image_id, row.path, f"{path}: {error}"))
            else:
                yield image
            advance(1)

    def _list_failures(self) -> None:
        listing = self._listing
        if not self.failures:
            listing.unlink(missing_ok=True)
            return
        if len(self.failures) > self.allow_failures:
            raise self._error()
        write_table(listing, Failure._fields, self.failures)

    @property
    def _listing(self) -> Path:
        return self.out.with_name(f"{self.out.stem}.failures.csv")

    def _error(self) -> PipelineError:
        """List the failures, and say that they are too many."""
        write_table(self._listing, Failure._fields, self.failures)
        lines = [f"  {failure.reason}" for failure in self.failures[:10]]
        if len(self.failures) > 10:
            lines.append(f"  … and {len(self.failures) - 10} more")
        failed, total = len(self.failures), len(self.rows)
        advice = (
            "Nothing can be imported: see the reasons above"
            if failed == total
            else "Mend these files or remove the images from the manifest, and run again; or go "
            f"on without them: --allow-failures {failed}"
        )
        heading = f"{failed} of {total} images could not be imported (all are in {self._listing}):"
        return PipelineError("\n".join([heading, *lines, advice]))

    def _provenance(self) -> dict[str, str]:
        made = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": f"patch-feature-pipeline {version('patch-feature-pipeline')}",
            "imported_from": self.origin.tool,
            "folder": str(self.found.folder),
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        if self.origin.mpp is not None:
            made["mpp"] = str(self.origin.mpp)
        if self.origin.record is not None:
            made["exported_fingerprint"] = self.origin.record.recipe.fingerprint
            made["exported_features_sha256"] = self.origin.record.features_sha256
        return made

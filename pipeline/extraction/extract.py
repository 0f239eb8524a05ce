"""Stage one: every image of a manifest, once, to a feature cache."""

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cache import Failure, FeatureCache, ImageRow, Recipe, ShardPlace, merge
from pipeline.dataset.manifest import read_manifest
from pipeline.errors import PipelineError
from pipeline.extraction.encoders.recipe import (
    AnyWeights,
    by_name,
    load_encoder_weights,
    make_recipe,
)
from pipeline.extraction.encoding import STOPPING, Encoding, clamp_threads
from pipeline.extraction.engines.choose import choose_backend, make_encoder
from pipeline.extraction.engines.encoder import Encoder
from pipeline.extraction.existing import check_existing
from pipeline.extraction.known import KnownFeatures
from pipeline.extraction.lock import locked
from pipeline.extraction.part import Part
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.shards import Shard, ShardFolder
from pipeline.interrupts import watch_signals
from pipeline.progress import Progress, silent
from pipeline.tables import write_table

log = logging.getLogger(__name__)

IMAGES_PER_SHARD = {"cpu": 32, "cuda": 512}
"""The most images whose features an interruption can cost: half a minute of a CPU."""


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction is run.

    Attributes:
        patches: what changes the features.
        device: `auto`, `cpu`, `cuda` (all of them), or `cuda:N,cuda:M`.
        engine: one of `pipeline.extraction.engines.choose.ENGINES`.
        precision: `auto`, or one of `pipeline.extraction.recipe.PRECISIONS`.
        threads: CPU threads; None takes all that the process may use. Never more than those.
        allow_failures: images that may be missing from the cache.
        overwrite: replace an output that was made from something else.
        images_per_shard: images in a shard; None takes `IMAGES_PER_SHARD`.
        part: of the manifest, to be merged with the others later; None is all of it.
    """

    patches: PatchOptions = field(default_factory=PatchOptions)
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    allow_failures: int = 0
    overwrite: bool = False
    images_per_shard: int | None = None
    part: Part | None = None


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction did.

    Attributes:
        images: images in the cache.
        patches: patches in the cache.
        encoded: images encoded now; the others were there already.
        seconds: time spent encoding them.
        failures: images that have no features.
        weights: name of the weights.
        device: what computed.
    """

    images: int
    patches: int
    encoded: int
    seconds: float
    failures: list[Failure]
    weights: str
    device: str

    def summary(self) -> str:
        """One line for a person."""
        parts = [f"{self.images} images, {self.patches} patches, {self.weights} weights"]
        if self.encoded:
            rate = self.encoded / self.seconds
            parts.append(f"{self.encoded} encoded now, {rate:.2f} images a second on {self.device}")
        else:
            parts.append("nothing was left to encode")
        if self.failures:
            parts.append(f"{len(self.failures)} images have no features")
        return "; ".join(parts)


def extract(
    manifest: Path,
    weights_file: Path,
    out: Path,
    options: ExtractOptions | None = None,
    progress: Progress = silent,
) -> ExtractResult:
    """Encode the images of a manifest and publish their features.

    What was computed is kept in shards beside `out` until all is done, so a run that was
    interrupted goes on where it stopped.

    Args:
        manifest: the CSV file that `pipeline index` makes.
        weights_file: VGG16 weights, as `pipeline weights` makes them.
        out: the cache to publish. Images without features are listed beside it, in
            `<stem>.failures.csv`.
        options: see `ExtractOptions`.
        progress: told of each image.

    Raises:
        UsageError: the manifest, the weights or an option is wrong, or `out` was made from
            something else.
        PipelineError: more images failed than were allowed, or all of them, and the features of
            the others are kept in the shards; or another process writes the same output.
        StoppedError: a signal came; what was encoded until then is kept.
        PublishError: the output cannot be written.
    """
    options = options or ExtractOptions()
    options = replace(options, patches=by_name(options.patches))
    part = options.part
    rows = read_manifest(manifest) if part is None else part.read(manifest, options.patches)
    place = None if part is None else part.place(manifest)
    encoder = options.patches.encoder
    backend = choose_backend(options.device, options.precision, options.engine, encoder)
    weights = load_encoder_weights(encoder, weights_file)
    recipe = make_recipe(options.patches, weights, backend.precision)
    folder = ShardFolder(out, recipe)
    job = _Job(out, rows, recipe, folder, options, place)
    if folder.is_tidy() and job.is_done_already():
        return job.result()
    with locked(out, folder.root), watch_signals(STOPPING) as interruption:
        folder.clear_unfinished()
        shards = folder.plan(
            rows, options.images_per_shard or IMAGES_PER_SHARD[backend.device_type]
        )
        if job.is_done_already():
            folder.keep_only_output(shards)
            return job.result()
        threads = clamp_threads(options.threads)
        network = make_encoder(weights, backend, options.patches, threads)
        made = provenance(weights, network)
        encoding = Encoding(manifest, recipe, network, options.patches, threads, made, interruption)
        return job.run(encoding, shards, progress)


def provenance(weights: AnyWeights, encoder: Encoder) -> dict[str, str]:
    """When, where and with what features are made."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": f"patch-feature-pipeline {version('patch-feature-pipeline')}",
        "engine": encoder.engine,
        "device": encoder.device_name,
        "weights_source": weights.source,
        "pillow": version("pillow"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


@dataclass(frozen=True)
class _Job:
    """One extraction: what is asked for, and where it goes."""

    out: Path
    rows: Sequence[ImageRow]
    recipe: Recipe
    folder: ShardFolder
    options: ExtractOptions
    place: ShardPlace | None

    def is_done_already(self) -> bool:
        """Whether the output exists and is what is asked for; another one is refused."""
        if not self.out.exists() or self.options.overwrite:
            return False
        check_existing(self.out, self.recipe, self.rows, self.options.allow_failures, self.place)
        log.info("%s: already complete", self.out)
        return True

    def run(self, encoding: Encoding, shards: Sequence[Shard], progress: Progress) -> ExtractResult:
        known = KnownFeatures(self.recipe)
        known.add_all(self.folder.files())
        encoded = encoding.fill(shards, known, progress)
        known.close()
        failures = self._publish(shards, encoding.provenance)
        self.folder.keep_only_output(shards)
        return self.result(encoded.images - len(failures), encoded.seconds)

    def _publish(self, shards: Sequence[Shard], made: Mapping[str, str]) -> list[Failure]:
        failures = [failure for shard in shards for failure in shard.failures()]
        listing = self.out.with_name(f"{self.out.stem}.failures.csv")
        if failures:
            write_table(listing, Failure._fields, failures)
        else:
            listing.unlink(missing_ok=True)
        total = len(self.rows)
        if len(failures) == total or len(failures) > self.options.allow_failures:
            raise PipelineError(_failure_message(listing, failures, total))
        merge([shard.path for shard in shards], self.out, made, self.place)
        return failures

    def result(self, encoded: int = 0, seconds: float = 0.0) -> ExtractResult:
        """What the output holds."""
        with FeatureCache(self.out) as cache:
            return ExtractResult(
                images=len(cache),
                patches=cache.patches,
                encoded=encoded,
                seconds=seconds,
                failures=cache.failures,
                weights=self.recipe.weights,
                device=cache.provenance.get("device", ""),
            )


def _failure_message(listing: Path, failures: list[Failure], total: int) -> str:
    lines = [f"  {failure.path}: {failure.reason}" for failure in failures[:10]]
    if len(failures) > 10:
        lines.append(f"  … and {len(failures) - 10} more")
    advice = (
        "Nothing can be extracted: see the reasons above"
        if len(failures) == total
        else "The features of the others are kept. Mend or remove these images, index again and "
        f"run again; or go on without them: --allow-failures {len(failures)}"
    )
    heading = f"{len(failures)} of {total} images could not be encoded (all are in {listing}):"
    return "\n".join([heading, *lines, advice])

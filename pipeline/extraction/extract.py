"""Stage one: every image of a manifest, once, to a feature cache."""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from cache import CacheError, Failure, FeatureCache, ImageRow, Recipe, check, merge, write_cache
from pipeline.ahead import ahead, usable_cpus
from pipeline.dataset.manifest import image_path, read_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.encoder import PatchEncoder, choose_device, choose_precision
from pipeline.extraction.recipe import PatchOptions, vgg16_recipe
from pipeline.extraction.shards import KnownFeatures, Shard, ShardFolder, is_done, unknown_rows
from pipeline.extraction.stream import ImageFeatures, encode_stream, load_image
from pipeline.progress import Progress, silent
from pipeline.tables import write_table
from pipeline.weights.weights_file import Weights, load_weights

log = logging.getLogger(__name__)

IMAGES_PER_SHARD = {"cpu": 32, "cuda": 512}
"""The most images whose features an interruption can cost: half a minute of a CPU."""


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction is run.

    Attributes:
        patches: what changes the features.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, or one of `pipeline.extraction.recipe.PRECISIONS`.
        threads: CPU threads; None takes all that the process may use. Never more than those.
        allow_failures: images that may be missing from the cache.
        overwrite: replace an output that was made from something else.
        images_per_shard: images in a shard; None takes `IMAGES_PER_SHARD`.
    """

    patches: PatchOptions = field(default_factory=PatchOptions)
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    allow_failures: int = 0
    overwrite: bool = False
    images_per_shard: int | None = None


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
        PipelineError: more images failed than were allowed, or all of them; the features of the
            others are kept in the shards.
        PublishError: the output cannot be written.
    """
    options = options or ExtractOptions()
    rows = read_manifest(manifest)
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    weights = load_weights(weights_file)
    recipe = vgg16_recipe(options.patches, weights.name, weights.sha256, precision)
    if out.exists() and not options.overwrite:
        return _existing(out, recipe, rows, options.allow_failures)
    torch.set_num_threads(clamp_threads(options.threads))
    encoder = PatchEncoder(weights, device, precision)
    run = _Run(manifest, recipe, encoder, options, _provenance(weights, encoder))
    return run.to(out, rows, progress)


def clamp_threads(asked: int | None) -> int:
    """Threads to use: those asked for, but no more than the process may run on."""
    return max(1, min(asked or usable_cpus(), usable_cpus()))


def _existing(
    out: Path, recipe: Recipe, rows: Sequence[ImageRow], allow_failures: int
) -> ExtractResult:
    """Accept an output that is what would be made now, to the last value; refuse any other."""
    try:
        check(out)
        with FeatureCache(out) as cache:
            differences = _differences(cache, recipe, rows, allow_failures)
            device = cache.provenance.get("device", "")
            result = ExtractResult(
                len(cache), cache.patches, 0, 0.0, cache.failures, recipe.weights, device
            )
    except CacheError as error:
        raise UsageError(
            f"{error} (the output exists already: choose another --out, or give --overwrite)"
        ) from error
    if differences:
        raise UsageError(
            f"{out}: exists and is not what was asked for (asked for, found): "
            f"{'; '.join(differences)}: choose another --out, or give --overwrite"
        )
    log.info("%s: already complete", out)
    return result


def _differences(
    cache: FeatureCache, recipe: Recipe, rows: Sequence[ImageRow], allow_failures: int
) -> list[str]:
    differences = recipe.differences(cache.recipe)
    failed = {failure.image_id for failure in cache.failures}
    if cache.images.rows() != [row for row in rows if row.image_id not in failed]:
        differences.append("images: the manifest's are not those of the cache")
    if len(failed) > allow_failures:
        differences.append(f"images without features: at most {allow_failures}, {len(failed)}")
    return differences


def _provenance(weights: Weights, encoder: PatchEncoder) -> dict[str, str]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": f"patch-feature-pipeline {version('patch-feature-pipeline')}",
        "engine": f"torch {torch.__version__}",
        "device": encoder.device_name,
        "weights_source": weights.source,
        "pillow": version("pillow"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


@dataclass(frozen=True)
class _Run:
    """One extraction: the parts that its steps share."""

    manifest: Path
    recipe: Recipe
    encoder: PatchEncoder
    options: ExtractOptions
    provenance: dict[str, str]

    def to(self, out: Path, rows: Sequence[ImageRow], progress: Progress) -> ExtractResult:
        folder = ShardFolder(out, self.recipe)
        size = self.options.images_per_shard or IMAGES_PER_SHARD[self.encoder.device.type]
        shards = folder.plan(rows, size)
        known = KnownFeatures(folder.sound_files())
        pending = [shard for shard in shards if not is_done(shard)]
        missing = list(unknown_rows(pending, known))
        if len(missing) < len(rows):
            log.info("%d of %d images are encoded already", len(rows) - len(missing), len(rows))
        began = time.perf_counter()
        with progress(len(rows), len(rows) - len(missing)) as advance:
            results = self._encoded(missing)
            for shard in pending:
                self._write(shard, known, results, advance)
        known.close()
        seconds = time.perf_counter() - began
        failures = self._failures(shards)
        self._publish(out, shards, failures)
        folder.keep_only(out)
        with FeatureCache(out) as cache:
            return ExtractResult(
                images=len(cache),
                patches=cache.patches,
                encoded=len(missing) - len(failures),
                seconds=seconds,
                failures=failures,
                weights=self.recipe.weights,
                device=self.encoder.device_name,
            )

    def _encoded(self, rows: Sequence[ImageRow]) -> Iterator[ImageFeatures | Failure]:
        workers = clamp_threads(self.options.threads)
        images = ahead(self._load, rows, workers, window=2 * workers)
        return encode_stream(images, self.encoder, self.options.patches.patch_size)

    def _load(self, row: ImageRow) -> ImageFeatures | Failure:
        return load_image(image_path(self.manifest, row), row, self.options.patches)

    def _write(
        self,
        shard: Shard,
        known: KnownFeatures,
        results: Iterator[ImageFeatures | Failure],
        advance: Callable[[int], object],
    ) -> None:
        with write_cache(shard.path, self.recipe, self.provenance, shard.place) as writer:
            for row in shard.rows:
                if row in known:
                    writer.append(row, *known.get(row))
                    continue
                result = next(results)
                if isinstance(result, Failure):
                    writer.fail(result)
                else:
                    writer.append(row, result.features, result.coords)
                advance(1)

    def _failures(self, shards: Sequence[Shard]) -> list[Failure]:
        failures = []
        for shard in shards:
            with FeatureCache(shard.path) as cache:
                failures += cache.failures
        return failures

    def _publish(self, out: Path, shards: Sequence[Shard], failures: list[Failure]) -> None:
        listing = out.with_name(f"{out.stem}.failures.csv")
        if failures:
            write_table(listing, Failure._fields, failures)
        else:
            listing.unlink(missing_ok=True)
        total = sum(len(shard.rows) for shard in shards)
        if len(failures) == total or len(failures) > self.options.allow_failures:
            raise PipelineError(_failure_message(listing, failures, total))
        merge([shard.path for shard in shards], out, self.provenance)


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

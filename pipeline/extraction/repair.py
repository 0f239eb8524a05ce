"""Mend a damaged cache: keep what is proved intact, encode the rest again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cache import CacheError, FeatureCache, ImageRow, Recipe, verify, write_cache
from cache.salvage import proved_rows
from pipeline.dataset.manifest import read_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.encoders.recipe import load_encoder_weights, make_recipe
from pipeline.extraction.encoding import STOPPING, Encoding, clamp_threads
from pipeline.extraction.engines.choose import choose_backend, make_encoder
from pipeline.extraction.extract import IMAGES_PER_SHARD, provenance
from pipeline.extraction.known import KnownFeatures
from pipeline.extraction.lock import locked
from pipeline.extraction.recipe import options_of
from pipeline.extraction.shards import ShardFolder
from pipeline.interrupts import Interruption, watch_signals
from pipeline.progress import Progress, silent


@dataclass(frozen=True)
class Sources:
    """Where images are encoded from, if some must be.

    Attributes:
        manifest: lists the images; their paths are relative to its folder.
        weights: of the encoder.
        device: see `ExtractOptions`.
        threads: see `ExtractOptions`.
    """

    manifest: Path | None = None
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Repair:
    """What a repair did: the faults there were, and how many images were encoded again.

    `identical` tells whether features, coordinates and statistics are those that were first
    written, bit for bit; features encoded on another machine may differ in the last bits.
    """

    faults: list[str]
    images: int
    encoded: int
    identical: bool

    def summary(self) -> str:
        """One line for a person."""
        if not self.faults:
            return "sound, nothing to repair"
        same = "as they were first written" if self.identical else "not all as first written"
        return (
            f"{self.images} images, {self.encoded} of them encoded again; "
            f"features and coordinates are {same}"
        )


def repair(file: Path, sources: Sources | None = None, progress: Progress = silent) -> Repair:
    """Mend a cache in place; until that is done, it stays as it is.

    What the damage did not reach is kept, as its digests prove. What the shards beside the file
    hold is taken from them. Only what is left is encoded again, with the recipe of the cache.

    Args:
        file: the cache.
        sources: needed if images must be encoded again, or if the image table is damaged.
        progress: told of each image that is encoded.

    Raises:
        CacheError: the file is damaged where its recipe or structure is, so that nothing in it
            can be proved.
        UsageError: images must be encoded again and `sources` do not tell from what, or from
            something else than the cache was made; or the cache is virtual.
        PipelineError: an image cannot be encoded; the file stays as it is.
        PublishError: the file cannot be written.
    """
    sources = sources or Sources()
    if not file.is_file():
        raise UsageError(f"{file}: no such file: there is nothing to repair")
    rows = read_manifest(sources.manifest) if sources.manifest else []
    with _opened(file) as damaged:
        _refuse_virtual(damaged)
        folder = ShardFolder(file, damaged.recipe)
        had_shards = folder.root.exists()
        with locked(file, folder.root), watch_signals(STOPPING) as interruption:
            folder.clear_unfinished()
            faults = verify(file)
            if not faults:
                return Repair([], len(damaged), 0, True)
            mender = _Mender(damaged, proved_rows(damaged, rows), sources, folder, interruption)
            result = mender.mend(faults, progress)
            if had_shards:
                folder.keep_only_output()
            else:
                folder.remove()
            return result


def _opened(file: Path) -> FeatureCache:
    try:
        return FeatureCache(file, seal="absent")
    except CacheError as error:
        raise CacheError(
            f"{error}; this part cannot be mended: run `pipeline extract --overwrite`, which uses "
            "what is intact in the shards beside the file"
        ) from error


def _refuse_virtual(cache: FeatureCache) -> None:
    if cache.sources:
        raise UsageError(
            f"{cache.path}: its features lie in {len(cache.sources)} shards, such as "
            f"{cache.sources[0].name}: repair the one that `pipeline cache verify` names, then "
            "merge again with `pipeline cache merge --virtual --overwrite`"
        )


@dataclass(frozen=True)
class _Mender:
    damaged: FeatureCache
    rows: Sequence[ImageRow]
    sources: Sources
    folder: ShardFolder
    interruption: Interruption

    def mend(self, faults: list[str], progress: Progress) -> Repair:
        file, recipe = self.damaged.path, self.damaged.recipe
        known = KnownFeatures(recipe, statistics=self.damaged.has_statistics)
        known.add(file, self.rows)
        known.add_all(path for path in self.folder.files() if not path.samefile(file))
        missing = [row for row in self.rows if row not in known]
        if missing:
            known.add_all(self._encode(missing, known, progress))
        self._write(known, len(missing))
        known.close()
        with FeatureCache(file) as mended:
            names = ("features_sha256", "index_sha256", "statistics_sha256")
            identical = all(
                self.damaged.attributes.get(n) == mended.attributes.get(n) for n in names
            )
        return Repair(faults, len(self.rows), len(missing), identical)

    def _encode(
        self, missing: Sequence[ImageRow], known: KnownFeatures, progress: Progress
    ) -> list[Path]:
        """The shards in which the missing images are now."""
        encoding = self._encoding(missing)
        shards = self.folder.plan(missing, IMAGES_PER_SHARD["cpu"])
        encoding.fill(shards, known, progress)
        failures = [failure for shard in shards for failure in shard.failures()]
        if failures:
            lines = [f"  {failure.path}: {failure.reason}" for failure in failures[:10]]
            raise PipelineError(
                f"{self.damaged.path}: not mended, as {len(failures)} of {len(missing)} damaged "
                "images cannot be encoded; mend them and run again:\n" + "\n".join(lines)
            )
        return [shard.path for shard in shards]

    def _encoding(self, missing: Sequence[ImageRow]) -> Encoding:
        manifest, weights_file = self.sources.manifest, self.sources.weights
        if manifest is None or weights_file is None:
            some = ", ".join(row.image_id for row in missing[:3])
            raise UsageError(
                f"{self.damaged.path}: {len(missing)} images must be encoded again ({some}"
                f"{', …' if len(missing) > 3 else ''}): give --manifest and --weights"
            )
        recipe, threads = self.damaged.recipe, clamp_threads(self.sources.threads)
        patches = options_of(recipe)
        weights = load_encoder_weights(patches.encoder, weights_file)
        made = make_recipe(patches, weights, recipe.precision)
        _check_recipe(self.damaged.path, recipe, made)
        by_torch = self.damaged.provenance.get("engine", "").startswith("torch ")
        engine = "torch" if by_torch else "auto"  # the last bits are those of the engine
        backend = choose_backend(self.sources.device, recipe.precision, engine, patches.encoder)
        encoder = make_encoder(weights, backend, patches, threads)
        origin = provenance(weights, encoder)
        return Encoding(manifest, recipe, encoder, patches, threads, origin, self.interruption)

    def _write(self, known: KnownFeatures, encoded: int) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        repaired = f"{now}, {encoded} of {len(self.rows)} images encoded again"
        before = self.damaged.provenance
        history = "; ".join(filter(None, (before.get("repaired"), repaired)))
        with write_cache(
            self.damaged.path,
            self.damaged.recipe,
            {**before, "repaired": history},
            self.damaged.shard,
        ) as writer:
            for row in self.rows:
                writer.append(row, *known.get(row))
            for failure in self.damaged.failures:
                writer.fail(failure)


def _check_recipe(file: Path, recipe: Recipe, made: Recipe) -> None:
    differences = recipe.differences(made)
    if differences:
        raise UsageError(
            f"{file}: its features cannot be made again from what was given (cache, given): "
            f"{'; '.join(differences)}: give the weights that it was made with"
        )

"""Encode images into shards, and keep what is done whatever stops it."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cache import CacheWriter, Failure, ImageRow, Recipe, write_cache
from pipeline.ahead import ahead, usable_cpus
from pipeline.dataset.images import MAX_PIXELS
from pipeline.dataset.manifest import image_path
from pipeline.extraction.engines.encoder import Encoder
from pipeline.extraction.known import KnownFeatures
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.shards import Shard
from pipeline.extraction.stream import (
    ImageFeatures,
    encode_image,
    encode_stream,
    load_image,
)
from pipeline.interrupts import Interruption
from pipeline.progress import Progress

log = logging.getLogger(__name__)

Item = TypeVar("Item")

PIXELS_AHEAD = 256_000_000
"""Pixels of decoded images that may wait for the encoder, 3 bytes each."""

STOPPING = "stopping after this image"


def clamp_threads(asked: int | None) -> int:
    """Threads to use: those asked for, but no more than the process may run on."""
    return max(1, min(asked or usable_cpus(), usable_cpus()))


@dataclass(frozen=True)
class Encoded:
    """What was encoded now: how many images, failures among them, in how many seconds."""

    images: int
    seconds: float


@dataclass(frozen=True)
class Encoding:
    """How images become shards.

    Attributes:
        manifest: the file that the images' paths are relative to.
        recipe: of the features.
        encoder: the network.
        patches: how an image is cut.
        threads: that decode, and encode if the encoder works in threads.
        provenance: of the shards.
        interruption: looked at after every image.
    """

    manifest: Path
    recipe: Recipe
    encoder: Encoder
    patches: PatchOptions
    threads: int
    provenance: Mapping[str, str]
    interruption: Interruption

    def fill(self, shards: Sequence[Shard], known: KnownFeatures, progress: Progress) -> Encoded:
        """Bring every shard to the disk, with features that are known or encoded now.

        Raises:
            StoppedError: a signal came; what was encoded until then is on the disk.
            PublishError: a shard cannot be written; those before it are on the disk.
        """
        pending = [shard for shard in shards if not shard.is_done()]
        missing = [row for shard in pending for row in shard.rows if row not in known]
        total = sum(len(shard.rows) for shard in shards)
        _report(total, missing, known)
        began = time.perf_counter()
        with (
            progress(total, total - len(missing)) as advance,
            closing(self._encoded(missing)) as results,
        ):
            left = len(missing)
            for shard in pending:
                encoded, lacking = self._write(shard, known, results, advance)
                left -= encoded
                if lacking:
                    break
        if self.interruption:
            done = f"{total - left} of {total} images are encoded and kept"
            raise self.interruption.error(f"{done}: the same command goes on from there")
        return Encoded(len(missing), time.perf_counter() - began)

    def _encoded(self, rows: Sequence[ImageRow]) -> Generator[ImageFeatures | Failure, None, None]:
        """The results in order; after a signal, those that are being made, and no more."""
        if self.encoder.side_by_side:
            yield from self._ahead(self._encode, self._until_stopped(rows), 1)
        else:
            images = self._ahead(self._load, rows, 2)
            yield from self._until_stopped(encode_stream(images, self.encoder))

    def _ahead(
        self,
        function: Callable[[ImageRow], ImageFeatures | Failure],
        rows: Iterable[ImageRow],
        window: int,
    ) -> Iterator[ImageFeatures | Failure]:
        return ahead(
            function,
            rows,
            self.threads,
            window=window * self.threads,
            cost=self._cost,
            budget=PIXELS_AHEAD,
        )

    def _until_stopped(self, items: Iterable[Item]) -> Iterator[Item]:
        iterator = iter(items)
        while not self.interruption:
            try:
                item = next(iterator)
            except StopIteration:
                return
            yield item

    def _cost(self, row: ImageRow) -> int:
        """Pixels in memory; an image that is read band by band is to be alone, on all CPUs."""
        pixels = row.width * row.height
        return pixels if pixels <= MAX_PIXELS else PIXELS_AHEAD

    def _load(self, row: ImageRow) -> ImageFeatures | Failure:
        return load_image(image_path(self.manifest, row), row, self.patches)

    def _encode(self, row: ImageRow) -> ImageFeatures | Failure:
        image = self._load(row)
        if isinstance(image, Failure):
            return image
        return encode_image(image, self.encoder, self.threads if image.is_large else 1)

    def _write(
        self,
        shard: Shard,
        known: KnownFeatures,
        results: Iterator[ImageFeatures | Failure],
        advance: Callable[[int], object],
    ) -> tuple[int, int]:
        """Publish a shard, of fewer images if a signal comes; how many were encoded, and lack."""
        encoded = lacking = 0
        with write_cache(shard.path, self.recipe, self.provenance, shard.place) as writer:
            for row in shard.rows:
                if row in known:
                    writer.append(row, *known.get(row))
                elif (result := next(results, None)) is None:
                    lacking += 1
                else:
                    _append(writer, row, result)
                    encoded += 1
                    advance(1)
        return encoded, lacking


def _append(writer: CacheWriter, row: ImageRow, result: ImageFeatures | Failure) -> None:
    if isinstance(result, Failure):
        writer.fail(result)
    else:
        writer.append(row, result.features, result.coords, result.statistics)


def _report(total: int, missing: Sequence[ImageRow], known: KnownFeatures) -> None:
    if len(missing) < total:
        log.info("%d of %d images are encoded already", total - len(missing), total)
    changed = known.changed(missing)
    if changed:
        some = ", ".join(changed[:3]) + (", …" if len(changed) > 3 else "")
        log.info("%d images have changed and are encoded again: %s", len(changed), some)

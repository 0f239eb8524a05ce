"""Images to features as a stream: decoding ahead, batches filled across images, order kept."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import Failure, ImageRow, ImageStatistics
from pipeline.ahead import ahead
from pipeline.dataset.images import ImageError, decode, image_content
from pipeline.dataset.statistics import image_statistics
from pipeline.extraction.engines.encoder import Encoder, Pending
from pipeline.extraction.patches import cut, extend, grid
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.views import view_of


@dataclass
class ImageFeatures:
    """One image on its way through the stream.

    Attributes:
        row: its row of the manifest.
        coords: (n, 2) top-left pixels of its patches, view after view, equally many each.
        blocks: its features so far, (b, D) each, (n, D) together at the end.
        pixels: (H, W, 3) of each view, covering all of its patches.
        statistics: of the image as it was decoded.
    """

    row: ImageRow
    coords: NDArray[np.int32]
    pixels: Sequence[NDArray[np.uint8]]
    statistics: ImageStatistics | None = None
    blocks: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every patch is encoded."""
        return sum(map(len, self.blocks)) == len(self.coords)

    def patch(self, number: int, patch_size: int) -> NDArray[np.uint8]:
        """The pixels (patch_size, patch_size, 3) of one patch."""
        view = number * len(self.pixels) // len(self.coords)
        return cut(self.pixels[view], self.coords[number], patch_size)

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, D), in scan order."""
        return np.concatenate(self.blocks)


def load_image(path: Path, row: ImageRow, options: PatchOptions) -> ImageFeatures | Failure:
    """Read one image, once, and lay its grid; or say why it cannot be used."""
    try:
        with image_content(path) as data:
            found = hashlib.sha256(data).hexdigest()
            if found != row.sha256:
                raise ImageError(
                    f"content changed since it was indexed (SHA-256 {found[:12]}…, "
                    f"manifest {row.sha256[:12]}…): index the data set again"
                )
            pixels = decode(data, (row.width, row.height))
        image = lay_image(pixels, row, options)
    except ImageError as error:
        return Failure(row.image_id, row.path, str(error))
    image.statistics = image_statistics(pixels)
    return image


def lay_image(pixels: NDArray[np.uint8], row: ImageRow, options: PatchOptions) -> ImageFeatures:
    """Lay the grid of patches over each view of an image (H, W, 3).

    Raises:
        ImageError: it is too small for a patch.
    """
    views = [_laid(view_of(pixels, view), options) for view in options.views]
    coords = np.concatenate([coords for _, coords in views])
    return ImageFeatures(row, coords, [seen for seen, _ in views])


def _laid(
    pixels: NDArray[np.uint8], options: PatchOptions
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Pixels (H', W', 3) that cover the patches of an image, and where these are (n, 2)."""
    height, width = pixels.shape[:2]
    coords = grid(width, height, options.patch_size, options.stride, options.edge)
    return extend(pixels, coords, options.patch_size), coords


def encode_image(image: ImageFeatures, encoder: Encoder, patch_size: int, threads: int = 1) -> None:
    """Fill in the features of one image, with batches of its own.

    Args:
        image: what `load_image` gave.
        encoder: used by `threads` at once, if it works side by side.
        patch_size: side of a patch, in pixels.
        threads: more than one makes sense only for an image alone.
    """

    def encode(start: int) -> NDArray[np.float32]:
        numbers = range(start, min(start + encoder.batch_size, len(image.coords)))
        patches = np.stack([image.patch(n, patch_size) for n in numbers])  # (B, H, W, 3)
        return encoder.submit(patches)()

    starts = range(0, len(image.coords), encoder.batch_size)
    workers = threads if encoder.side_by_side else 1
    image.blocks += ahead(encode, starts, workers, workers) if workers > 1 else map(encode, starts)
    image.pixels = ()


def encode_stream(
    items: Iterable[ImageFeatures | Failure], encoder: Encoder, patch_size: int
) -> Iterator[ImageFeatures | Failure]:
    """Fill in the features of images, in order, with batches that span images.

    While the encoder works on some batches, the next is put together.
    """
    unfinished: deque[ImageFeatures | Failure] = deque()
    working: deque[tuple[_Batch, Pending]] = deque()
    batch: _Batch = []
    for item in items:
        unfinished.append(item)
        for patch in range(len(item.coords) if isinstance(item, ImageFeatures) else 0):
            batch.append((item, patch))  # type: ignore[arg-type]  # a Failure has no patches
            if len(batch) == encoder.batch_size:
                working.append((batch, _submit(batch, encoder, patch_size)))
                batch = []
                if len(working) == encoder.in_flight:
                    _collect(*working.popleft())
        yield from _finished(unfinished)
    if batch:
        working.append((batch, _submit(batch, encoder, patch_size)))
    while working:
        _collect(*working.popleft())
        yield from _finished(unfinished)
    yield from _finished(unfinished)


_Batch = list[tuple[ImageFeatures, int]]
"""Images, and which patch of each."""


def _submit(batch: _Batch, encoder: Encoder, patch_size: int) -> Pending:
    patches = [image.patch(number, patch_size) for image, number in batch]
    return encoder.submit(np.stack(patches))  # (B, patch_size, patch_size, 3)


def _collect(batch: _Batch, pending: Pending) -> None:
    for (image, _), row in zip(batch, pending(), strict=True):
        image.blocks.append(row[None])


def _finished(
    unfinished: deque[ImageFeatures | Failure],
) -> Iterator[ImageFeatures | Failure]:
    while unfinished and (isinstance(unfinished[0], Failure) or unfinished[0].complete):
        yield unfinished.popleft()

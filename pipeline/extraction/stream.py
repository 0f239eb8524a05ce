"""Images to features as a stream: decoding ahead, batches filled across images, order kept."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cache import Failure, ImageRow, ImageStatistics
from pipeline.ahead import ahead
from pipeline.dataset.images import ImageError
from pipeline.dataset.picture import Picture, WholePicture, open_picture
from pipeline.dataset.statistics import RunningStatistics, image_statistics
from pipeline.extraction.cutting import Watcher, cut_patches, lay_cuts
from pipeline.extraction.engines.encoder import Encoder, Pending
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.tissue import tissue_share

Item = TypeVar("Item")


class ImageFeatures:
    """One image on its way through the stream.

    Args:
        row: its row of the manifest.
        picture: its pixels.
        options: how it is cut.
        watchers: shown its pixels on the way.

    Attributes:
        row: its row of the manifest.
        statistics: of the image as it was decoded; None if nobody asked.
        is_large: whether its pixels are read band by band, as it is cut.
        problem: why it cannot be used; empty if it can.

    Raises:
        ImageError: it is too small for a patch, or has too many.
    """

    def __init__(
        self,
        row: ImageRow,
        picture: Picture,
        options: PatchOptions,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.row, self.problem = row, ""
        self.statistics: ImageStatistics | None = None
        self.is_large = not isinstance(picture, WholePicture)
        self._options = options
        self._cuts = lay_cuts(picture.width, picture.height, options)
        self._pieces = cut_patches(picture, self._cuts, watchers)
        self._asked, self._is_cut = 0, False
        self._found: dict[int, NDArray[np.float32]] = {}

    def patches(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The patches to encode, each once: its number and its pixels (H, W, 3)."""
        least = self._options.min_tissue
        try:
            for number, pixels in self._pieces:
                if not least or tissue_share(pixels) >= least:
                    self._asked += 1
                    yield number, pixels
            if not self._asked:
                self.problem = f"none of {len(self._cuts.coords)} patches shows tissue"
        except ImageError as error:
            self.problem = str(error)
        self._is_cut = True
        self._pieces = iter(())  # the pixels are not needed any longer

    def put(self, number: int, features: NDArray[np.float32]) -> None:
        """Take the features (D,) of a patch."""
        self._found[number] = features

    @property
    def complete(self) -> bool:
        """Whether every patch is encoded, or the image turned out to be of no use."""
        return bool(self.problem) or (self._is_cut and len(self._found) == self._asked)

    def outcome(self) -> "ImageFeatures | Failure":
        """The image itself, once it is complete; or why it has no features."""
        if self.problem:
            return Failure(self.row.image_id, self.row.path, self.problem)
        return self

    @property
    def coords(self) -> NDArray[np.int32]:
        """(n, 2) top-left pixels of the encoded patches, view after view, in scan order."""
        return self._cuts.coords[sorted(self._found)]

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, D), in the order of `coords`."""
        return np.stack([self._found[number] for number in sorted(self._found)])


def load_image(path: Path, row: ImageRow, options: PatchOptions) -> ImageFeatures | Failure:
    """Open one image, and lay its grid; or say why it cannot be used."""
    try:
        picture = open_picture(path, row.sha256, (row.width, row.height))
        if not isinstance(picture, WholePicture):
            return _LargeFeatures(row, picture, options)
        image = ImageFeatures(row, picture, options)
    except ImageError as error:
        return Failure(row.image_id, row.path, str(error))
    image.statistics = image_statistics(picture.pixels)
    return image


class _LargeFeatures(ImageFeatures):
    """An image whose statistics are known once it is cut."""

    def __init__(self, row: ImageRow, picture: Picture, options: PatchOptions) -> None:
        self._running = RunningStatistics(picture.height, picture.width)
        super().__init__(row, picture, options, [self._running.add])

    def patches(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        yield from super().patches()
        if not self.problem:
            self.statistics = self._running.result()


def encode_image(
    image: ImageFeatures, encoder: Encoder, threads: int = 1
) -> ImageFeatures | Failure:
    """Fill in the features of one image, with batches of its own.

    Args:
        image: what `load_image` gave.
        encoder: used by `threads` at once, if it works side by side.
        threads: more than one makes sense only for an image alone.
    """

    def encode(batch: _Patches) -> tuple[_Patches, NDArray[np.float32]]:
        return batch, encoder.submit(np.stack([pixels for _, pixels in batch]))()

    batches = _batches(image.patches(), encoder.batch_size)
    workers = threads if encoder.side_by_side else 1
    done = ahead(encode, batches, workers, workers) if workers > 1 else map(encode, batches)
    for batch, features in done:  # (B, D)
        for (number, _), values in zip(batch, features, strict=True):
            image.put(number, values)
    return image.outcome()


_Patches = list[tuple[int, NDArray[np.uint8]]]
"""Numbers and pixels of patches of one image."""


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch


def encode_stream(
    items: Iterable[ImageFeatures | Failure], encoder: Encoder
) -> Iterator[ImageFeatures | Failure]:
    """Fill in the features of images, in order, with batches that span images.

    While the encoder works on some batches, the next is put together.
    """
    unfinished: deque[ImageFeatures | Failure] = deque()
    working: deque[tuple[_Batch, Pending]] = deque()
    batch: _Batch = []
    for item in items:
        unfinished.append(item)
        for number, pixels in item.patches() if isinstance(item, ImageFeatures) else ():
            batch.append((item, number, pixels))  # type: ignore[arg-type]  # no patches of a Failure
            if len(batch) == encoder.batch_size:
                working.append((batch, _submit(batch, encoder)))
                batch = []
                if len(working) == encoder.in_flight:
                    _collect(*working.popleft())
        yield from _finished(unfinished)
    if batch:
        working.append((batch, _submit(batch, encoder)))
    while working:
        _collect(*working.popleft())
        yield from _finished(unfinished)
    yield from _finished(unfinished)


_Batch = list[tuple[ImageFeatures, int, NDArray[np.uint8]]]
"""Images, and of each the number and pixels of a patch."""


def _submit(batch: _Batch, encoder: Encoder) -> Pending:
    return encoder.submit(np.stack([pixels for _, _, pixels in batch]))  # (B, H, W, 3)


def _collect(batch: _Batch, pending: Pending) -> None:
    for (image, number, _), values in zip(batch, pending(), strict=True):
        image.put(number, values)


def _finished(
    unfinished: deque[ImageFeatures | Failure],
) -> Iterator[ImageFeatures | Failure]:
    while unfinished:
        first = unfinished[0]
        if isinstance(first, ImageFeatures) and not first.complete:
            return
        unfinished.popleft()
        yield first.outcome() if isinstance(first, ImageFeatures) else first

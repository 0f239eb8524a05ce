"""Images to features, as the recipe of a model asks for."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Failure, ImageRow, Recipe
from pipeline.ahead import ahead
from pipeline.dataset.images import MAX_PIXELS, ImageError, decode, image_content
from pipeline.errors import UsageError
from pipeline.extraction.encoders.recipe import AnyWeights, make_recipe
from pipeline.extraction.encoding import clamp_threads
from pipeline.extraction.engines.choose import choose_backend, make_encoder
from pipeline.extraction.engines.encoder import Encoder
from pipeline.extraction.recipe import PatchOptions, options_of
from pipeline.extraction.stream import ImageFeatures, encode_image, encode_stream, lay_image
from pipeline.prediction.find_images import Asked


class Seen(NamedTuple):
    """An image as a model sees it.

    Attributes:
        name: of the image.
        sha256: of its file.
        pixels: (H, W, 3).
        coords: (n, 2) top-left pixels of its patches, view after view, in scan order.
        features: (n, D) of the type in which a cache stores them.
    """

    name: str
    sha256: str
    pixels: NDArray[np.uint8]
    coords: NDArray[np.int32]
    features: NDArray[np.floating]


@dataclass(frozen=True)
class Reader:
    """Decodes, cuts and encodes images in the way of a recipe.

    Attributes:
        options: of the patches.
        encoder: the network.
        threads: CPU threads to use.
    """

    options: PatchOptions
    encoder: Encoder
    threads: int

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        weights: AnyWeights,
        device: str = "auto",
        engine: str = "auto",
        threads: int | None = None,
    ) -> "Reader":
        """A reader for a recipe.

        Raises:
            UsageError: what is here would give other features than the recipe's.
        """
        options = options_of(recipe)
        made = make_recipe(options, weights, recipe.precision)
        differences = recipe.differences(made)
        if differences:
            raise UsageError(
                "the models need other features than can be made here (model, here): "
                f"{'; '.join(differences)}: give --weights with what they were fitted with"
            )
        backend = choose_backend(device, recipe.precision, engine, options.encoder)
        usable = clamp_threads(threads)
        return cls(options, make_encoder(weights, backend, options, usable), usable)

    def read_one(self, name: str, data: bytes, most: int = MAX_PIXELS) -> Seen:
        """Read one image of at most `most` pixels from the bytes of its file, on all CPUs.

        Raises:
            ImageError: it cannot be used.
        """
        image, pixels = self._laid(Asked(name, Path(name)), data, most)
        encode_image(image, self.encoder, self.options.patch_size, self.threads)
        return self._seen(image, pixels)

    def read(self, asked: Iterable[Asked]) -> Iterator[Seen | Failure]:
        """Read images in order, several at a time."""
        workers = self.threads
        if self.encoder.side_by_side:
            found = ahead(lambda one: self._load(one, encode=True), asked, workers, workers)
        else:
            loaded = ahead(lambda one: self._load(one), asked, workers, 2 * workers)
            found = self._streamed(loaded)
        for item in found:
            yield item if isinstance(item, Failure) else self._seen(*item)

    def _load(
        self, asked: Asked, encode: bool = False
    ) -> tuple[ImageFeatures, NDArray[np.uint8]] | Failure:
        try:
            with image_content(asked.path) as data:
                image, pixels = self._laid(asked, data)
        except ImageError as error:
            return Failure(asked.name, str(asked.path), str(error))
        if encode:
            encode_image(image, self.encoder, self.options.patch_size)
        return image, pixels

    def _laid(
        self, asked: Asked, data: bytes, most: int = MAX_PIXELS
    ) -> tuple[ImageFeatures, NDArray[np.uint8]]:
        digest = hashlib.sha256(data).hexdigest()
        if asked.sha256 not in ("", digest):
            raise ImageError(
                f"content changed since it was indexed (SHA-256 {digest[:12]}…, "
                f"manifest {asked.sha256[:12]}…): index the data set again"
            )
        pixels = decode(data, most=most)
        height, width = pixels.shape[:2]
        row = ImageRow(asked.name, str(asked.path), "", "", "", "", 0, width, height, digest)
        return lay_image(pixels, row, self.options), pixels

    def _streamed(
        self, loaded: Iterable[tuple[ImageFeatures, NDArray[np.uint8]] | Failure]
    ) -> Iterator[tuple[ImageFeatures, NDArray[np.uint8]] | Failure]:
        waiting: list[NDArray[np.uint8]] = []

        def images() -> Iterator[ImageFeatures | Failure]:
            for item in loaded:
                if isinstance(item, Failure):
                    yield item
                else:
                    waiting.append(item[1])
                    yield item[0]

        for result in encode_stream(images(), self.encoder, self.options.patch_size):
            yield result if isinstance(result, Failure) else (result, waiting.pop(0))

    def _seen(self, image: ImageFeatures, pixels: NDArray[np.uint8]) -> Seen:
        features = image.features.astype(self.options.dtype)
        return Seen(image.row.image_id, image.row.sha256, pixels, image.coords, features)

"""Images to features, as the recipe of a model asks for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Failure, ImageRow, Recipe
from pipeline.ahead import ahead
from pipeline.dataset.images import MAX_PIXELS, ImageError
from pipeline.dataset.picture import Picture, decoded_picture, open_picture
from pipeline.dataset.reduce import Reduced
from pipeline.errors import UsageError
from pipeline.extraction.encoders.recipe import AnyWeights, make_recipe
from pipeline.extraction.encoding import clamp_threads
from pipeline.extraction.engines.choose import choose_backend, make_encoder
from pipeline.extraction.engines.encoder import Encoder
from pipeline.extraction.recipe import PatchOptions, options_of
from pipeline.extraction.stream import ImageFeatures, encode_image, encode_stream
from pipeline.prediction.find_images import Asked


class Seen(NamedTuple):
    """An image as a model sees it.

    Attributes:
        name: of the image.
        sha256: of its file.
        width: in pixels.
        height: in pixels.
        pixels: (H', W', 3) to show it by.
        factor: by which these are reduced.
        coords: (n, 2) top-left pixels of its patches, view after view, in scan order.
        features: (n, D) of the type in which a cache stores them.
    """

    name: str
    sha256: str
    width: int
    height: int
    pixels: NDArray[np.uint8]
    factor: int
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
        image = _Shown(Asked(name, Path(name)), decoded_picture(data, most), self.options)
        if encode_image(image, self.encoder, self.threads) is not image:
            raise ImageError(image.problem)
        return image.seen()

    def read(self, asked: Iterable[Asked]) -> Iterator[Seen | Failure]:
        """Read images in order, several at a time."""
        workers = self.threads
        if self.encoder.side_by_side:
            found = ahead(self._encode, asked, workers, workers)
        else:
            loaded = ahead(self._load, asked, workers, 2 * workers)
            found = encode_stream(loaded, self.encoder)
        for item in found:
            yield item.seen() if isinstance(item, _Shown) else item  # type: ignore[misc]

    def _load(self, asked: Asked) -> "_Shown | Failure":
        try:
            return _Shown(asked, open_picture(asked.path, asked.sha256), self.options)
        except ImageError as error:
            return Failure(asked.name, str(asked.path), str(error))

    def _encode(self, asked: Asked) -> ImageFeatures | Failure:
        image = self._load(asked)
        if isinstance(image, Failure):
            return image
        return encode_image(image, self.encoder, self.threads if image.is_large else 1)


class _Shown(ImageFeatures):
    """An image that is reduced on the way, to be shown."""

    def __init__(self, asked: Asked, picture: Picture, options: PatchOptions) -> None:
        width, height = picture.width, picture.height
        row = ImageRow(
            *(asked.name, str(asked.path), "", "", "", ""), 0, width, height, picture.sha256
        )
        self._reduced, self._dtype = Reduced(height, width), options.dtype
        super().__init__(row, picture, options, [self._reduced.add])

    def seen(self) -> Seen:
        """What a model sees, once the image is complete."""
        row, reduced = self.row, self._reduced
        pixels, features = reduced.result(), self.features.astype(self._dtype)
        return Seen(
            *(row.image_id, row.sha256, row.width, row.height, pixels, reduced.factor),
            coords=self.coords,
            features=features,
        )

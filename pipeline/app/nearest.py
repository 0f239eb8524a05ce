"""The training images that are nearest to an image, as the models see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from cache import FeatureCache, ImageRow
from pipeline.dataset.images import ImageError
from pipeline.dataset.manifest import image_path
from pipeline.dataset.picture import open_picture
from pipeline.dataset.reduce import reduce_picture
from pipeline.errors import UsageError
from pipeline.fitting.sequences import Sequences
from pipeline.prediction.ensemble import Ensemble

SHOWN = 4


class Near(NamedTuple):
    """An image of the cache.

    Attributes:
        row: of the image table.
        distance: mean over the models, each in its own limits.
        picture: of the image; None if its file is not there any more, or has changed.
    """

    row: ImageRow
    distance: float
    picture: Image.Image | None


@dataclass(frozen=True)
class Neighbours:
    """The images of a cache, as the models of an ensemble see them.

    Attributes:
        rows: of the image table.
        means: (N, k) mean inputs, of each model.
        manifest: the file that the images' paths are relative to.
    """

    rows: Sequence[ImageRow]
    means: Sequence[torch.Tensor]
    manifest: Path

    @classmethod
    def load(cls, cache: Path, manifest: Path, ensemble: Ensemble) -> "Neighbours":
        """Read a cache.

        Raises:
            CacheError: it is damaged.
            UsageError: it is not of the models' recipe.
        """
        with FeatureCache(cache) as file:
            if file.recipe.fingerprint != ensemble.recipe.fingerprint:
                differences = "; ".join(ensemble.recipe.differences(file.recipe))
                raise UsageError(
                    f"{cache}: not the features that the models were fitted to (models, cache): "
                    f"{differences}: give the --cache that `pipeline fit-lstm` was given"
                )
            features = Sequences.from_arrays(file.load(), file.offsets)
            rows = file.images.rows()
        means = [model.inputs(features).means() for model in ensemble.models]
        return cls(rows, means, manifest)

    def nearest(self, ensemble: Ensemble, image: Sequences, count: int = SHOWN) -> list[Near]:
        """The images nearest to one, with features as in a cache."""
        total = torch.zeros(len(self.rows))
        for model, means in zip(ensemble.models, self.means, strict=True):
            mean = model.inputs(image).means()  # (1, k)
            apart = torch.linalg.vector_norm(means - mean, dim=1)  # (N,)
            total += apart / model.familiar.limit
        distances = total / len(self.means)
        order = torch.argsort(distances, stable=True)[:count].tolist()
        return [Near(self.rows[i], distances[i].item(), self._picture(self.rows[i])) for i in order]

    def _picture(self, row: ImageRow) -> Image.Image | None:
        try:
            file, size = image_path(self.manifest, row), (row.width, row.height)
            pixels, _ = reduce_picture(open_picture(file, row.sha256, size))
            return Image.fromarray(pixels)
        except ImageError:
            return None

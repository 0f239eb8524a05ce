"""What the page asks: one image in, everything that is shown of it out. Nothing is kept."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.app.nearest import Near, Neighbours
from pipeline.errors import UsageError
from pipeline.fitting.sequences import Sequences
from pipeline.prediction.ensemble import Ensemble, Verdict
from pipeline.prediction.find_models import find_models
from pipeline.prediction.occlusion import contributions
from pipeline.prediction.overlay import Legend, draw_overlay
from pipeline.prediction.predict import (
    RESEARCH,
    Predicted,
    legend_lines,
    prediction_columns,
    shown_class,
    table_row,
)
from pipeline.prediction.reader import Reader, Seen
from pipeline.prediction.weights import weights_for

_PICTURE_SIDE = 1200
_THUMBNAIL_SIDE = 320
_CACHE, _MANIFEST = "features.h5", "manifest.csv"


@dataclass(frozen=True)
class AppOptions:
    """What the app is started with.

    Attributes:
        cache: the features the models were fitted to; None looks beside the models.
        manifest: of the images of the cache; None looks beside the cache.
        weights: of the encoder; None takes those of the user's cache.
        device: as for `pipeline extract`.
        threads: CPU threads; None takes all.
        most_bytes: of an upload.
        most_pixels: of an image.
    """

    cache: Path | None = None
    manifest: Path | None = None
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    most_bytes: int = 64 << 20
    most_pixels: int = 25_000_000


@dataclass(frozen=True)
class Service:
    """Models, encoder and neighbours, ready to answer."""

    ensemble: Ensemble
    reader: Reader
    neighbours: Neighbours | None
    options: AppOptions

    @classmethod
    def load(cls, place: Path, options: AppOptions) -> "Service":
        """Read the models of a folder and what belongs to them, and warm the encoder.

        Raises:
            UsageError: there are no models, or what is here gives other features than they need.
            CacheError: the cache is damaged.
        """
        models = find_models(place)
        if not models:
            raise UsageError(
                f"{place}: no models: give a folder of `pipeline fit-lstm`, or of the workflow, "
                "such as results/demo"
            )
        ensemble = Ensemble.load(models)
        weights = weights_for(ensemble.recipe, options.weights)
        reader = Reader.of(ensemble.recipe, weights, options.device, threads=options.threads)
        service = cls(ensemble, reader, _neighbours(place, options, ensemble), options)
        service.warm()
        return service

    def warm(self) -> None:
        """Answer once, so that the first user does not wait for what is made on first use."""
        side = reader_side(self.reader)
        grey = Image.fromarray(np.full((side, side, 3), 200, np.uint8))
        self.answer("warm.png", _encoded(grey, "PNG"))

    def about(self) -> dict[str, Any]:
        """What the page says before an image is dropped."""
        recipe = self.ensemble.recipe
        return {
            "models": len(self.ensemble.models),
            "classes": self.ensemble.classes,
            "protocol": self.ensemble.protocol,
            "weights": recipe.weights,
            "patch_size": recipe.patch_size,
            "fingerprint": recipe.fingerprint,
            "training_images": None if self.neighbours is None else len(self.neighbours.rows),
            "most_bytes": self.options.most_bytes,
            "most_pixels": self.options.most_pixels,
            "research": RESEARCH,
            "columns": prediction_columns(self.ensemble.classes)[:-1],
        }

    def answer(self, name: str, data: bytes) -> dict[str, Any]:
        """Everything that the page shows of one image.

        Raises:
            ImageError: it cannot be used.
        """
        seen = self.reader.read_one(name, data, self.options.most_pixels)
        image = Sequences.from_arrays(seen.features, np.array([0, len(seen.features)]))
        verdict = self.ensemble.judge(image)[0]
        parts = contributions(self.ensemble, seen.features, seen.coords)
        near = [] if self.neighbours is None else self.neighbours.nearest(self.ensemble, image)
        width, height = seen.width, seen.height
        row = Predicted(name, seen.sha256, width, height, len(seen.coords), verdict)
        return {
            "name": name,
            "row": table_row(row)[:-1],
            "width": width,
            "height": height,
            **_said(self.ensemble, verdict),
            "patches": [
                {"x": x, "y": y, "contribution": None if np.isnan(part) else part}
                for (x, y), part in zip(seen.coords.tolist(), parts.tolist(), strict=True)
            ],
            "views": len(self.reader.options.views),
            "picture": _picture(Image.fromarray(seen.pixels), _PICTURE_SIDE),
            "overlay": self._overlay(seen, parts, verdict),
            "nearest": [_near(one) for one in near],
        }

    def _overlay(self, seen: Seen, parts: np.ndarray, verdict: Verdict) -> str:
        lines = legend_lines(self.ensemble, seen, verdict)
        legend = Legend(lines, f"for {shown_class(self.ensemble, verdict)}")
        drawn = draw_overlay(seen, parts, self.reader.options, legend)
        return _data(_encoded(drawn, "PNG"), "png")


def reader_side(reader: Reader) -> int:
    """The side of an image of two by two patches."""
    return reader.options.patch_size + reader.options.stride


def _neighbours(place: Path, options: AppOptions, ensemble: Ensemble) -> Neighbours | None:
    """The cache that was given, or that lies beside the models; None if there is none."""
    cache = options.cache
    if cache is None:
        folders = (place, place.parent, place.parent.parent)
        cache = next((f / _CACHE for f in folders if (f / _CACHE).is_file()), None)
        if cache is None:
            return None
    manifest = options.manifest or cache.with_name(_MANIFEST)
    return Neighbours.load(cache, manifest, ensemble)


def _said(ensemble: Ensemble, verdict: Verdict) -> dict[str, Any]:
    return {
        "called": verdict.called,
        "shown": shown_class(ensemble, verdict),
        "probabilities": verdict.probabilities,
        "threshold": verdict.threshold,
        "lowest": verdict.lowest,
        "highest": verdict.highest,
        "distance": verdict.distance,
        "warning": verdict.warning,
    }


def _near(near: Near) -> dict[str, Any]:
    row = near.row
    return {
        "image": row.image_id,
        "label": row.label,
        "subtype": row.subtype,
        "case": row.case or row.slide,
        "distance": near.distance,
        "picture": None if near.picture is None else _picture(near.picture, _THUMBNAIL_SIDE),
    }


def _picture(image: Image.Image, side: int) -> str:
    """An image as a `data:` address, at most `side` pixels wide and high."""
    image.thumbnail((side, side))
    return _data(_encoded(image, "JPEG"), "jpeg")


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, kind, quality=88)
    else:
        image.save(buffer, kind, compress_level=1)
    return buffer.getvalue()


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

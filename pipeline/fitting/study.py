"""What all folds of a fit share: the cache in memory, the classes and the splits."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache import FeatureCache, ImageRow, Recipe, RecipeError
from cache.columns import VGG16_NAMES, Columns, columns_of
from cache.statistics import Statistics
from pipeline.errors import UsageError
from pipeline.fitting.options import FitOptions
from pipeline.fitting.predictions import file_sha256
from pipeline.fitting.sequences import Sequences
from pipeline.splits.table import Splits, read_splits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """What all folds share.

    Attributes:
        rows: the N images.
        features: of all patches, as the cache stores them.
        statistics: of the images' pixels, if the cache has them.
        classes: what is told apart; of two, the positive one is the last.
        targets: (N,) int64 position of each image's class.
        cases: (N,) int64 the patient of each image, by number; the slide, or the image itself,
            where none is known.
        splits: the roles.
        recipe: of the features.
        manifest_sha256: of the cache's image table.
        splits_sha256: of the file of splits.
        protocol: how training and test images are kept apart, in words.
    """

    rows: Sequence[ImageRow]
    features: Sequences
    statistics: Statistics | None
    classes: tuple[str, ...]
    targets: torch.Tensor
    cases: torch.Tensor
    splits: Splits
    recipe: Recipe
    manifest_sha256: str
    splits_sha256: str
    protocol: str

    @property
    def outputs(self) -> int:
        """Logits of a classifier: 1 for two classes."""
        return 1 if len(self.classes) == 2 else len(self.classes)


def load_study(cache: Path, splits: Path, options: FitOptions) -> Study:
    """Read a cache, whole and checked, and the splits of its images.

    Raises:
        CacheError: the cache is damaged.
        UsageError: the splits do not fit the cache, or an option does not.
    """
    with FeatureCache(cache, seal="whole") as file:
        features = file.load()  # (P, D)
        rows = file.images.rows()
        absent = {failure.image_id for failure in file.failures}
        if absent:
            log.warning("%s: %d images have no features and are left out", cache, len(absent))
        table = read_splits(splits, rows, absent)
        classes = _classes(cache, rows, options)
        return Study(
            rows=rows,
            features=Sequences.from_arrays(features, file.offsets),
            statistics=file.statistics,
            classes=classes,
            targets=torch.tensor([classes.index(getattr(row, options.target)) for row in rows]),
            cases=_cases(rows),
            splits=table,
            recipe=file.recipe,
            manifest_sha256=file.attributes["manifest_sha256"],
            splits_sha256=file_sha256(splits),
            protocol=table.protocol(rows),
        )


def _cases(rows: Sequence[ImageRow]) -> torch.Tensor:
    names = [row.case or row.slide or row.image_id for row in rows]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return torch.tensor([numbers[name] for name in names])


USUAL_LAYER = "conv2_2"
"""The layer that the evidence supports, where the cache holds it: see the benchmark report."""

ALL_LAYERS = ("all",)


def choose_columns(recipe: Recipe, options: FitOptions) -> NDArray[np.int64]:
    """(d,) the features that are of the layers and statistics asked for.

    Raises:
        UsageError: the cache does not hold them.
    """
    parts = _named_columns(recipe)
    names = {name for name, _ in parts}
    layers = options.layers
    if not layers:
        layers = (USUAL_LAYER,) if USUAL_LAYER in names else ALL_LAYERS
    if layers == ALL_LAYERS and options.pooled is None:
        return np.arange(recipe.feature_dim)
    chosen = [
        np.arange(part.columns.start, part.columns.stop)
        for name, part in parts
        if (layers == ALL_LAYERS or name in layers) and options.pooled in (None, part.pooled)
    ]
    missing = [name for name in layers if name not in names and layers != ALL_LAYERS]
    if missing or not chosen:
        held = ", ".join(f"{name} {part.pooled}" for name, part in parts)
        raise UsageError(
            f"the cache holds no features of {', '.join(missing) or options.pooled}, but "
            f"{held or recipe.layer}: choose of these, or extract again with --layers and --pooling"
        )
    return np.concatenate(chosen)


def _named_columns(recipe: Recipe) -> list[tuple[str, Columns]]:
    """The parts of a feature vector by the names of their layers; none if they are not known."""
    by_layer = {layer: name for name, layer in VGG16_NAMES.items()}
    try:
        return [(by_layer[part.layer], part) for part in columns_of(recipe)]
    except RecipeError:
        return []


def _classes(cache: Path, rows: Sequence[ImageRow], options: FitOptions) -> tuple[str, ...]:
    found = sorted({getattr(row, options.target) for row in rows})
    if "" in found:
        lacking = sum(not getattr(row, options.target) for row in rows)
        raise UsageError(
            f"{cache}: {lacking} of {len(rows)} images have no {options.target}: add it to the "
            "manifest and take it over with `pipeline cache relabel`, or use --target label"
        )
    if len(found) < 2:
        raise UsageError(f"{cache}: found one {options.target} ({found[0]}), expected two or more")
    if len(found) > 2:
        if options.positive is not None:
            raise UsageError(
                f"positive {options.positive!r}: there are {len(found)} classes, expected two: "
                "leave it out"
            )
        return tuple(found)
    positive = options.positive
    if positive is None:
        positive = "malignant" if "malignant" in found else found[-1]
    if positive not in found:
        raise UsageError(f"positive label {positive!r}: the cache has {' and '.join(found)}")
    return next(name for name in found if name != positive), positive

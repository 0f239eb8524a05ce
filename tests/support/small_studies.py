"""Small data sets of features with planted signals, to fit classifiers to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from small_caches import make_recipe, make_row

from cache import Failure, ImageRow, ImageStatistics, write_cache
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.study import Study
from pipeline.splits.make import make_splits
from pipeline.splits.table import Splits, write_splits

DIM = 8


def rows_of(images: int = 72, cases: int = 18, labels: tuple[str, ...] = ("benign", "malignant")):
    """Images of cases with one label each, at two magnifications, with a subtype of the case."""
    return [
        make_row(
            f"image{i:03}",
            label=labels[case % len(labels)],
            subtype=f"kind{case % 3}",
            slide=f"s{case}",
            case=f"c{case}",
            magnification=(40, 100)[i // cases % 2],
        )
        for i in range(images)
        for case in [i % cases]
    ]


def class_signal(strength: float = 2.0, field: str = "label"):
    """Features of which some, other ones for each class, are larger by `strength`."""

    def features(rng: np.random.Generator, row: ImageRow, number: int, length: int) -> np.ndarray:
        values = rng.normal(size=(length, DIM))
        values[:, number::4] += strength
        return values

    features.field = field
    return features


def noise(rng: np.random.Generator, row: ImageRow, number: int, length: int) -> np.ndarray:
    return rng.normal(size=(length, DIM))


def order_signal(rng: np.random.Generator, row: ImageRow, number: int, length: int) -> np.ndarray:
    """The same patches in both classes, rising in one and falling in the other."""
    slope = np.linspace(-3, 3, length)[:, None] * (1 if number else -1)
    return rng.normal(scale=0.3, size=(length, DIM)) + slope


def case_signature(rng: np.random.Generator, row: ImageRow, number: int, length: int) -> np.ndarray:
    """Each case looks like itself, whatever its class."""
    own = np.random.default_rng(int(row.case[1:])).normal(size=DIM)
    return 3 * own + rng.normal(scale=0.3, size=(length, DIM))


def colour_of(rng: np.random.Generator, row: ImageRow, number: int, signal: float):
    colour = rng.normal(size=12) + signal * number
    return ImageStatistics(
        colour.astype(np.float32), rng.integers(0, 256, 32, dtype=np.uint8), rng.bytes(32).hex()
    )


def write_study(
    folder: Path,
    features=None,
    rows: list[ImageRow] | None = None,
    folds: int = 3,
    seed: int = 0,
    failures: tuple[str, ...] = (),
    colour: float | None = None,
    length: int | None = None,
    **splits: object,
) -> list[ImageRow]:
    """Write `f.h5` and `splits.csv`; the numbers do not depend on what labels the rows have.

    `colour` is the strength of the class in the colour statistics; None leaves them out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of() if rows is None else rows
    write_features(
        folder / "f.h5", features or class_signal(), rows, seed, failures, colour, length
    )
    write_splits(folder / "splits.csv", make_splits(rows, folds=folds, **splits))
    return rows


def write_features(
    path: Path,
    features,
    rows: list[ImageRow],
    seed: int = 0,
    failures: tuple[str, ...] = (),
    colour: float | Callable[[ImageRow], float] | None = None,
    length: int | None = None,
    truth: list[ImageRow] | None = None,
    **recipe: object,
) -> None:
    """Write a cache of features that tell the classes of `truth`, by default the rows' own."""
    truth = truth or rows
    field = getattr(features, "field", "label")
    names = sorted({getattr(row, field) for row in truth})
    with write_cache(path, make_recipe(**{"feature_dim": DIM, **recipe}), {}) as writer:
        for i, (row, told) in enumerate(zip(rows, truth, strict=True)):
            rng, number = np.random.default_rng([seed, i]), names.index(getattr(told, field))
            if row.image_id in failures:
                writer.fail(Failure(row.image_id, row.path, "empty"))
                continue
            patches = length or 3 + i % 3
            values = features(rng, row, number, patches).astype(np.float32)
            strength = colour(row) if callable(colour) else colour
            said = None if strength is None else colour_of(rng, row, number, strength)
            writer.append(row, values, np.zeros((patches, 2), np.int32), said)


def study_of(rows: list[ImageRow], splits: Splits, features: np.ndarray | None = None) -> Study:
    """A study in memory; every image has one patch."""
    values = np.zeros((len(rows), DIM), np.float32) if features is None else features
    classes = tuple(sorted({row.label for row in rows}))
    cases = sorted({row.case for row in rows})
    return Study(
        rows=rows,
        features=Sequences.from_arrays(values, np.arange(len(rows) + 1)),
        statistics=None,
        classes=classes,
        targets=torch.tensor([classes.index(row.label) for row in rows]),
        cases=torch.tensor([cases.index(row.case) for row in rows]),
        splits=splits,
        recipe=make_recipe(feature_dim=DIM),
        manifest_sha256="0" * 64,
        splits_sha256="0" * 64,
        protocol="case-disjoint",
    )

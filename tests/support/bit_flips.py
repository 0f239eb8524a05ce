"""Damage caches one bit at a time, and see who notices."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
from small_caches import DIM, coords_of, features_of, make_recipe, make_row, statistics_of

import cache
import cache.layout
from cache import CacheError, Failure
from pipeline.errors import PipelineError
from pipeline.splits.make import make_splits
from pipeline.splits.table import write_splits

IMAGES = 12
BATCH = 4000


def write_small_cache(path: Path, dtype: str) -> Path:
    """A cache of two classes, with failures and several chunks; beside it, its splits."""
    rows = [
        make_row(
            f"image{i}", label="malignant" if i % 2 else "benign", case=f"c{i // 2}", slide=f"s{i}"
        )
        for i in range(IMAGES)
    ]
    with (
        patch.object(cache.layout, "CHUNK_BYTES", 8 * DIM * 2),
        cache.write_cache(path, make_recipe(dtype=dtype), {"made": "by a test"}) as writer,
    ):
        for i, row in enumerate(rows):
            patches = 1 + i % 4
            writer.append(row, features_of(i, patches), coords_of(patches), statistics_of(i))
        writer.fail(Failure("imageX", "imageX.png", "cannot be read"))
    write_splits(splits_of(path), make_splits(rows, folds=3, group_by="case", seed=0))
    return path


def splits_of(path: Path) -> Path:
    return path.with_suffix(".splits.csv")


@dataclass(frozen=True)
class Damage:
    """What is done to a file: one bit flipped, then cut to `length`, then `tail` added.

    Attributes:
        bit: counted from the lowest of the first byte; None flips nothing.
        length: bytes that are kept; None keeps all.
        tail: bytes that are added.
    """

    bit: int | None = None
    length: int | None = None
    tail: bytes = b""

    def to(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        if self.bit is not None:
            damaged[self.bit // 8] ^= 1 << self.bit % 8
        return bytes(damaged[: self.length]) + self.tail


def everything(path: Path) -> list[object]:
    """All that a reader can get out of an HDF5 file, by plain h5py."""
    found: list[object] = []

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        attributes = [(key, item.attrs[key]) for key in sorted(item.attrs)]
        found.append((name, type(item).__name__, repr(attributes)))
        if isinstance(item, h5py.Dataset):
            found.append((item.dtype.str, item.shape, item.maxshape, item.chunks, item.fletcher32))
            found.append(np.asarray(item[()]).tobytes())

    with h5py.File(path, "r") as file:
        take("/", file)
        file.visititems(take)
    return found


def notices(path: Path, original: Path, fitting: bool) -> Counter[str]:
    """Who notices that a file is not the original: counts under the names of the findings.

    `unnoticed` stands for damage that a reader could meet, `harmless` for damage to bytes that
    no reader reads, `unexpected` for an exception of another kind than the project's own.
    """
    found: Counter[str] = Counter(tried=1)
    try:
        by_verify = bool(cache.verify(path))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        by_verify = False
        found[f"unexpected {type(error).__name__} of verify"] += 1
    found["noticed by verify"] += by_verify
    if not by_verify:
        found["harmless" if everything(path) == everything(original) else "unnoticed"] += 1
    if fitting:
        found.update(_noticed_by_fit(path, splits_of(original)))
    return found


def _noticed_by_fit(path: Path, splits: Path) -> Counter[str]:
    from pipeline.fitting.fit import load_study

    try:
        load_study(path, splits, None)
    except (CacheError, PipelineError):
        return Counter({"noticed by fit-lstm": 1})
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Counter({f"unexpected {type(error).__name__} of fit-lstm": 1})
    return Counter({"not noticed by fit-lstm": 1})


def _try_all(original: Path, damages: Sequence[Damage], fitting: bool) -> Counter[str]:
    damaged, data = original.with_suffix(".damaged.h5"), original.read_bytes()
    found: Counter[str] = Counter()
    for damage in damages:
        damaged.write_bytes(damage.to(data))
        found.update(notices(damaged, original, fitting))
    return found


def try_damages(original: Path, damages: Sequence[Damage], fitting: bool = True) -> Counter[str]:
    """Damage a cache in each of some ways, in a process whose death would be counted."""
    found: Counter[str] = Counter()
    for start in range(0, len(damages), BATCH):
        batch = damages[start : start + BATCH]
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                found.update(pool.submit(_try_all, original, batch, fitting).result())
        except BrokenProcessPool:
            found[f"crashed among {batch[0]} to {batch[-1]}"] += 1
    return found

"""A small extraction to interrupt, and what must be left of it."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from fault_runs import NO_FAULT, Fault, FaultServer, Operation, Outcome, read_trace
from small_data import write_image

import cache
from pipeline.dataset.manifest import write_manifest

IMAGES = 18
IMAGES_PER_SHARD = 3
AHEAD = 2 + 3  # patches of the two images that may be ahead of the one that is written
SHARD_PATCHES = 1 + 2 + 3
"""Images have 1, 2 and 3 patches in turn."""

NOISE = ("Traceback", "HDF5-DIAG", "Exception ignored", "Fatal Python error", "Segmentation")

Arrays = Mapping[str, np.ndarray]


def write_small_study(folder: Path, images: int = IMAGES) -> Path:
    """Images with 1, 2 and 3 patches of 32 pixels in turn; the path of their manifest."""
    rows = [
        write_image(folder / f"image{i:02}.png", i, 40 + 32 * (i % 3), 40)._replace(
            label="malignant" if i % 2 else "benign", slide=f"s{i % 6}", case=f"c{i % 6}"
        )
        for i in range(images)
    ]
    write_manifest(folder / "manifest.csv", rows)
    return folder / "manifest.csv"


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file, by plain h5py."""
    arrays = {}
    with h5py.File(file) as opened:
        opened.visititems(
            lambda name, item: (
                arrays.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


@dataclass(frozen=True)
class Loss:
    """How a cache differs from the one of an uninterrupted run.

    Attributes:
        lost: images that are not in it.
        duplicated: images that are in it again.
        differing: bytes that differ, over all arrays.
    """

    lost: int
    duplicated: int
    differing: int


def compare(expected: Arrays, found: Arrays) -> Loss:
    wanted, got = (Counter(arrays["images/image_id"].tolist()) for arrays in (expected, found))
    differing = sum(_differing(expected.get(name), found.get(name)) for name in {*expected, *found})
    return Loss((wanted - got).total(), (got - wanted).total(), differing)


def _differing(one: np.ndarray | None, other: np.ndarray | None) -> int:
    bytes_of = [b"" if array is None else array.tobytes() for array in (one, other)]
    first, second = (np.frombuffer(data, np.uint8) for data in bytes_of)
    common = min(len(first), len(second))
    changed = int((first[:common] != second[:common]).sum()) + abs(len(first) - len(second))
    same_kind = one is not None and other is not None and one.dtype == other.dtype
    return changed if same_kind else max(1, changed)


@dataclass(frozen=True)
class Reference:
    """What an uninterrupted run did and left.

    Attributes:
        folder: where it ran.
        snapshots: a folder with what each fsync kept.
        patches: patches of all images.
        trace: what it did to its folder.
        arrays: the arrays of its output.
        files: all that it left.
    """

    folder: Path
    snapshots: Path
    patches: int
    trace: list[Operation]
    arrays: Arrays
    files: list[str]


@dataclass(frozen=True)
class Extraction:
    """One `pipeline extract` of a small study, to be run in many folders.

    Attributes:
        server: what runs it.
        manifest: of the study.
        weights: the weights file.
        out: the output, seen from the folder of a run.
        reference: what is compared with.
    """

    server: FaultServer
    manifest: Path
    weights: Path
    out: str = "out/features.h5"
    reference: Reference | None = None

    def with_reference(self, base: Path) -> "Extraction":
        """The same, after an uninterrupted run below `base`."""
        folder, snapshots, trace = base / "reference", base / "snapshots", base / "trace"
        snapshots.mkdir()
        outcome = self.run(folder, Fault(trace=str(trace), snapshots=str(snapshots)))
        assert outcome.code == 0, outcome.text
        cache.check(self.output(folder))
        reference = Reference(
            folder,
            snapshots,
            outcome.patches,
            read_trace(trace, folder),
            read_arrays(self.output(folder)),
            files_below(folder),
        )
        return replace(self, reference=reference)

    @property
    def patches(self) -> int:
        """Patches of all images."""
        return self.reference.patches

    @property
    def trace(self) -> list[Operation]:
        """What the reference run did to its folder."""
        return self.reference.trace

    @property
    def words(self) -> list[str]:
        paths = ["--manifest", str(self.manifest), "--weights", str(self.weights)]
        sizes = ["--patch-size", "32", "--stride", "32", "--threads", "1", "--device", "cpu"]
        return ["extract", *paths, "--out", self.out, *sizes]

    def run(
        self, folder: Path, fault: Fault = NO_FAULT, *more: str, seconds_per_batch: float = 0.0
    ) -> Outcome:
        """Run it, or resume it, in a folder."""
        words = [*self.words, *more]
        return self.server.run(
            words, folder, fault, IMAGES_PER_SHARD, seconds_per_batch=seconds_per_batch
        )

    @contextmanager
    def running(self, folder: Path, shards: int, *more: str) -> Iterator[Future[Outcome]]:
        """Run it slowly; the block begins when so many shards are there, before it is done."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.run, folder, NO_FAULT, *more, seconds_per_batch=0.05)
            while len(list(folder.glob("out/*.shards/*/*-of-*.h5"))) < shards:
                assert not future.done(), future.result().text
                time.sleep(0.005)
            yield future

    def output(self, folder: Path) -> Path:
        return folder / self.out

    def loss(self, folder: Path) -> Loss:
        """How the output in a folder differs from the reference."""
        return compare(self.reference.arrays, read_arrays(self.output(folder)))

    def faults_of_output(self, folder: Path) -> list[str]:
        """What is wrong with the final path: nothing, if it is not there or sound."""
        output = self.output(folder)
        return cache.verify(output) if output.exists() else []

    def faults_of_end(self, folder: Path, outcome: Outcome, tidy: bool = True) -> list[str]:
        """What is wrong after a run that should have finished the work, and tidied up."""
        if outcome.code != 0:
            return [f"exit code {outcome.code}: {outcome.text[-300:]}"]
        wrong = [*faults_of_text(outcome), *cache.verify(self.output(folder))]
        loss = self.loss(folder)
        if loss != Loss(0, 0, 0):
            wrong.append(f"{loss}")
        left = files_below(folder)
        if tidy and left != self.reference.files:
            wrong.append(f"left {sorted({*left} ^ {*self.reference.files})}")
        return wrong


def faults_of_text(outcome: Outcome) -> list[str]:
    """What no run may say."""
    wrong = [f"said {word!r}: {outcome.text[-600:]}" for word in NOISE if word in outcome.text]
    return wrong + (["hung"] if outcome.hung else [])


def files_below(folder: Path) -> list[str]:
    """Every file and folder below one, hidden ones as well."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def parts_below(folder: Path) -> list[str]:
    """Temporary files that are left."""
    return [name for name in files_below(folder) if name.endswith(".part")]


def copy_folder(folder: Path, to: Path) -> Path:
    """A copy in which two names of one file are two names again."""
    inodes: dict[int, Path] = {}
    for path in sorted(folder.rglob("*")):
        target = to / path.relative_to(folder)
        if path.is_dir():
            target.mkdir(parents=True)
        elif path.stat().st_ino in inodes:
            target.hardlink_to(inodes[path.stat().st_ino])
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            inodes[path.stat().st_ino] = target
    to.mkdir(parents=True, exist_ok=True)
    return to


def batch_of(moments: Sequence, batch: int, batches: int) -> Sequence:
    """The part of some moments that one test takes, so that two may run at once."""
    return moments[batch::batches]


def fresh_seed() -> int:
    """A seed that was not used before, for the longer runs; tests print it."""
    return random.SystemRandom().randrange(2**32)


class Figures:
    """Counts that tests hand to the summary at the end of the run."""

    def __init__(self, record_property) -> None:
        self._record = record_property

    def __call__(self, title: str, **counts: int) -> None:
        self._record("figures", json.dumps([title, counts]))

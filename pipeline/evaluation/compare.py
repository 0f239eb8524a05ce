"""Two fits on the same test images, paired over patients."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from cache.files import publish
from pipeline.errors import UsageError
from pipeline.evaluation.bootstrap import Interval, p_value
from pipeline.evaluation.measures import HEADLINE, TITLES, Replicates, draw, measure, replicate
from pipeline.evaluation.scores import Scores
from pipeline.evaluation.tables import shown, span
from pipeline.fitting.record import FitRecord, read_fits
from pipeline.splits.table import some


@dataclass(frozen=True)
class Difference:
    """One measure of both runs.

    Attributes:
        a: of the first run; None if not defined.
        b: of the second.
        difference: a minus b.
        interval: of the difference, at 95%, over patients.
        p: two-sided, that it is 0.
    """

    a: float | None
    b: float | None
    difference: float | None
    interval: Interval | None
    p: float | None


@dataclass(frozen=True)
class Paired:
    """Two runs side by side.

    Attributes:
        a: name of the first run.
        b: name of the second.
        protocol: how the first kept training and test images apart.
        leaks: whether either run did not.
        images: that both test.
        unit: what is resampled.
        units: how many there are, of each class.
        measures: headline measure → difference.
        verdict: one sentence.
    """

    a: str
    b: str
    protocol: str
    leaks: bool
    images: int
    unit: str
    units: tuple[int, ...]
    measures: dict[str, Difference]
    verdict: str

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """As a table for a terminal."""
        rows = [
            [
                TITLES[name],
                shown(found.a),
                shown(found.b),
                "–" if found.difference is None else f"{found.difference:+.3f}",
                span(found.interval, "+"),
                shown(found.p),
            ]
            for name, found in self.measures.items()
        ]
        headers = [f"{self.images} images", "A", "B", "A minus B", "95% interval", "p"]
        table = tabulate(rows, headers, colalign=("left", *["right"] * 5), disable_numparse=True)
        units = " + ".join(map(str, self.units))
        lines = [f"A: {self.a}", f"B: {self.b}", f"Protocol: {self.protocol}"]
        if self.leaks:
            lines.append("LEAKING SPLIT: these numbers say nothing about new patients.")
        by = f"Intervals are over {self.unit}s ({units}, by class), paired, by bootstrap."
        return "\n".join([*lines, "", table, by, "", self.verdict])


def compare(run_a: str, run_b: str, out: Path | None = None) -> Paired:
    """Compare two runs on the same test images.

    Args:
        run_a: a folder of `pipeline fit-lstm`, or `FOLDER:companion` for one of its baselines.
        run_b: another.
        out: a JSON file to publish, if any.

    Raises:
        UsageError: a run cannot be read, or they do not test the same images.
        PublishError: `out` cannot be written.
    """
    (one, a), (two, b) = _read(run_a), _read(run_b)
    _check_classes(run_a, run_b, one, two)
    a, b = _aligned(run_a, run_b, a, b)
    resampling = draw(a)
    first, second = replicate(a, resampling), replicate(b, resampling)
    measures = _differences(a, b, first, second)
    paired = Paired(
        a=run_a,
        b=run_b,
        protocol=one.protocol,
        leaks=one.leaks or two.leaks,
        images=len(set(a.image_ids.tolist())),
        unit=a.unit,
        units=resampling.strata_sizes,
        measures=measures,
        verdict=_verdict(measures["roc_auc"]),
    )
    if out is not None:
        with publish(out) as temporary:
            temporary.write_text(paired.to_json())
    return paired


def _read(run: str) -> tuple[FitRecord, Scores]:
    folder, _, companion = run.rpartition(":")
    if not folder or Path(run).is_dir():
        folder, companion = run, ""
    fits = read_fits(Path(folder))
    record = fits.records[0]
    if companion and companion not in fits.companions:
        held = ", ".join(fits.companions) or "none"
        raise UsageError(f"{run}: no companion {companion}, the run has {held}")
    rows = fits.companions[companion] if companion else fits.predictions
    return record, Scores.of(rows, record.labels)


def _check_classes(run_a: str, run_b: str, one: FitRecord, two: FitRecord) -> None:
    for name in ("target", "labels"):
        mine, theirs = getattr(one, name), getattr(two, name)
        if mine != theirs:
            raise UsageError(
                f"{run_a} and {run_b} have different {name} ({mine} and {theirs}): "
                "compare fits of one task"
            )


def _aligned(run_a: str, run_b: str, a: Scores, b: Scores) -> tuple[Scores, Scores]:
    """Both in the order of repeat and image, checked to be of the same images and classes."""
    keys_a, keys_b = (
        list(zip(s.repeats.tolist(), s.image_ids.tolist(), strict=True)) for s in (a, b)
    )
    only_a, only_b = sorted(set(keys_a) - set(keys_b)), sorted(set(keys_b) - set(keys_a))
    if only_a or only_b:
        raise UsageError(
            f"{run_a} and {run_b} test different images: {len(only_a)} only in the first "
            f"({_some(only_a)}), {len(only_b)} only in the second ({_some(only_b)}), counted in "
            "each repeat: fit both with splits of the same images and repeats"
        )
    if len(set(keys_a)) != len(keys_a) or len(set(keys_b)) != len(keys_b):
        # Official folds test an image more than once.
        keys_a, keys_b = (
            list(zip(s.folds.tolist(), s.image_ids.tolist(), strict=True)) for s in (a, b)
        )
        if sorted(keys_a) != sorted(keys_b):
            raise UsageError(f"{run_a} and {run_b} test images in different folds")
    a, b = (
        s.take(np.array(sorted(range(len(keys)), key=keys.__getitem__)))
        for s, keys in ((a, keys_a), (b, keys_b))
    )
    differing = np.flatnonzero((a.truth != b.truth) | (a.groups != b.groups))
    if len(differing):
        name = a.image_ids[differing[0]]
        raise UsageError(
            f"{run_a} and {run_b}: {len(differing)} images have another class or case, such as "
            f"{name}: fit both from the same manifest"
        )
    return a, b


def _some(keys: list[tuple[int, str]]) -> str:
    return some([f"{image} in repeat {repeat}" for repeat, image in keys]) or "none"


def _differences(
    a: Scores, b: Scores, first: Replicates, second: Replicates
) -> dict[str, Difference]:
    mine, theirs = measure(a), measure(b)
    found = {}
    for name in HEADLINE:
        samples = first.samples[name] - second.samples[name]
        paired = Replicates({name: samples}, first.resampling)
        x, y = mine[name], theirs[name]
        known = x is not None and y is not None
        found[name] = Difference(
            a=x,
            b=y,
            difference=x - y if known else None,  # type: ignore[operator]
            interval=paired.interval(name) if known else None,
            p=p_value(samples, first.resampling.strata_sizes) if known else None,
        )
    return found


def _verdict(auc: Difference) -> str:
    if auc.interval is None:
        return "These images cannot tell which is better: there are too few patients."
    if auc.interval.low > 0:
        return "In ROC AUC, A is better beyond doubt."
    if auc.interval.high < 0:
        return "In ROC AUC, B is better beyond doubt."
    return "In ROC AUC, these images cannot tell which is better."

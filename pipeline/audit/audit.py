"""The audit of a data set and its folds: everything that lets test results be too good."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cache.schema import ImageRow
from cache.statistics import Statistics
from pipeline.audit.finding import LEAK, NOTE, SEVERITIES, SUSPECT, Finding, counted, listed
from pipeline.audit.groups import ambiguous_groups, divided_groups, unknown_groups
from pipeline.audit.membership import NOWHERE, TEST, VAL, Membership
from pipeline.audit.probe import Probe
from pipeline.audit.repeats import Pixels, near_duplicates, same_files, same_pixels
from pipeline.progress import Progress, silent
from pipeline.splits.table import Splits

_HOW_MUCH = (
    "By how much this flatters: give --cache, or see `pipeline evaluate`, which puts what an "
    "image-level split claims beside the honest number."
)


@dataclass(frozen=True)
class Audit:
    """What an audit checked and found.

    Attributes:
        checked: one line for each check, with what came of it.
        findings: the leaks first, then what is suspect, then notes.
        scope: what was audited, in a few words.
        probe: what a quick classifier claims under several splits, if one was fitted.
    """

    checked: tuple[str, ...]
    findings: tuple[Finding, ...]
    scope: str
    probe: Probe | None = None

    @property
    def leaks(self) -> int:
        """How many findings are leaks."""
        return sum(finding.severity == LEAK for finding in self.findings)

    @property
    def summary(self) -> str:
        """One line for a person."""
        counts = [sum(f.severity == severity for f in self.findings) for severity in SEVERITIES]
        parts = [counted(count, name) for count, name in zip(counts, SEVERITIES, strict=True)]
        parts[1] = f"{counts[1]} suspect"
        verdict = "LEAKS" if self.leaks else "no leak found"
        return f"{verdict}: {', '.join(parts)} in {self.scope}"

    def to_json(self) -> str:
        """The audit for programs, with the keys summary, checked, findings and, if any, probe."""
        values: dict[str, Any] = {
            "summary": self.summary,
            "checked": list(self.checked),
            "findings": [asdict(finding) for finding in self.findings],
        }
        if self.probe is not None:
            values["probe"] = self.probe.values()
        return json.dumps(values, indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """The audit for a person: summary, findings with examples, what was checked."""
        lines = [self.summary]
        for finding in self.findings:
            lines += ["", f"{finding.severity.upper()}  {finding.text}"]
            lines += [f"  {example}" for example in finding.examples]
        lines += ["", "Checked:", *(f"  {line}" for line in self.checked)]
        if self.probe is not None:
            lines += ["", *self.probe.lines()]
        elif self.leaks:
            lines += ["", _HOW_MUCH]
        return "\n".join(lines)


def audit(
    rows: Sequence[ImageRow],
    splits: Splits,
    statistics: Statistics | None = None,
    *,
    images: Sequence[int] | None = None,
    numbers: Sequence[int] | None = None,
    known: Iterable[Finding] = (),
    progress: Progress = silent,
) -> Audit:
    """Look for everything that lets the test results of these folds be too good.

    Args:
        rows: the images, N of them.
        splits: the folds. They may name some of the images only, and may leak.
        statistics: of the images' pixels. Without them, pixels are not compared.
        images: the positions in `rows` of the images that `statistics` are of, rising; by
            default they are of all.
        numbers: what each fold is called; from 0 by default.
        known: what was found before, by whoever read the files.
        progress: told of the comparison of images.

    Raises:
        UsageError: there are too many folds of too many images.
    """
    members = Membership(rows, splits, numbers)
    checks = _Checks(list(known))
    slides = len({row.slide for row in rows} - {""})
    cases = len({row.case for row in rows} - {""})
    groups = f"{counted(slides, 'slide')} and {counted(cases, 'case')}"
    scope = f"{counted(len(rows), 'image')}, {groups}, {counted(len(members.numbers), 'fold')}"
    checks.add(f"{groups} on two sides of a fold", divided_groups(members))
    checks.add("slides and cases under several labels or cases", ambiguous_groups(members))
    checks.add("images whose slide or case is not known", unknown_groups(members))
    checks.add("parts of the folds", _parts(members))
    checks.add("files under several names", same_files(members))
    _check_pixels(checks, members, statistics, images, progress)
    ranked = sorted(checks.findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(tuple(checks.lines), tuple(ranked), scope)


class _Checks:
    """What was checked so far, and what was found."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        self.lines: list[str] = []

    def add(self, what: str, found: Iterator[Finding]) -> None:
        """Run a check and note what came of it."""
        new = list(found)
        self.findings += new
        result = ", ".join(dict.fromkeys(finding.severity for finding in new)) or "nothing found"
        self.lines.append(f"{what}: {result}")


def _check_pixels(
    checks: _Checks,
    members: Membership,
    statistics: Statistics | None,
    images: Sequence[int] | None,
    progress: Progress,
) -> None:
    shown = range(len(members.rows)) if images is None else images
    if statistics is not None and len(statistics) != len(shown):
        raise ValueError(f"statistics of {len(statistics)} images, expected {len(shown)}")
    unseen = len(members.rows) - (0 if statistics is None else len(shown))
    if unseen:
        text = (
            f"the pixels of {unseen:,} of {counted(len(members.rows), 'image')} are not known: it "
            "was not checked whether others have the same pixels or look alike"
        )
        checks.add(
            "images whose pixels are not known", iter([Finding("no_pixels", NOTE, unseen, text)])
        )
    if statistics is None or not len(shown):
        return
    pixels = Pixels(
        np.array(shown, np.int64), statistics.perceptual_hash, statistics.pixels_sha256.tolist()
    )
    seen = counted(len(shown), "image")
    checks.add(f"the pixels of {seen} under several names", same_pixels(members, pixels))
    checks.add(f"pairs of {seen} that look alike", near_duplicates(members, pixels, progress))


def _parts(members: Membership) -> Iterator[Finding]:
    """Folds without a test or validation part, and images that no fold names."""
    total = len(members.numbers)
    for code, name, severity, why in (
        (TEST, "test", SUSPECT, "nothing is measured there"),
        (VAL, "validation", NOTE, "what chooses epochs and thresholds there may be the test part"),
    ):
        lacking = [
            number
            for number, roles in zip(members.numbers, members.roles, strict=True)
            if not (roles == code).any()
        ]
        if lacking:
            folds = listed(lacking, total)
            text = f"no {name} part in {folds}: {why}"
            yield Finding(f"no_{name}_part", severity, len(lacking), text)
    unnamed = np.flatnonzero((members.roles == NOWHERE).all(axis=0)).tolist()
    if unnamed:
        names = tuple(members.rows[image].image_id for image in unnamed[:10])
        text = f"{len(unnamed):,} of {counted(len(members.rows), 'image')} are in no fold"
        yield Finding("unused_images", NOTE, len(unnamed), text, names)

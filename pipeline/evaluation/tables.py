"""An evaluation as text for a terminal."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.headline import heading, image_level_line
from pipeline.evaluation.measures import TITLES, Measures
from pipeline.fitting.record import COMPANIONS
from pipeline.user_file import printable

if TYPE_CHECKING:
    from pipeline.evaluation.evaluate import Evaluation

_GROUPED = ("accuracy", "roc_auc", "patient_recognition_rate")


def tables(evaluation: "Evaluation") -> str:
    """Everything that a reader looks for, what must be said before any number first."""
    return "\n\n".join(filter(None, _parts(evaluation)))


def _parts(evaluation: "Evaluation") -> Iterator[str]:
    yield heading(vars(evaluation))
    yield _main(evaluation)
    yield _calibration(evaluation)
    yield _companions(evaluation)
    yield evaluation.verdict
    yield image_level_line(evaluation.image_level)
    for title, part in (
        ("magnification", evaluation.by_magnification),
        ("subtype", evaluation.by_subtype),
    ):
        if len(part) > 1:
            yield _groups(title, part)
    if len(evaluation.labels) > 2:
        yield _table([[k, shown(v)] for k, v in evaluation.by_class.items()], ["class", "recall"])
    yield _published(evaluation)
    yield _audit(evaluation.audit)
    yield "\n".join(evaluation.notes)


def _main(evaluation: "Evaluation") -> str:
    counts = f"{evaluation.images} images"
    if evaluation.patients is not None:
        counts += f", {evaluation.patients} patients"
    headers = [
        f"{len(evaluation.folds)} folds, {counts}",
        "pooled",
        "95% interval",
        "mean ± sd of folds",
    ]
    rows = [
        [
            TITLES[name],
            shown(value),
            span(evaluation.intervals.get(name)),
            _spread(evaluation.mean[name], evaluation.sd[name]),
        ]
        for name, value in evaluation.pooled.items()
    ]
    units = " + ".join(map(str, evaluation.units))
    by = f"Intervals are over {evaluation.unit}s ({units}, by class), by bootstrap."
    return f"{_table(rows, headers)}\n{by}"


def _calibration(evaluation: "Evaluation") -> str:
    rows = [
        [f"{when} temperature scaling", shown(found.brier), shown(found.ece)]
        for when, found in evaluation.calibration.items()
    ]
    return _table(rows, ["calibration", "Brier score", "ECE"])


def _companions(evaluation: "Evaluation") -> str:
    if not evaluation.companions:
        return ""
    own = [_with(evaluation.pooled, evaluation.intervals, name) for name in _GROUPED]
    rows = [["LSTM", *own, "", ""]]
    for name, found in evaluation.companions.items():
        cells = [_with(found.measures, found.intervals, measure) for measure in _GROUPED]
        gain = "–" if found.auc_gain is None else f"{found.auc_gain:+.3f}"
        gained = f"{gain} {span(found.gain_interval, '+')}"
        rows.append([COMPANIONS[name], *cells, gained, shown(found.p)])
    headers = ["model", *(TITLES[name] for name in _GROUPED), "ROC AUC, LSTM minus this", "p"]
    return _table(rows, headers)


def _with(measures: Measures, intervals: Mapping[str, Interval | None], name: str) -> str:
    return f"{shown(measures[name])} {span(intervals[name])}"


def _groups(title: str, part: Mapping[str, Measures]) -> str:
    rows = [
        [key, f"{found['images']:.0f}", *(shown(found[name]) for name in _GROUPED)]
        for key, found in part.items()
    ]
    return _table(rows, [title, "images", *(TITLES[name] for name in _GROUPED)])


def _published(evaluation: "Evaluation") -> str:
    if not evaluation.published:
        return ""
    rows = [
        [one["source"], one["protocol"], one["patient"] or "–", one["image"] or "–"]
        for one in evaluation.published
    ]
    rate, accuracy = (evaluation.mean[n] for n in ("patient_recognition_rate", "accuracy"))
    own = ["these images", evaluation.protocol, _percent(rate), _percent(accuracy)]
    headers = ["published, 100X", "protocol", "patient level, %", "image level, %"]
    return _table([*rows, own], headers)


def _audit(audit: Mapping[str, Any]) -> str:
    findings = audit.get("findings")
    lines = [f"Audit: {printable(str(audit.get('summary', 'none')), 400)}"]
    for finding in findings if isinstance(findings, list) else []:
        if isinstance(finding, dict) and finding.get("severity") in ("leak", "suspect"):
            text = printable(str(finding.get("text", "")), 400)
            lines.append(f"  {finding['severity'].upper()}: {text}")
    return "\n".join(lines)


def _table(rows: list[list[str]], headers: list[str]) -> str:
    alignment = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, colalign=alignment, disable_numparse=True)


def shown(value: float | None) -> str:
    """A measure with three decimals; a dash if it is not defined."""
    return "–" if value is None else f"{value:.3f}"


def span(interval: Interval | None, sign: str = "") -> str:
    """An interval, or nothing."""
    return "" if interval is None else f"({interval[0]:{sign}.2f} to {interval[1]:{sign}.2f})"


def _spread(mean: float | None, sd: float | None) -> str:
    return shown(mean) if sd is None else f"{shown(mean)} ± {sd:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"

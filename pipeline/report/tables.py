"""The tables of a report: rows of text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.measures import HEADLINE, TITLES, Measures
from pipeline.evaluation.scores import Scores
from pipeline.evaluation.tables import shown, span
from pipeline.fitting.record import COMPANIONS, FitRecord
from pipeline.report.run_files import RunFiles

GROUPED = ("accuracy", "roc_auc", "patient_recognition_rate")


class Table(NamedTuple):
    """A table: its caption, header and rows; the first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Card(NamedTuple):
    """A headline number."""

    title: str
    value: str
    interval: str


def cards(evaluation: Evaluation) -> list[Card]:
    """The headline measures with their intervals."""
    return [
        Card(TITLES[name], shown(evaluation.pooled[name]), span(evaluation.intervals[name]))
        for name in HEADLINE
    ]


def measures(evaluation: Evaluation) -> Table:
    """Every measure, pooled and by fold."""
    rows = [
        [
            TITLES[name],
            shown(value),
            span(evaluation.intervals.get(name)),
            shown(evaluation.mean[name]),
            shown(evaluation.sd[name]),
        ]
        for name, value in evaluation.pooled.items()
    ]
    header = ["measure", "pooled", "95% interval", "mean of folds", "sd"]
    return Table("All measures, test images only", header, rows)


def what_was_run(run: RunFiles) -> Table:
    """Data, splits, recipe, fit and versions."""
    record, rows = run.fits.records[0], run.rows
    labels = Counter(row.label for row in rows)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(labels.items()))
    told = {
        "images": f"{len(rows)} ({counts})",
        "slides": _known({row.slide for row in rows}),
        "patients (cases)": _known({row.case for row in rows}),
        "magnifications": ", ".join(
            f"{one}X" if one else "unknown" for one in sorted({row.magnification for row in rows})
        ),
        "splits": f"{record.protocol}; kept together: {record.group_by}",
        "told apart": f"{record.target}: {', '.join(record.labels)}",
        "trained on": f"{record.train_magnification}X only" if record.train_magnification else "",
        **_recipe(run),
        "options of the fit": ", ".join(f"{k}={_short(v)}" for k, v in record.options.items()),
        **{k.replace("_", " "): v for k, v in run.cache.provenance.items()},
    }
    return Table("What was run", ["", ""], [[name, text] for name, text in told.items() if text])


def _recipe(run: RunFiles) -> dict[str, str]:
    recipe = run.recipe
    return {
        "encoder": f"{recipe.encoder}, {recipe.weights} weights {recipe.weights_sha256[:12]}…",
        "features": f"{recipe.feature_dim} a patch: {recipe.pooling} of {recipe.layer}, "
        f"{recipe.dtype}",
        "patches": f"{run.cache.patches} of {recipe.patch_size} pixels, every {recipe.stride}, "
        f"{recipe.scan_order}, edges: {recipe.edge_policy}, views: {', '.join(recipe.views)}",
        "precision": recipe.precision,
        "fingerprint of the recipe": recipe.fingerprint,
    }


def _known(names: set[str]) -> str:
    return "" if "" in names else str(len(names))


def _short(value: object) -> str:
    return "–" if value is None else str(value)


def confusion(scores: Scores, by_patient: bool) -> Table | None:
    """Right classes against called ones; of patients by majority; over all repeats together."""
    truth, called = scores.truth, scores.called
    if by_patient:
        found = _majorities(scores)
        if not found:
            return None
        truth, called = np.array(found).T
    size = len(scores.classes)
    counts = np.bincount(truth * size + called, minlength=size * size).reshape(size, size)
    rows = [
        [name, *(str(count) for count in counts[number])]
        for number, name in enumerate(scores.classes)
    ]
    repeats = len(np.unique(scores.repeats))
    unit = "Patients, by the class that most of their images are called" if by_patient else "Images"
    caption = f"{unit}{f', all {repeats} repeats together' if repeats > 1 else ''}"
    header = ["is ↓  called →", *scores.classes]
    return Table(caption, header, rows)


def _majorities(scores: Scores) -> list[tuple[int, int]]:
    """Class, and class most often called, of each patient in each repeat; ties go to the wrong."""
    if "" in scores.cases:
        return []
    found = []
    for part in scores.by_repeat():
        for case in np.unique(part.cases):
            mine = part.take(part.cases == case)
            truth = int(np.bincount(mine.truth).argmax())
            votes = np.bincount(mine.called, minlength=len(scores.classes)).astype(float)
            votes[truth] -= 0.5
            found.append((truth, int(votes.argmax())))
    return found


def by_patient(scores: Scores) -> Table | None:
    """Each patient: images, how many are right, mean probability."""
    if "" in scores.cases:
        return None
    rows = []
    for case in np.unique(scores.cases):
        mine = scores.take(scores.cases == case)
        truth = [scores.classes[k] for k in np.unique(mine.truth)]
        right = float(mine.right.mean())
        top = mine.probabilities[np.arange(len(mine)), mine.truth]
        rows.append(
            (
                right,
                [
                    case,
                    ", ".join(truth),
                    str(len(set(mine.image_ids.tolist()))),
                    f"{right:.3f}",
                    f"{top.mean():.3f}",
                ],
            )
        )
    header = ["patient", "is", "images", "called rightly", "mean probability of the right class"]
    return Table("Patients, the worst first", header, [row for _, row in sorted(rows)])


def parts(title: str, found: Mapping[str, Measures]) -> Table | None:
    """Measures of each magnification or subtype; None of one alone."""
    if len(found) < 2:
        return None
    rows = [
        [key, f"{one['images']:.0f}", *(shown(one[name]) for name in GROUPED)]
        for key, one in found.items()
    ]
    header = [title, "images", *(TITLES[name] for name in GROUPED)]
    return Table(f"By {title}", header, rows)


def baselines(evaluation: Evaluation) -> Table | None:
    """The LSTM beside what was fitted from the same folds."""
    if not evaluation.companions:
        return None
    own = [
        f"{shown(evaluation.pooled[name])} {span(evaluation.intervals[name])}" for name in GROUPED
    ]
    rows = [["LSTM", *own, "", ""]]
    for name, found in evaluation.companions.items():
        cells = [f"{shown(found.measures[m])} {span(found.intervals[m])}" for m in GROUPED]
        gain = "–" if found.auc_gain is None else f"{found.auc_gain:+.3f}"
        difference = f"{gain} {span(found.gain_interval, '+')}"
        rows.append([COMPANIONS[name], *cells, difference, shown(found.p)])
    header = ["model", *(TITLES[name] for name in GROUPED), "ROC AUC, LSTM minus this", "p"]
    return Table("Fitted from the same folds and features", header, rows)


def published(evaluation: Evaluation) -> Table | None:
    """Figures of other studies whose protocol is of the same kind."""
    if not evaluation.published:
        return None
    rows = [
        [one["source"], one["protocol"], one["patient"] or "–", one["image"] or "–"]
        for one in evaluation.published
    ]
    rate, accuracy = (evaluation.mean[n] for n in ("patient_recognition_rate", "accuracy"))
    percent = ["–" if one is None else f"{100 * one:.1f}" for one in (rate, accuracy)]
    rows.append(["this run", evaluation.protocol, *percent])
    header = ["source", "protocol", "patient level, %", "image level, %"]
    return Table("Published at 100X, on other images of BreakHis", header, rows)


def calibration(evaluation: Evaluation) -> Table:
    """Brier score and calibration error before and after temperature scaling."""
    rows = [
        [f"{when} temperature scaling", shown(found.brier), shown(found.ece)]
        for when, found in evaluation.calibration.items()
    ]
    return Table("Calibration", ["", "Brier score", "calibration error (ECE)"], rows)


def folds(records: Sequence[FitRecord], evaluation: Evaluation) -> Table:
    """Each fold: its numbers, and what was locked by the images set aside."""
    rows = [
        [
            str(record.fold),
            *(shown(found[name]) for name in GROUPED),
            shown(record.threshold),
            f"{record.temperature:.2f}",
            record.chosen or "–",
        ]
        for record, found in zip(records, evaluation.folds, strict=True)
    ]
    header = ["fold", *(TITLES[name] for name in GROUPED), "threshold", "temperature", "choice"]
    return Table("Folds", header, rows)

"""The few numbers that a reader looks for first, from a file of metrics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipeline.errors import UsageError

_ROWS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "patient_recognition_rate": "patient recognition rate",
}


def headline(metrics: Path) -> str:
    """A note, the protocol and a table of four measures.

    Args:
        metrics: the JSON file that `pipeline evaluate` wrote.

    Raises:
        UsageError: the file is not one.
    """
    try:
        values = json.loads(metrics.read_text("utf-8"))
        return f"{heading(values)}\n\n{_table(values)}"
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{metrics}: not a file of `pipeline evaluate` ({error})") from error


def heading(values: Mapping[str, Any]) -> str:
    """What must be said before any number: note, protocol, leaks, weights that are not usual.

    Args:
        values: of `metrics.json`.
    """
    lines = [values["note"], f"Protocol: {values['protocol']}"]
    if values["leaks"]:
        lines.append("LEAKING SPLIT: these numbers say nothing about new patients.")
    if values["weights"] != "imagenet":
        lines.append(f"Encoder weights: {values['weights']}, not ImageNet's.")
    lines.append(f"Positive label: {values['labels'][1]}. Test images only.")
    return "\n".join(filter(None, lines))


def _table(values: Mapping[str, Any]) -> str:
    rows = [
        [title, *(_shown(values[part][name]) for part in ("pooled", "mean", "sd"))]
        for name, title in _ROWS.items()
    ]
    headers = [f"{values['pooled']['images']} test images", "pooled", "mean of folds", "sd"]
    return tabulate(rows, headers, colalign=("left", *["right"] * 3), disable_numparse=True)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

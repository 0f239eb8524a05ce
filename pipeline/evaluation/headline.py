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
    """A note, the protocol, a table of four measures, and what must be said of them.

    Args:
        metrics: the JSON file that `pipeline evaluate` wrote.

    Raises:
        UsageError: the file is not one.
    """
    try:
        values = json.loads(metrics.read_text("utf-8"))
        after = [values["verdict"], image_level_line(values["image_level"])]
        return "\n\n".join(filter(None, [heading(values), _table(values), *after]))
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
    if values["train_magnification"]:
        lines.append(f"Trained at {values['train_magnification']}X only.")
    classes = values["labels"]
    told = f"Positive label: {classes[1]}" if len(classes) == 2 else f"{len(classes)} classes"
    lines.append(f"{told}. Test images only.")
    return "\n".join(filter(None, lines))


def image_level_line(measures: Mapping[str, float | None] | None) -> str:
    """What an image-level split would have claimed; nothing if it was not fitted."""
    if measures is None or measures["accuracy"] is None:
        return ""
    auc = measures["roc_auc"]
    area = "" if auc is None else f" (ROC AUC {auc:.3f})"
    return (
        f"An image-level split of the same images would have claimed accuracy "
        f"{measures['accuracy']:.3f}{area}: it LEAKS, and says nothing about new patients."
    )


def _table(values: Mapping[str, Any]) -> str:
    rows = [
        [
            title,
            _shown(values["pooled"][name]),
            _span(values["intervals"][name]),
            _shown(values["mean"][name]),
            _shown(values["sd"][name]),
        ]
        for name, title in _ROWS.items()
    ]
    headers = [f"{values['images']} test images", "pooled", "95% interval", "mean of folds", "sd"]
    return tabulate(rows, headers, colalign=("left", *["right"] * 4), disable_numparse=True)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _span(interval: list[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"

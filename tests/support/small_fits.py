"""A fit's folder from predictions written by hand."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.fitting.predictions import Prediction, file_sha256, write_predictions
from pipeline.fitting.record import FitRecord, Fits, read_fits

CLASSES = ("benign", "malignant")


def prediction(fold, case, label, probability, role="test", **changes) -> Prediction:
    """One of two classes; called at a threshold of one half, with a logit that is not scaled."""
    fields = {
        "image_id": f"{case}-{probability}",
        "slide": case,
        "case": case,
        "label": label,
        "subtype": "adenosis" if label == "benign" else "ductal_carcinoma",
        "magnification": 100,
        "role": role,
        "repeat": 0,
        "fold": fold,
        "group_by": "case",
        "truth": label,
        "called": CLASSES[probability >= 0.5],
        "logits": (4 * probability - 2,),
        "probabilities": (probability,),
    }
    return Prediction(**{**fields, **changes})


def record(**changes) -> FitRecord:
    fields = {
        "fold": 0,
        "folds": 2,
        "repeat": 0,
        "repeats": 1,
        "target": "label",
        "labels": CLASSES,
        "group_by": "case",
        "protocol": "case-disjoint, 2 folds",
        "leaks": False,
        "train_magnification": 0,
        "weights": "imagenet",
        "fingerprint": "f" * 64,
        "manifest_sha256": "0" * 64,
        "splits_sha256": "0" * 64,
        "audit_sha256": "0" * 64,
        "predictions_sha256": "0" * 64,
        "model_sha256": "0" * 64,
        "temperature": 1.0,
        "threshold": 0.5,
        "companions": {},
        "options": {},
        "chosen": "",
        "notes": (),
        "seconds": 1.0,
    }
    return FitRecord(**{**fields, **changes})


def fits(
    predictions: Sequence[Prediction],
    companions: dict[str, Sequence[Prediction]] | None = None,
    audit: dict | None = None,
    **changes,
) -> Fits:
    """As `read_fits` gives them, without files."""
    folds = sorted({p.fold for p in predictions})
    records = [record(fold=fold, folds=len(folds), **changes) for fold in folds]
    return Fits(Path("fits"), records, list(predictions), companions or {}, audit or {})


def write_fits(
    folder: Path,
    predictions: Sequence[Prediction],
    companions: dict[str, Sequence[Prediction]] | None = None,
    **changes,
) -> Fits:
    """Write a folder that `read_fits` takes; it has no models."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text('{"summary": "no leak found"}')
    folds = sorted({p.fold for p in predictions})
    classes = changes.get("labels", CLASSES)
    for fold in folds:
        place = folder / f"fold{fold}"
        place.mkdir(exist_ok=True)
        mine = [p for p in predictions if p.fold == fold]
        write_predictions(place / "predictions.csv", mine, classes)
        tables = {}
        for name, rows in (companions or {}).items():
            table = place / f"{name}.csv"
            write_predictions(table, [p for p in rows if p.fold == fold], classes)
            tables[name] = {"sha256": file_sha256(table), "temperature": 1.0, "threshold": None}
            if len(classes) == 2:
                tables[name]["threshold"] = 0.5
        made = record(
            fold=fold,
            folds=len(folds),
            repeat=mine[0].repeat,
            repeats=len({p.repeat for p in predictions}),
            predictions_sha256=file_sha256(place / "predictions.csv"),
            audit_sha256=file_sha256(folder / "audit.json"),
            companions=tables,
            **changes,
        )
        (place / "fit.json").write_text(json.dumps(dataclasses.asdict(made)))
    return read_fits(folder)


def simulated(signal: float, seed: int = 0, cases: int = 20, images: int = 4, **changes):
    """Predictions of `cases` cases in two folds, half of them malignant; noise without signal."""
    import numpy as np

    random = np.random.default_rng(seed)
    rows = []
    for case in range(cases):
        label = CLASSES[case % 2]
        for number in range(images):
            logit = signal * (2 * (case % 2) - 1) + random.normal()
            probability = float(1 / (1 + np.exp(-logit)))
            rows.append(
                prediction(
                    (case // 2) % 2,
                    f"c{case}",
                    label,
                    probability,
                    image_id=f"c{case}-{number}",
                    **changes,
                )
            )
    return rows

"""The numbers of an evaluation are those of the test predictions, and name their protocol."""

import json
from statistics import fmean, stdev

import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.evaluate import evaluate_predictions
from pipeline.evaluation.headline import headline
from pipeline.fitting.predictions import FitRecord, Prediction


def record(**changes) -> FitRecord:
    fields = {
        "fold": 0,
        "folds": 2,
        "labels": ("benign", "malignant"),
        "group_by": "case",
        "protocol": "case-disjoint, 2 folds",
        "leaks": False,
        "weights": "imagenet",
        "fingerprint": "f" * 64,
        "manifest_sha256": "0" * 64,
        "splits_sha256": "0" * 64,
        "predictions_sha256": "0" * 64,
        "model_sha256": "0" * 64,
        "options": {},
        "seconds": 1.0,
    }
    return FitRecord(**{**fields, **changes})


def prediction(fold, case, label, probability, role="test", **changes) -> Prediction:
    fields = {
        "image_id": f"{fold}-{case}-{probability}",
        "slide": case,
        "case": case,
        "label": label,
        "subtype": "adenosis" if label == "benign" else "ductal_carcinoma",
        "magnification": 100,
        "role": role,
        "fold": fold,
        "group_by": "case",
        "probability": probability,
    }
    return Prediction(**{**fields, **changes})


PREDICTIONS = [
    prediction(0, "a", "benign", 0.1),
    prediction(0, "a", "benign", 0.6),
    prediction(0, "b", "malignant", 0.9),
    prediction(1, "c", "benign", 0.2, magnification=400),
    prediction(1, "d", "malignant", 0.4),
    prediction(1, "d", "malignant", 0.8),
]
OTHERS = [
    prediction(0, "c", "benign", 1.0, role="train"),
    prediction(1, "a", "malignant", 0.0, role="val"),
]


def test_a_case_worked_by_hand():
    found = evaluate_predictions(record(), PREDICTIONS + OTHERS)
    assert found.pooled.images == 6
    assert found.pooled.accuracy == pytest.approx(4 / 6)
    assert found.pooled.patient_recognition_rate == pytest.approx((0.5 + 1 + 1 + 0.5) / 4)
    assert [fold.accuracy for fold in found.folds] == [pytest.approx(2 / 3)] * 2
    assert [fold.patient_recognition_rate for fold in found.folds] == [0.75, 0.75]
    assert found.by_magnification["100X"].images == 5
    assert found.by_magnification["400X"].accuracy == 1
    assert found.by_subtype["ductal_carcinoma"].accuracy == pytest.approx(2 / 3)


def test_only_test_images_count():
    with_others = evaluate_predictions(record(), PREDICTIONS + OTHERS)
    assert with_others == evaluate_predictions(record(), PREDICTIONS)
    with pytest.raises(UsageError, match="no test image"):
        evaluate_predictions(record(), OTHERS)


def test_mean_and_sd_are_those_of_the_folds():
    found = evaluate_predictions(record(), PREDICTIONS)
    for name in ("accuracy", "roc_auc", "brier"):
        values = [getattr(fold, name) for fold in found.folds]
        assert found.mean[name] == pytest.approx(fmean(values))
        assert found.sd[name] == pytest.approx(stdev(values))


def test_a_measure_that_one_fold_lacks_has_no_mean():
    found = evaluate_predictions(record(), [p for p in PREDICTIONS if p.case != "c"])
    assert found.folds[1].roc_auc is None
    assert (found.mean["roc_auc"], found.sd["roc_auc"]) == (None, None)
    assert found.mean["accuracy"] is not None
    assert "–" in found.to_text()


def test_a_patient_tested_in_two_folds_counts_in_each():
    twice = [*PREDICTIONS, prediction(1, "a", "benign", 0.1)]
    assert evaluate_predictions(record(group_by="official"), twice).pooled.patients == 5


def test_json_and_table_hold_the_same_numbers():
    found = evaluate_predictions(record(), PREDICTIONS, "a note")
    values = json.loads(found.to_json())
    assert values["pooled"]["accuracy"] == found.pooled.accuracy
    assert values["folds"][1]["patients"] == 2
    assert values["by_subtype"]["adenosis"]["images"] == 3
    assert (values["note"], values["protocol"]) == ("a note", "case-disjoint, 2 folds")
    text = found.to_text()
    for expected in ("a note", "case-disjoint, 2 folds", f"{found.pooled.roc_auc:.3f}", "400X"):
        assert expected in text


def test_leaks_and_weights_that_are_not_imagenets_are_said_aloud():
    quiet = evaluate_predictions(record(), PREDICTIONS)
    assert "LEAK" not in quiet.to_text()
    assert "weights" not in quiet.to_text()
    assert "Positive label: malignant" in quiet.to_text()
    loud = evaluate_predictions(record(leaks=True, weights="random(seed=0)"), PREDICTIONS)
    assert "LEAKING SPLIT" in loud.to_text()
    assert "random(seed=0), not ImageNet's" in loud.to_text()
    values = json.loads(loud.to_json())
    assert (values["leaks"], values["weights"]) == (True, "random(seed=0)")


def test_images_without_case_have_no_patient_level():
    found = evaluate_predictions(record(), [p._replace(case="") for p in PREDICTIONS])
    assert found.pooled.patient_recognition_rate is None
    assert "patients" not in found.to_text().splitlines()[3]


def test_the_headline_repeats_the_file_and_its_warnings(tmp_path):
    found = evaluate_predictions(record(leaks=True), PREDICTIONS, "a note")
    (tmp_path / "m.json").write_text(found.to_json())
    text = headline(tmp_path / "m.json")
    for expected in ("a note", "LEAKING SPLIT", "case-disjoint, 2 folds", "6 test images"):
        assert expected in text
    row = next(line for line in text.splitlines() if line.startswith("ROC AUC"))
    numbers = (found.pooled.roc_auc, found.mean["roc_auc"], found.sd["roc_auc"])
    assert row.split()[2:] == [f"{number:.3f}" for number in numbers]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"note": ""}'])
def test_a_file_that_holds_no_metrics_is_refused(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(UsageError, match=r"m\.json: not a file of"):
        headline(tmp_path / "m.json")

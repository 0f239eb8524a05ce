"""The numbers of an evaluation are those of the test predictions, and name their protocol."""

import json
from statistics import fmean, stdev

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_fits import fits, prediction, simulated, write_fits

from pipeline.errors import UsageError
from pipeline.evaluation.companions import STAINING
from pipeline.evaluation.evaluate import evaluate_fits
from pipeline.evaluation.headline import headline

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
    found = evaluate_fits(fits(PREDICTIONS + OTHERS))
    assert (found.images, found.patients) == (6, 4)
    assert found.pooled["accuracy"] == pytest.approx(4 / 6)
    assert found.pooled["patient_recognition_rate"] == pytest.approx((0.5 + 1 + 1 + 0.5) / 4)
    assert found.pooled["majority_vote"] == pytest.approx((0.5 + 1 + 1 + 0.5) / 4)
    assert [fold["accuracy"] for fold in found.folds] == [pytest.approx(2 / 3)] * 2
    assert found.by_magnification["100X"]["images"] == 5
    assert found.by_magnification["400X"]["accuracy"] == 1
    assert found.by_subtype["ductal_carcinoma"]["accuracy"] == pytest.approx(2 / 3)
    assert found.by_class == {"benign": pytest.approx(2 / 3), "malignant": pytest.approx(2 / 3)}


def test_only_test_images_count():
    with_others = evaluate_fits(fits(PREDICTIONS + OTHERS))
    assert with_others == evaluate_fits(fits(PREDICTIONS))
    with pytest.raises(UsageError, match="no test image"):
        evaluate_fits(fits(OTHERS))


def test_the_call_of_the_locked_threshold_counts_not_one_half():
    called = [p._replace(called=p.truth) for p in PREDICTIONS]
    assert evaluate_fits(fits(called)).pooled["accuracy"] == 1


def test_mean_and_sd_are_those_of_the_folds():
    found = evaluate_fits(fits(PREDICTIONS))
    for name in ("accuracy", "roc_auc", "brier"):
        values = [fold[name] for fold in found.folds]
        assert found.mean[name] == pytest.approx(fmean(values))
        assert found.sd[name] == pytest.approx(stdev(values))


def test_a_measure_that_one_fold_lacks_has_no_mean():
    found = evaluate_fits(fits([p for p in PREDICTIONS if p.case != "c"]))
    assert found.folds[1]["roc_auc"] is None
    assert (found.mean["roc_auc"], found.sd["roc_auc"]) == (None, None)
    assert found.mean["accuracy"] is not None
    assert "–" in found.to_text()


def test_repeats_are_measured_apart_and_averaged():
    first = simulated(1.0)
    second = simulated(3.0, seed=1, repeat=1)
    second = [p._replace(fold=p.fold + 2) for p in second]
    both = evaluate_fits(fits(first + second)).pooled["roc_auc"]
    apart = [evaluate_fits(fits(part)).pooled["roc_auc"] for part in (first, second)]
    assert both == pytest.approx(fmean(apart))
    pooled = [(p.truth == "malignant", p.probabilities[0]) for p in first + second]
    assert both != pytest.approx(roc_auc_score(*zip(*pooled, strict=True)), abs=1e-6)


def test_intervals_hold_the_estimate_and_shrink_with_the_number_of_patients():
    widths = []
    for cases in (8, 60):
        found = evaluate_fits(fits(simulated(1.0, cases=cases)))
        for name, reach in found.intervals.items():
            assert reach.low <= found.pooled[name] <= reach.high
        widths.append(found.intervals["accuracy"].high - found.intervals["accuracy"].low)
    assert (found.unit, found.units) == ("case", (30, 30))
    assert widths[1] < widths[0] / 1.5


def test_many_images_of_a_patient_make_no_interval_narrower():
    """Ten copies of every image add nothing, and an interval over images would not know."""
    rows = simulated(1.0)
    copies = [p._replace(image_id=f"{p.image_id}-{k}") for p in rows for k in range(10)]
    one, ten = (evaluate_fits(fits(part)).intervals["accuracy"] for part in (rows, copies))
    assert one == pytest.approx(ten)


def test_slides_or_images_stand_in_for_unknown_cases_and_are_named():
    nameless = [p._replace(case="") for p in simulated(1.0)]
    found = evaluate_fits(fits(nameless))
    assert (found.unit, found.patients) == ("slide", None)
    assert found.pooled["patient_recognition_rate"] is None
    assert "over slides" in found.to_text()
    assert evaluate_fits(fits([p._replace(slide="") for p in nameless])).unit == "image"


def test_a_class_of_one_patient_is_said_to_have_no_spread():
    found = evaluate_fits(fits([p for p in PREDICTIONS if p.case != "d"]))
    assert any("one case only" in note for note in found.notes)


def test_scaling_by_temperature_changes_calibration_only():
    rows = [p._replace(logits=(8 * p.logits[0],)) for p in simulated(1.0)]
    found = evaluate_fits(fits(rows))
    before, after = found.calibration["before"], found.calibration["after"]
    assert before.brier > after.brier
    assert before.ece > after.ece
    assert after.brier == found.pooled["brier"]
    assert sum(one["images"] for one in after.reliability) == len(rows)


COMPANIONS = {"mean_pool_logistic": simulated(0.1, seed=3), "colour": simulated(0.0, seed=4)}


def test_the_verdict_names_what_is_beaten_and_what_is_not():
    found = evaluate_fits(fits(simulated(3.0), COMPANIONS))
    assert found.companions["colour"].beaten
    assert found.verdict == (
        "In ROC AUC the LSTM beats all baselines beyond doubt: mean-pooled logistic regression "
        "and colour alone."
    )
    equal = evaluate_fits(fits(simulated(0.1, seed=3), COMPANIONS))
    assert equal.companions["mean_pool_logistic"].auc_gain == 0
    assert equal.companions["mean_pool_logistic"].p == 1
    assert equal.verdict.endswith(STAINING)
    mixed = evaluate_fits(fits(simulated(3.0), {**COMPANIONS, "attention": simulated(3.0)}))
    assert "but not attention pooling" in mixed.verdict
    assert STAINING not in mixed.verdict


def test_the_image_level_split_is_no_baseline_and_is_said_to_leak():
    found = evaluate_fits(fits(simulated(1.0), {**COMPANIONS, "image_level": simulated(5.0)}))
    assert "image_level" not in found.companions
    assert found.image_level["accuracy"] > 0.99
    text = found.to_text()
    assert "would have claimed accuracy 1.000 (ROC AUC 1.000): it LEAKS" in text


def test_published_figures_stand_beside_results_of_the_same_protocol_only():
    same = evaluate_fits(fits(simulated(1.0)))
    assert "MIL-NP" in same.to_text()
    assert "90.05" not in same.to_text()
    leaking = evaluate_fits(fits(simulated(1.0), leaks=True)).to_text()
    assert "90.05" in leaking
    assert "MIL-NP" not in leaking
    others = [p._replace(magnification=40) for p in simulated(1.0)]
    assert evaluate_fits(fits(others)).published == []


def test_the_findings_of_the_audit_are_printed_and_no_control_character():
    finding = {"kind": "k", "severity": "leak", "text": "3 cases \x1b[2J on both sides"}
    found = evaluate_fits(fits(PREDICTIONS, audit={"summary": "a leak", "findings": [finding]}))
    text = found.to_text()
    assert "Audit: a leak" in text
    assert "LEAK: 3 cases" in text
    assert "\x1b" not in text
    assert json.loads(found.to_json())["audit"]["findings"] == [finding]


def test_three_classes_are_measured_and_their_recalls_shown():
    classes = ("a", "b", "c")
    random = np.random.default_rng(0)
    rows = []
    for number, p in enumerate(simulated(0.0)):
        truth = classes[number // 4 % 3]
        logits = tuple(random.normal(size=3) + 2 * (np.array(classes) == truth))
        shares = tuple(np.exp(logits) / np.exp(logits).sum())
        called = classes[int(np.argmax(logits))]
        rows.append(p._replace(truth=truth, called=called, logits=logits, probabilities=shares))
    found = evaluate_fits(fits(rows, labels=classes, target="subtype", threshold=None))
    right = [p.called == p.truth for p in rows]
    assert found.pooled["accuracy"] == pytest.approx(fmean(right))
    assert set(found.by_class) == set(classes)
    assert found.intervals["roc_auc"].low < found.pooled["roc_auc"] < 1
    assert "3 classes" in found.to_text()


def test_json_and_table_hold_the_same_numbers():
    found = evaluate_fits(fits(simulated(1.0), COMPANIONS, notes=("mind this",)), "a note")
    values = json.loads(found.to_json())
    assert values["pooled"]["accuracy"] == found.pooled["accuracy"]
    assert values["companions"]["colour"]["p"] == found.companions["colour"].p
    assert (values["note"], values["protocol"]) == ("a note", "case-disjoint, 2 folds")
    text = found.to_text()
    for expected in ("a note", "mind this", f"{found.pooled['roc_auc']:.3f}", "20 patients"):
        assert expected in text
    assert text.count("mind this") == 1


def test_leaks_and_weights_that_are_not_imagenets_are_said_aloud_before_any_number():
    quiet = evaluate_fits(fits(PREDICTIONS))
    assert "LEAK" not in quiet.to_text()
    assert "weights" not in quiet.to_text()
    assert "Positive label: malignant" in quiet.to_text()
    loud = evaluate_fits(fits(PREDICTIONS, leaks=True, weights="random(seed=0)")).to_text()
    assert loud.index("LEAKING SPLIT") < loud.index("accuracy")
    assert "random(seed=0), not ImageNet's" in loud


def test_the_headline_repeats_the_file_and_its_warnings(tmp_path):
    twin = {**COMPANIONS, "image_level": simulated(5.0)}
    found = evaluate_fits(fits(simulated(1.0), twin, leaks=True), "a note")
    (tmp_path / "m.json").write_text(found.to_json())
    text = headline(tmp_path / "m.json")
    for expected in ("a note", "LEAKING SPLIT", "80 test images", found.verdict, "it LEAKS"):
        assert expected in text
    row = next(line for line in text.splitlines() if line.startswith("ROC AUC"))
    assert f"{found.pooled['roc_auc']:.3f}" in row
    assert f"{found.intervals['roc_auc'].low:.2f} to" in row


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"note": ""}'])
def test_a_file_that_holds_no_metrics_is_refused(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(UsageError, match=r"m\.json: not a file of"):
        headline(tmp_path / "m.json")


def test_a_written_folder_gives_the_numbers_that_were_written(tmp_path):
    rows = simulated(1.0)
    read = write_fits(tmp_path / "fits", rows, COMPANIONS)
    assert evaluate_fits(read).pooled == pytest.approx(evaluate_fits(fits(rows)).pooled)

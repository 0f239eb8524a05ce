"""Two runs are compared on the same images, paired over patients, or not at all."""

import json

import pytest
from small_fits import simulated, write_fits

from pipeline.errors import UsageError
from pipeline.evaluation.compare import compare


@pytest.fixture
def runs(tmp_path):
    weak, strong = simulated(0.0, seed=1), simulated(3.0, seed=2)
    write_fits(tmp_path / "strong", strong, {"colour": weak})
    write_fits(tmp_path / "weak", weak[::-1])
    return tmp_path


def test_the_better_run_is_named_and_the_difference_has_an_interval(runs):
    found = compare(f"{runs}/strong", f"{runs}/weak", runs / "out.json")
    auc = found.measures["roc_auc"]
    assert auc.difference == pytest.approx(auc.a - auc.b)
    assert 0 < auc.interval.low < auc.difference < auc.interval.high
    assert auc.p < 0.05
    assert "A is better beyond doubt" in found.to_text()
    assert json.loads((runs / "out.json").read_text())["measures"]["roc_auc"]["p"] == auc.p


def test_exchanging_the_runs_exchanges_the_signs(runs):
    one = compare(f"{runs}/strong", f"{runs}/weak").measures
    two = compare(f"{runs}/weak", f"{runs}/strong").measures
    for name, found in one.items():
        assert two[name].difference == pytest.approx(-found.difference)
        assert two[name].interval == pytest.approx((-found.interval.high, -found.interval.low))
        assert two[name].p == pytest.approx(found.p)


def test_a_run_does_not_differ_from_itself(runs):
    found = compare(f"{runs}/weak", f"{runs}/weak")
    assert {one.difference for one in found.measures.values()} == {0}
    assert {one.p for one in found.measures.values()} == {1}
    assert "cannot tell" in found.verdict


def test_a_baseline_is_a_run_too(runs):
    beside = compare(f"{runs}/strong", f"{runs}/strong:colour").measures
    assert beside == compare(f"{runs}/strong", f"{runs}/weak").measures
    with pytest.raises(UsageError, match="no companion attention, the run has colour"):
        compare(f"{runs}/strong", f"{runs}/strong:attention")


def test_runs_on_other_images_are_refused_with_their_names(runs):
    write_fits(runs / "other", [p for p in simulated(0.0) if p.image_id != "c3-1"])
    with pytest.raises(UsageError, match=r"1 only in the first \(c3-1 in repeat 0\), 0 only"):
        compare(f"{runs}/strong", f"{runs}/other")


def test_runs_with_other_classes_or_labels_are_refused(runs):
    flipped = [p._replace(truth="malignant") if p.image_id == "c0-0" else p for p in simulated(0.0)]
    write_fits(runs / "other", flipped)
    with pytest.raises(UsageError, match="1 images have another class or case, such as c0-0"):
        compare(f"{runs}/strong", f"{runs}/other")
    write_fits(runs / "subtype", simulated(0.0), target="subtype")
    with pytest.raises(UsageError, match="different target"):
        compare(f"{runs}/strong", f"{runs}/subtype")


def test_a_leak_of_either_run_is_said(runs):
    write_fits(runs / "leaking", simulated(0.0), leaks=True)
    assert "LEAKING SPLIT" in compare(f"{runs}/strong", f"{runs}/leaking").to_text()

import numpy as np
import pytest

from cache.schema import ImageRow
from pipeline.audit import probe as module
from pipeline.audit.probe import probe
from pipeline.splits.make import make_splits


def fingerprinted(cases=8, images=10, known=True):
    """Images whose features tell their case, and nothing of their label."""
    rng = np.random.default_rng(0)
    rows, features = [], []
    for case in range(2 * cases):
        label = "malignant" if case % 2 else "benign"
        centre = rng.normal(size=64)
        for n in range(images):
            name = f"{case}-{n}"
            case_name = f"c{case}" if known else ""
            rows.append(ImageRow(name, name, label, "", f"s{case}", case_name, 0, 32, 32, "0" * 64))
            features.append(centre + 0.1 * rng.normal(size=64))
    return rows, np.array(features, np.float32)


def accuracies(found):
    return {claim.split: claim.accuracy for claim in found.claims}


def test_a_leaking_split_is_seen_to_claim_what_a_case_disjoint_one_does_not():
    rows, features = fingerprinted()
    found = probe(features, rows, make_splits(rows, group_by="image", seed=3))
    claims = accuracies(found)
    assert list(claims) == ["image-level split", "the given split", "case-disjoint split"]
    assert claims["image-level split"] > 0.95
    assert claims["the given split"] > 0.95
    assert claims["case-disjoint split"] < 0.75
    assert "differs from the case-disjoint split by +0." in found.lines()[-1]
    assert "pipeline evaluate" in found.lines()[-1]


def test_a_split_that_does_not_leak_claims_as_much_as_a_case_disjoint_one():
    rows, features = fingerprinted()
    claims = accuracies(probe(features, rows, make_splits(rows)))
    assert claims["the given split"] == claims["case-disjoint split"]


def test_only_the_first_repeat_is_fitted():
    rows, features = fingerprinted()
    splits = make_splits(rows, folds=3, repeats=2)
    assert [(claim.folds, claim.images) for claim in probe(features, rows, splits).claims] == [
        (3, 160)
    ] * 3


def test_without_cases_slides_are_kept_apart_and_without_both_it_says_so():
    rows, features = fingerprinted(known=False)
    splits = make_splits(rows, group_by="image")
    assert list(accuracies(probe(features, rows, splits)))[-1] == "slide-disjoint split"
    rows = [row._replace(slide="") for row in rows]
    found = probe(features, rows, splits)
    assert found.claims[-1].accuracy is None
    assert "images have no slide" in found.claims[-1].reason
    assert any("not fitted" in line for line in found.lines())


def test_a_split_that_trains_on_one_label_is_not_fitted():
    rows, features = fingerprinted()
    splits = make_splits(rows)
    labels = {row.image_id: row.label for row in rows}
    table = tuple({i: r for i, r in t.items() if labels[i] == "benign"} for t in splits.table)
    found = probe(features, rows, module.Splits("image", table, True, splits.repeats))
    assert accuracies(found)["the given split"] is None


@pytest.mark.parametrize("most", [40, 5000])
def test_a_bounded_number_of_images_is_learned_from(monkeypatch, most):
    monkeypatch.setattr(module, "MAX_TRAIN", most)
    rows, features = fingerprinted()
    assert accuracies(probe(features, rows, make_splits(rows)))["image-level split"] > 0.8

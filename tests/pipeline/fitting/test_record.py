"""A fit's folder is read whole and unchanged, or refused by name."""

import json
import shutil

import pytest
from small_fits import CLASSES, prediction, write_fits

from pipeline.errors import UsageError
from pipeline.fitting.predictions import file_sha256, read_predictions, write_predictions
from pipeline.fitting.record import COMPANIONS, read_fits


@pytest.fixture
def folder(tmp_path):
    rows = [prediction(k, f"c{k}{label}", label, 0.25) for k in range(3) for label in CLASSES]
    write_fits(tmp_path / "fits", rows, {"image_level": rows, "colour": rows})
    return tmp_path / "fits"


def change_record(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_all_folds_are_read_in_order_and_baselines_as_they_are_shown(folder):
    fits = read_fits(folder)
    assert [record.fold for record in fits.records] == [0, 1, 2]
    assert [p.fold for p in fits.predictions] == [0, 0, 1, 1, 2, 2]
    assert list(fits.companions) == ["colour", "image_level"]
    assert list(COMPANIONS)[-1] == "image_level"
    assert fits.companions["colour"] == fits.predictions
    assert fits.audit == {"summary": "no leak found"}


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_predictions_come_back_as_they_were(tmp_path, classes):
    values = (0.1,) if len(classes) == 2 else (0.1, 1 / 3, 1e-17)
    written = [
        prediction(0, case, classes[0], 0.5)._replace(
            called=classes[-1], logits=tuple(-v for v in values), probabilities=values
        )
        for case in ("plain", 'with "quotes", commas', "é")
    ]
    path = tmp_path / "p.csv"
    write_predictions(path, written, classes)
    assert read_predictions(path, classes, file_sha256(path)) == written


def test_missing_folds_are_named(folder):
    for fold in (0, 2):
        shutil.rmtree(folder / f"fold{fold}")
    with pytest.raises(UsageError, match=r"folds \[0, 2\] of 3 are missing: fit them"):
        read_fits(folder)


def test_a_folder_without_fits_is_refused_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(UsageError, match="fit-lstm --out"):
        read_fits(tmp_path)


@pytest.mark.parametrize("to", ["fold1 copy", "fold9", "foldx"])
def test_a_copied_folder_is_refused(folder, to):
    shutil.copytree(folder / "fold1", folder / to)
    with pytest.raises(UsageError, match=rf"{to}/fit.json: the record of fold 1.*move or remove"):
        read_fits(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("splits_sha256", "1" * 64), ("manifest_sha256", "1" * 64), ("fingerprint", "1" * 64)),
        *(("options", {"hidden": 3}), ("target", "subtype"), ("train_magnification", 40)),
        *(("labels", ["malignant", "benign"]), ("repeats", 2), ("audit_sha256", "1" * 64)),
        *(("protocol", "image-level"), ("leaks", True), ("weights", "other"), ("companions", {})),
    ],
)
def test_folds_of_different_studies_are_refused(folder, name, value):
    change_record(folder / "fold2/fit.json", **{name: value})
    with pytest.raises(UsageError, match=r"fold2: fitted from other data or with other options"):
        read_fits(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 2.0), ("threshold", 0.25), ("chosen", "hidden=4"), ("seconds", 9.0)],
)
def test_folds_may_differ_in_what_each_chose(folder, name, value):
    change_record(folder / "fold2/fit.json", **{name: value})
    assert getattr(read_fits(folder).records[2], name) == value


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("fold0/predictions.csv", "benign", "begnin", "begnin"),
        ("fold0/predictions.csv", ",0.", ",x0.", "not a prediction"),
        ("fold0/predictions.csv", ",0.", ",7.", "expected 0 to 1"),
        ("fold0/predictions.csv", ",-1.0,", ",nan,", "expected a finite number"),
        ("fold0/predictions.csv", "c0benign", "c1benign", "was changed after it was made"),
        ("fold1/colour.csv", "c1benign", "c0benign", "colour.csv: was changed"),
        ("fold1/image_level.csv", ",0.", ",0.1", "image_level.csv: was changed"),
        ("fold0/fit.json", "{", "[", "not the record"),
        ("fold0/fit.json", "labels", "label", "not the record"),
        ("audit.json", "no leak", "a leak", "audit.json: was changed"),
        ("audit.json", "{", "[", "audit.json: not an audit"),
    ],
)
def test_tampered_results_are_refused_by_name(folder, name, old, new, message):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message):
        read_fits(folder)


@pytest.mark.parametrize("name", ["audit.json", "fold0/predictions.csv", "fold2/colour.csv"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name):
        read_fits(folder)

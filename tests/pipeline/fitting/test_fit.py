"""Stage two: it learns, it repeats, no test label reaches a model, and it refuses what is wrong."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from small_caches import make_recipe
from small_studies import (
    case_signature,
    class_signal,
    noise,
    order_signal,
    rows_of,
    write_features,
    write_study,
)

from cache import CacheDamagedError, CacheFormatError, FeatureCache
from pipeline.errors import PipelineError, UsageError
from pipeline.fitting import fit as fit_module
from pipeline.fitting.fit import fit_lstm
from pipeline.fitting.model_file import load_model
from pipeline.fitting.options import FitOptions
from pipeline.fitting.predictions import file_sha256
from pipeline.fitting.record import check_models, read_fits
from pipeline.fitting.sequences import Sequences
from pipeline.fitting.study import choose_columns

QUICK = FitOptions(
    steps=20, checks=2, hidden=4, members=2, components=4, learning_rate=0.02, companions=False
)
ALL = dataclasses.replace(QUICK, companions=True)
BASELINES = {"mean_pool_logistic", "mean_pool_mlp", "attention", "permuted_lstm", "colour"}


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Fold 0 with all that is fitted beside it; not to be changed."""
    folder = tmp_path_factory.mktemp("fitted")
    write_study(folder, colour=1.0)
    # The other folds would not have every label in every part once this one's test labels change.
    lines = (folder / "splits.csv").read_text().splitlines()
    first = [line for line in lines[1:] if line.split(",")[1] == "0"]
    (folder / "splits.csv").write_text("\n".join([lines[0], *first]))
    fit(folder, options=ALL)
    return folder


def fit(folder, out="fits", options=QUICK, **more):
    return fit_lstm(folder / "f.h5", folder / "splits.csv", folder / out, options, **more)


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def record_of(folder):
    return json.loads((folder / "fit.json").read_text())


def accuracy(path):
    rows = [row for row in table(path) if row["role"] == "test"]
    return np.mean([row["called"] == row["truth"] for row in rows])


def roles_of(folder):
    return {row["image_id"]: row["role"] for row in table(folder / "fits/fold0/predictions.csv")}


def sequences_of(folder):
    with FeatureCache(folder / "f.h5") as cache:
        return Sequences.from_arrays(cache.load(), cache.offsets)


def write_changed(folder, fitted, change):
    """The study of `fitted` with all labels, subtypes or features of its test images changed."""
    roles, told = roles_of(fitted), rows_of()
    rows = [
        row if roles[row.image_id] != "test" or change == "features" else CHANGED[change](row)
        for row in told
    ]

    def changed(row):
        return roles[row.image_id] == "test" and change == "features"

    def features(rng, row, number, length):
        values = class_signal()(rng, row, number, length)
        return 7 - 2 * values if changed(row) else values

    def colour(row):
        return 5.0 if changed(row) else 1.0

    write_features(folder / "f.h5", features, rows, colour=colour, truth=told)
    (folder / "splits.csv").write_bytes((fitted / "splits.csv").read_bytes())


OTHER = {"benign": "malignant", "malignant": "benign"}
CHANGED = {
    "labels": lambda row: row._replace(label=OTHER[row.label]),
    "subtypes": lambda row: row._replace(subtype="another"),
}


@pytest.mark.parametrize("change", ["labels", "subtypes", "features"])
def test_nothing_of_the_test_images_reaches_a_model(fitted, tmp_path, change):
    """The image-level twin is not looked at: its test images are others."""
    write_changed(tmp_path, fitted, change)
    fit(tmp_path, options=ALL, fold=0)
    before, after = (folder / "fits/fold0" for folder in (fitted, tmp_path))
    for name in ("model.safetensors", "history.csv"):
        assert (before / name).read_bytes() == (after / name).read_bytes(), name
    assert locked_of(before) == locked_of(after)
    known = [
        [row for row in table(folder / "predictions.csv") if row["role"] != "test"]
        for folder in (before, after)
    ]
    assert known[0] == known[1]


def locked_of(folder):
    """Temperature and threshold of the LSTM and the baselines."""
    record = record_of(folder)
    models = {"lstm": record, **{name: record["companions"][name] for name in BASELINES}}
    return {name: (said["temperature"], said["threshold"]) for name, said in models.items()}


def test_test_labels_change_nothing_that_is_said_but_whether_it_is_true(fitted, tmp_path):
    write_changed(tmp_path, fitted, "labels")
    fit(tmp_path, options=ALL, fold=0)
    before, after = (folder / "fits/fold0" for folder in (fitted, tmp_path))
    for name in ("predictions", *BASELINES):
        said = [
            [[row[what] for what in SAID] for row in table(folder / f"{name}.csv")]
            for folder in (before, after)
        ]
        assert said[0] == said[1], name
    assert accuracy(before / "predictions.csv") > 0.9
    assert accuracy(after / "predictions.csv") < 0.1


SAID = ("image_id", "role", "logit", "probability", "called")


def test_equal_inputs_give_equal_bytes_whatever_the_cpus_and_threads(tmp_path, monkeypatch):
    write_study(tmp_path, colour=1.0, folds=2)
    for out, count in (("a", 1), ("b", 3)):
        monkeypatch.setattr(fit_module, "usable_cpus", lambda count=count: count)
        torch.set_num_threads(count)
        torch.manual_seed(count)
        fit(tmp_path, out, ALL)
        assert torch.get_num_threads() == count
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(names) == 1 + 2 * (4 + len(BASELINES) + 1)
    for name in names:
        first, second = (tmp_path / out / name for out in "ab")
        if name.name != "fit.json":
            assert first.read_bytes() == second.read_bytes(), name
        else:
            one, other = record_of(first.parent), record_of(second.parent)
            assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_one_fold_alone_is_the_fold_of_all(study):
    fit(study, "all")
    fit(study, "one", fold=1)
    for name in ("model.safetensors", "predictions.csv"):
        first, second = (study / out / "fold1" / name for out in ("all", "one"))
        assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_another_model(study):
    for out, seed in (("a", 0), ("b", 1)):
        fit(study, out, dataclasses.replace(QUICK, seed=seed), fold=0)
    first, second = (load_model(study / out / "fold0/model.safetensors") for out in "ab")
    assert not torch.equal(first.network.logit.weight, second.network.logit.weight)


def test_what_can_be_told_apart_is_and_noise_is_not(tmp_path):
    found = {}
    for name, features in (("signal", class_signal()), ("noise", noise)):
        write_study(tmp_path / name, features)
        fit(tmp_path / name)
        folds = (tmp_path / name / "fits").glob("fold*/predictions.csv")
        found[name] = np.mean([accuracy(path) for path in folds])
    assert found["signal"] > 0.95
    assert 0.3 < found["noise"] < 0.7, "the test part is known to the training"


def test_predictions_hold_every_image_with_its_role_and_truth(study):
    result = fit(study)
    assert result.protocol == "case-disjoint, 3 folds"
    rows = {row.image_id: row for row in rows_of()}
    tested = []
    for fold in range(3):
        found = table(study / f"fits/fold{fold}/predictions.csv")
        assert [row["image_id"] for row in found] == list(rows)
        for said in found:
            row = rows[said["image_id"]]
            assert said["truth"] == said["label"] == row.label
            assert (said["case"], said["subtype"]) == (row.case, row.subtype)
            assert (said["fold"], said["repeat"]) == (str(fold), "0")
            logit, probability = float(said["logit"]), float(said["probability"])
            temperature = record_of(study / f"fits/fold{fold}")["temperature"]
            assert probability == pytest.approx(1 / (1 + np.exp(-logit / temperature)), abs=1e-6)
            threshold = record_of(study / f"fits/fold{fold}")["threshold"]
            assert (said["called"] == "malignant") == (probability >= threshold)
        tested += [row["image_id"] for row in found if row["role"] == "test"]
        sides = [
            {row["case"] for row in found if row["role"] == role}
            for role in ("train", "val", "test")
        ]
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert sorted(tested) == sorted(rows)


def test_repeated_folds_are_numbered_through(tmp_path):
    write_study(tmp_path, folds=2, repeats=2)
    fit(tmp_path)
    fits = read_fits(tmp_path / "fits")
    assert [(record.fold, record.repeat, record.repeats) for record in fits.records] == [
        (0, 0, 2),
        (1, 0, 2),
        (2, 1, 2),
        (3, 1, 2),
    ]
    tested = [p.image_id for p in fits.predictions if p.role == "test"]
    assert sorted(tested) == sorted(2 * [row.image_id for row in rows_of()])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_model_file_reproduces_what_was_said(tmp_path, classes):
    labels = ("a", "b", "c")[:classes]
    write_study(tmp_path, class_signal(4.0), rows_of(labels=labels))
    fit(tmp_path, options=dataclasses.replace(QUICK, steps=40), fold=1)
    folder = tmp_path / "fits/fold1"
    model, record = load_model(folder / "model.safetensors"), record_of(folder)
    assert (model.classes, model.fold, model.target) == (labels, 1, "label")
    assert (model.temperature, model.threshold) == (record["temperature"], record["threshold"])
    assert (model.threshold is None) == (classes == 3)
    features = sequences_of(tmp_path)
    endings = [""] if classes == 2 else [f"_{label}" for label in labels]
    rows = table(folder / "predictions.csv")
    said = model.answer(features)
    for what, found in (
        ("logit", said.logits.mean(axis=0)),
        ("probability", said.probabilities),
    ):
        expected = [[float(row[what + ending]) for ending in endings] for row in rows]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for row in rows:
        if classes == 3:
            largest = max(labels, key=lambda label: float(row[f"probability_{label}"]))
            assert row["called"] == largest
    assert accuracy(folder / "predictions.csv") > 0.8


def test_companions_hold_the_test_images_of_the_fold_and_their_digests(fitted):
    folder = fitted / "fits/fold0"
    record, roles = record_of(folder), roles_of(fitted)
    tested = [image for image, role in roles.items() if role == "test"]
    assert record["companions"].keys() == BASELINES | {"image_level"}
    for name, said in record["companions"].items():
        rows = table(folder / f"{name}.csv")
        assert said["sha256"] == file_sha256(folder / f"{name}.csv")
        assert {row["role"] for row in rows} == {"test"}
        found = [row["image_id"] for row in rows]
        if name == "image_level":
            honest = {row["case"] for row in table(folder / "colour.csv")}
            assert len({row["case"] for row in rows}) > len(honest)
        else:
            assert found == tested
            assert accuracy(folder / f"{name}.csv") > 0.8


def test_the_audit_is_written_and_its_digest_recorded(fitted):
    audit = fitted / "fits/audit.json"
    assert isinstance(json.loads(audit.read_text()), dict)
    assert record_of(fitted / "fits/fold0")["audit_sha256"] == file_sha256(audit)


def test_a_cache_without_statistics_has_no_colour_companion(study):
    fit(study, options=ALL, fold=0)
    names = record_of(study / "fits/fold0")["companions"].keys()
    assert names == BASELINES - {"colour"} | {"image_level"}
    assert not (study / "fits/fold0/colour.csv").exists()


def test_image_level_splits_have_no_twin_of_their_own(tmp_path):
    write_study(tmp_path, group_by="image")
    assert "LEAKS" in fit(tmp_path, options=ALL, fold=0).protocol
    assert "image_level" not in record_of(tmp_path / "fits/fold0")["companions"]


def test_tables_of_companions_that_are_no_longer_fitted_are_removed(study):
    fit(study, options=ALL, fold=0)
    fit(study, fold=0)
    assert {path.name for path in (study / "fits/fold0").iterdir()} == {
        "fit.json",
        "history.csv",
        "model.safetensors",
        "predictions.csv",
    }


def test_a_signal_in_the_order_of_patches_is_the_lstms_alone(tmp_path):
    write_study(tmp_path, order_signal, length=6)
    options = dataclasses.replace(ALL, steps=60, compression="none", hidden=8)
    fit(tmp_path, options=options, fold=0)
    folder = tmp_path / "fits/fold0"
    assert accuracy(folder / "predictions.csv") > 0.95
    for name in ("permuted_lstm", "attention", "mean_pool_mlp", "mean_pool_logistic"):
        assert accuracy(folder / f"{name}.csv") < 0.8, name


def test_a_signal_in_the_colour_is_found_by_colour_alone(tmp_path):
    write_study(tmp_path, noise, colour=2.0)
    fit(tmp_path, options=ALL, fold=0)
    folder = tmp_path / "fits/fold0"
    assert accuracy(folder / "colour.csv") > 0.95
    for name in ("predictions", "attention", "mean_pool_mlp", "permuted_lstm"):
        assert accuracy(folder / f"{name}.csv") < 0.8, name


def test_the_image_level_twin_claims_what_is_not_so(tmp_path):
    """Each case looks like itself alone: only who has seen it can tell its class."""
    write_study(tmp_path, case_signature, rows_of(108))
    options = dataclasses.replace(ALL, steps=80, components=8, compression="none", hidden=8)
    fit(tmp_path, options=options)
    folders = [tmp_path / f"fits/fold{k}" for k in range(3)]
    honest = np.mean([accuracy(folder / "predictions.csv") for folder in folders])
    tested = [row["image_id"] for f in folders for row in table(f / "image_level.csv")]
    assert sorted(tested) == sorted(row.image_id for row in rows_of(108))
    leaking = np.mean([accuracy(folder / "image_level.csv") for folder in folders])
    assert leaking > 0.95
    assert honest < 0.7


def test_subtypes_can_be_told_apart_and_an_untrained_class_is_noted(tmp_path):
    rows = [
        row._replace(subtype="rare") if row.case == "c0" else row._replace(subtype=row.subtype[:5])
        for row in rows_of()
    ]
    write_study(tmp_path, class_signal(4.0, "subtype"), rows)
    fit(tmp_path, options=dataclasses.replace(ALL, target="subtype"))
    fits = read_fits(tmp_path / "fits")
    assert fits.records[0].labels == ("kind0", "kind1", "kind2", "rare")
    assert fits.records[0].threshold is None
    testing = {p.fold for p in fits.predictions if p.role == "test" and p.subtype == "rare"}
    for record in fits.records:
        noted = any("no training image of class rare" in note for note in record.notes)
        assert noted == (record.fold in testing)
    for said in [fits.predictions, *fits.companions.values()]:
        honest = [p for p in said if p.role == "test" and p.subtype != "rare"]
        assert all(p.truth == p.subtype for p in said)
        assert np.mean([p.called == p.truth for p in honest]) > 0.6


def test_three_labels_can_be_told_apart(tmp_path):
    write_study(tmp_path, class_signal(4.0), rows_of(labels=("a", "b", "c")))
    fit(tmp_path, options=ALL, fold=0)
    folder = tmp_path / "fits/fold0"
    for name in ("predictions", "attention", "mean_pool_logistic", "image_level"):
        assert accuracy(folder / f"{name}.csv") > 0.7, name
    with pytest.raises(UsageError, match="3 classes, expected two: leave it out"):
        fit(tmp_path, "other", dataclasses.replace(QUICK, positive="a"))


def test_one_label_is_refused(study):
    rows = [row._replace(label="benign") for row in rows_of()]
    write_features(study / "f.h5", noise, rows)
    with pytest.raises(UsageError):
        fit(study)


def test_images_without_a_subtype_are_refused_if_it_is_the_target(study):
    rows = [row._replace(subtype="") if row.case == "c0" else row for row in rows_of()]
    write_features(study / "f.h5", noise, rows)
    with pytest.raises(UsageError, match="4 of 72 images have no subtype: add it"):
        fit(study, options=dataclasses.replace(QUICK, target="subtype"))


LAYERED = {"layer": "features.3,features.8", "pooling": "mean+sd", "feature_dim": 384}


@pytest.mark.parametrize(
    ("layers", "pooled", "expected"),
    [
        ((), None, [*range(64, 192), *range(256, 384)]),  # conv2_2, the usual one
        (("all",), None, range(384)),
        (("conv1_2",), None, [*range(64), *range(192, 256)]),
        (("conv1_2", "conv2_2"), "sd", range(192, 384)),
        (("conv2_2",), "mean", range(64, 192)),
        (("all",), "mean", range(192)),
    ],
)
def test_layers_and_statistics_choose_columns(layers, pooled, expected):
    options = dataclasses.replace(QUICK, layers=layers, pooled=pooled)
    assert choose_columns(make_recipe(**LAYERED), options).tolist() == list(expected)


def test_layers_that_the_cache_does_not_hold_are_refused_with_those_it_does():
    for recipe, choice, held in (
        (LAYERED, {"layers": ("conv2_2", "pool5")}, r"of pool5, but conv1_2 mean, conv2_2 mean"),
        ({**LAYERED, "pooling": "mean", "feature_dim": 192}, {"pooled": "sd"}, "of sd, but conv1"),
        ({"encoder": "other", "layer": "top"}, {"layers": ("conv2_2",)}, "of conv2_2, but top"),
    ):
        with pytest.raises(UsageError, match=held):
            choose_columns(make_recipe(**recipe), dataclasses.replace(QUICK, **choice))


def test_a_wrong_choice_is_refused_before_an_earlier_fit_is_removed(study):
    fit(study)
    for choice in (
        {"layers": ("pool5",)},
        {"train_magnification": 7},
        {"tries": ("hidden=0",)},
        {"tries": ("speed=3",)},
        {"tries": ("",)},
        {"hidden": 8192, "projection": 8192, "lstm_layers": 4},
    ):
        with pytest.raises(UsageError):
            fit(study, options=dataclasses.replace(QUICK, **choice))
    assert len(read_fits(study / "fits").records) == 3


def test_the_better_of_the_tries_is_taken_and_recorded_if_beyond_doubt(tmp_path):
    write_study(tmp_path, order_signal, length=6)
    options = dataclasses.replace(QUICK, steps=60, compression="none", learning_rate=1e-6)
    fit(tmp_path, "better", dataclasses.replace(options, tries=("learning_rate=0.02",)), fold=0)
    fit(tmp_path, "worse", dataclasses.replace(options, tries=("learning_rate=1e-7",)), fold=0)
    assert record_of(tmp_path / "better/fold0")["chosen"] == "learning_rate=0.02"
    assert record_of(tmp_path / "worse/fold0")["chosen"] == ""


def test_other_magnifications_are_tested_but_never_trained_on(study):
    """The features of the other magnification change, and the model does not."""
    rows, options = rows_of(), dataclasses.replace(QUICK, train_magnification=40)

    def changed(rng, row, number, length):
        values = class_signal()(rng, row, number, length)
        return values if row.magnification == 40 else -values

    fit(study, "a", options, fold=0)
    write_features(study / "f.h5", changed, rows)
    fit(study, "b", options, fold=0)
    models = [(study / out / "fold0/model.safetensors").read_bytes() for out in "ab"]
    assert models[0] == models[1]
    assert len(table(study / "a/fold0/predictions.csv")) == len(rows)
    assert record_of(study / "a/fold0")["train_magnification"] == 40


def test_the_positive_label_can_be_chosen(study):
    fit(study, "a", fold=0)
    fit(study, "b", dataclasses.replace(QUICK, positive="benign"), fold=0)
    assert load_model(study / "a/fold0/model.safetensors").classes == ("benign", "malignant")
    assert load_model(study / "b/fold0/model.safetensors").classes == ("malignant", "benign")
    with pytest.raises(UsageError, match=r"'cancer'.*benign and malignant"):
        fit(study, "c", dataclasses.replace(QUICK, positive="cancer"))


def test_splits_of_other_images_are_refused_with_both_lists(study):
    text = (study / "splits.csv").read_text()
    (study / "splits.csv").write_text(text.replace("image007", "stranger"))
    with pytest.raises(UsageError, match="image007") as raised:
        fit(study)
    assert "stranger" in str(raised.value)
    assert not (study / "fits").exists()


def test_images_that_failed_with_permission_are_left_out(tmp_path, caplog):
    write_study(tmp_path, failures=("image003",))
    fit(tmp_path, fold=0)
    assert "1 images have no features" in caplog.text
    assert "image003" not in roles_of(tmp_path)


def test_a_damaged_cache_is_refused_before_training(study):
    data = bytearray((study / "f.h5").read_bytes())
    with FeatureCache(study / "f.h5") as cache:
        at = bytes(data).find(cache.sequence(5).tobytes())
    data[at] ^= 1
    (study / "f.h5").write_bytes(data)
    with pytest.raises(CacheDamagedError):
        fit(study)
    (study / "f.h5").write_text("not a cache")
    with pytest.raises(CacheFormatError):
        fit(study)
    assert not (study / "fits").exists()


def test_a_fold_that_does_not_exist_is_refused(study):
    with pytest.raises(UsageError, match="folds 0 to 2"):
        fit(study, fold=3)


def test_a_folder_that_cannot_be_made_is_an_error(study):
    (study / "file").write_text("")
    with pytest.raises(PipelineError, match=r"file/fits: cannot be made"):
        fit(study, "file/fits")


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_no_record(study):
    options = dataclasses.replace(QUICK, learning_rate=10.0, weight_decay=1e30)
    with pytest.raises(PipelineError, match="the loss is not finite"):
        fit(study, options=options)
    assert not list((study / "fits").glob("fold*/fit.json"))


def test_fewer_folds_than_before_leave_no_old_ones(study):
    fit(study)
    (study / "fits/fold7").mkdir()
    (study / "fits/fold7/fit.json").write_text("{}")
    (study / "fits/fold8").mkdir()
    (study / "fits/fold8/mine.txt").write_text("kept")
    fit(study)
    found = sorted(path.name for path in (study / "fits").iterdir())
    assert found == ["audit.json", "fold0", "fold1", "fold2", "fold8"]


def test_folds_fitted_in_different_ways_are_not_read_together(study):
    fit(study)
    fit(study, options=dataclasses.replace(QUICK, hidden=5), fold=2)
    with pytest.raises(UsageError, match="other options"):
        read_fits(study / "fits")


def test_the_model_of_other_features_or_of_another_fit_is_refused(study):
    fit(study)
    check_models(study / "fits")
    first, second = (study / f"fits/fold{k}/model.safetensors" for k in (0, 1))
    own = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(UsageError, match=r"fold0/model.*not the model that was fitted here"):
        check_models(study / "fits")
    fingerprint = load_model(second).recipe.fingerprint.encode()
    first.write_bytes(own.replace(fingerprint, b"0" * 64))
    with pytest.raises(UsageError, match=r"of the recipe 0{12}…, but .* are of [0-9a-f]{12}…"):
        check_models(study / "fits")
    first.unlink()
    with pytest.raises(UsageError, match=r"fold0/model\.safetensors"):
        check_models(study / "fits")


def test_a_model_file_that_is_none_is_refused(fitted, tmp_path):
    data = (fitted / "fits/fold0/model.safetensors").read_bytes()
    old = data.replace(b"lstm-patch-classifier 4", b"lstm-patch-classifier 3")
    assert old != data
    for content in (b"", b"text", data[:-10], old):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UsageError, match="bad"):
            load_model(tmp_path / "bad")

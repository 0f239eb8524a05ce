"""Stage two: it learns, it repeats, it keeps roles apart, and it refuses what does not fit."""

import csv
import json

import numpy as np
import pytest
import torch
from small_caches import make_recipe, make_row

from cache import CacheDamagedError, CacheFormatError, Failure, FeatureCache, write_cache
from pipeline.errors import UsageError
from pipeline.evaluation.evaluate import evaluate
from pipeline.fitting.fit import FitOptions, fit_lstm
from pipeline.fitting.model_file import load_model
from pipeline.fitting.predictions import check_models, read_fits
from pipeline.fitting.training import TrainOptions, predict_logits
from pipeline.splits.make import make_splits
from pipeline.splits.table import write_splits

DIM = 16
QUICK = FitOptions(TrainOptions(epochs=8, min_epochs=2, learning_rate=1e-2), 8, 8)


def write_study(folder, signal=2.0, seed=0, failures=(), dim=DIM, cases=20, images=80):
    """A cache whose malignant images differ by `signal` in every feature, and its splits."""
    rng = np.random.default_rng(seed)
    rows = []
    with write_cache(folder / "f.h5", make_recipe(feature_dim=dim), {}) as writer:
        for i in range(images):
            case = i % cases
            label = "malignant" if case % 2 else "benign"
            row = make_row(f"image{i:03}", label=label, slide=f"s{case}", case=f"c{case}")
            length = 3 + i % 3
            features = rng.normal(signal * (case % 2), 1, (length, dim)).astype(np.float32)
            if row.image_id in failures:
                writer.fail(Failure(row.image_id, row.path, "empty"))
            else:
                writer.append(row, features, np.zeros((length, 2), np.int32))
            rows.append(row)
    write_splits(folder / "splits.csv", make_splits(rows, folds=3))
    return rows


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path)
    return tmp_path


def fit(folder, out="fits", options=QUICK, **more):
    return fit_lstm(folder / "f.h5", folder / "splits.csv", folder / out, options, **more)


def test_what_can_be_told_apart_is_and_noise_is_not(tmp_path):
    aucs = {}
    for name, signal in (("signal", 2.0), ("noise", 0.0)):
        folder = tmp_path / name
        write_study(folder, signal)
        fit(folder)
        aucs[name] = evaluate(folder / "fits", folder / "m.json").pooled.roc_auc
    assert aucs["signal"] > 0.95
    assert 0.25 < aucs["noise"] < 0.75, "the test part is known to the training"


def test_equal_inputs_give_equal_bytes_whatever_the_threads(study):
    threads = torch.get_num_threads()
    try:
        for out, count in (("a", 1), ("b", 2)):
            torch.set_num_threads(count)
            torch.manual_seed(count)
            fit(study, out)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for fold in range(3):
        for name in ("model.safetensors", "predictions.csv", "history.csv"):
            paths = [study / out / f"fold{fold}" / name for out in "ab"]
            assert paths[0].read_bytes() == paths[1].read_bytes(), name


def test_another_seed_gives_another_model(study):
    fit(study, "a", fold=0)
    other = FitOptions(TrainOptions(epochs=8, min_epochs=2, learning_rate=1e-2, seed=1), 8, 8)
    fit(study, "b", other, fold=0)
    first, second = (load_model(study / out / "fold0/model.safetensors") for out in "ab")
    assert not torch.equal(first.network.projection.weight, second.network.projection.weight)


def test_test_labels_change_no_model(study):
    """The labels of the test part are flipped; models and probabilities stay as they were."""
    lines = (study / "splits.csv").read_text().splitlines()
    first = [line for line in lines[1:] if line.split(",")[1] == "0"]
    (study / "splits.csv").write_text("\n".join([lines[0], *first]))
    fit(study, "a", fold=0)
    roles = {row["image_id"]: row["role"] for row in predictions(study / "a/fold0")}
    with FeatureCache(study / "f.h5") as cache:
        rows, recipe = cache.images.rows(), cache.recipe
        sequences = [cache.sequence(i) for i in range(len(rows))]
    with write_cache(study / "f.h5", recipe, {}) as writer:
        for row, sequence in zip(rows, sequences, strict=True):
            other = "benign" if row.label == "malignant" else "malignant"
            label = other if roles[row.image_id] == "test" else row.label
            coords = np.zeros((len(sequence), 2), np.int32)
            writer.append(row._replace(label=label), sequence, coords)
    fit(study, "b", fold=0)
    models = [load_model(study / out / "fold0/model.safetensors").network for out in "ab"]
    for first, second in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(first, second)


def predictions(folder):
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_predictions_hold_every_image_with_its_role(study):
    result = fit(study)
    assert result.protocol == "case-disjoint, 3 folds"
    tested = []
    for fold in range(3):
        rows = predictions(study / f"fits/fold{fold}")
        assert len(rows) == 80
        assert {row["fold"] for row in rows} == {str(fold)}
        tested += [row["image_id"] for row in rows if row["role"] == "test"]
        cases = {
            role: {r["case"] for r in rows if r["role"] == role}
            for role in ("train", "val", "test")
        }
        assert not cases["train"] & cases["test"]
        assert not cases["train"] & cases["val"]
        assert not cases["val"] & cases["test"]
    assert sorted(tested) == sorted(f"image{i:03}" for i in range(80))


def test_the_model_file_reproduces_the_predictions(study):
    fit(study, fold=1)
    model = load_model(study / "fits/fold1/model.safetensors")
    assert model.labels == ("benign", "malignant")
    assert model.fold == 1
    from pipeline.fitting.sequences import Sequences

    with FeatureCache(study / "f.h5") as cache:
        assert model.recipe == cache.recipe
        sequences = Sequences.from_arrays(cache.load(), cache.offsets)
    logits = predict_logits(model.network, sequences, torch.arange(80))
    expected = [float(row["probability"]) for row in predictions(study / "fits/fold1")]
    np.testing.assert_allclose(torch.sigmoid(logits.double()), expected, rtol=0, atol=1e-6)


def test_the_positive_label_can_be_chosen(study):
    fit(study, "a", fold=0)
    fit(study, "b", FitOptions(QUICK.train, 8, 8, positive="benign"), fold=0)
    assert load_model(study / "b/fold0/model.safetensors").labels == ("malignant", "benign")
    with pytest.raises(UsageError, match=r"'cancer'.*benign and malignant"):
        fit(study, "c", FitOptions(positive="cancer"))


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
    assert "image003" not in {row["image_id"] for row in predictions(tmp_path / "fits/fold0")}


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


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c"]])
def test_one_label_or_three_are_refused(tmp_path, labels):
    with write_cache(tmp_path / "f.h5", make_recipe(), {}) as writer:
        for i in range(30):
            label = labels[i % len(labels)]
            row = make_row(f"image{i}", label=label, slide=f"s{i}", case=f"c{i}")
            writer.append(row, np.zeros((1, 4), np.float32), np.zeros((1, 2), np.int32))
    lines = [
        f"image{i},{k},{r},case"
        for k in range(3)
        for i, r in enumerate(["train", "val", "test"] * 10)
    ]
    (tmp_path / "splits.csv").write_text("\n".join(["image_id,fold,role,group_by", *lines]))
    with pytest.raises(UsageError):
        fit(tmp_path)


def test_a_fold_that_does_not_exist_is_refused(study):
    with pytest.raises(UsageError, match="folds 0 to 2"):
        fit(study, fold=3)


def test_fewer_folds_than_before_leave_no_old_ones(study):
    fit(study)
    (study / "fits/fold7").mkdir()
    (study / "fits/fold7/fit.json").write_text("{}")
    (study / "fits/fold8").mkdir()
    (study / "fits/fold8/mine.txt").write_text("kept")
    fit(study)
    assert sorted(p.name for p in (study / "fits").iterdir()) == [
        "fold0",
        "fold1",
        "fold2",
        "fold8",
    ]


def test_folds_fitted_in_different_ways_are_not_evaluated_together(study):
    fit(study)
    fit(study, options=FitOptions(QUICK.train, 8, 4), fold=2)
    with pytest.raises(UsageError, match="other options"):
        read_fits(study / "fits")


def test_missing_folds_are_named(study):
    fit(study, fold=1)
    with pytest.raises(UsageError, match=r"\[0, 2\] of 3 are missing"):
        read_fits(study / "fits")
    with pytest.raises(UsageError, match="fit-lstm"):
        read_fits(study / "nothing")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("predictions.csv", "benign", "begnin", "begnin"),
        ("predictions.csv", ",0.", ",x0.", "not a prediction"),
        ("predictions.csv", ",0.", ",7.", "expected 0 to 1"),
        ("fit.json", "{", "[", "not the record"),
        ("fit.json", "labels", "label", "not the record"),
    ],
)
def test_tampered_results_are_refused_by_name(study, name, old, new, message):
    fit(study)
    path = study / "fits/fold0" / name
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UsageError, match=message):
        read_fits(study / "fits")


def test_the_model_of_other_features_or_of_another_fit_is_refused(study):
    fit(study)
    check_models(study / "fits")
    first, second = (study / f"fits/fold{k}/model.safetensors" for k in (0, 1))
    own = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(UsageError, match=r"fold0/model.*not the model that was fitted here"):
        check_models(study / "fits")
    fingerprint = make_recipe(feature_dim=DIM).fingerprint.encode()
    first.write_bytes(own.replace(fingerprint, b"0" * 64))
    with pytest.raises(UsageError, match=r"of the recipe 0{12}…, but .* are of [0-9a-f]{12}…"):
        check_models(study / "fits")
    first.unlink()
    with pytest.raises(UsageError, match=r"fold0/model\.safetensors"):
        check_models(study / "fits")


def test_a_model_file_that_is_none_is_refused(study):
    fit(study, fold=0)
    path = study / "fits/fold0/model.safetensors"
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"]["fingerprint"] == make_recipe(feature_dim=DIM).fingerprint
    for content in (b"", b"text", data[:-10], data.replace(b"lstm-patch", b"lstm-petch")):
        (study / "bad").write_bytes(content)
        with pytest.raises(UsageError, match="bad"):
            load_model(study / "bad")


def test_the_best_epoch_is_looked_for_from_the_least_one_on(study):
    train = TrainOptions(epochs=12, min_epochs=5, patience=3, learning_rate=0.05)
    history = fit(study, options=FitOptions(train, 8, 8), fold=0).histories[0]
    assert [epoch.epoch for epoch in history] == list(range(1, len(history) + 1))
    best = [epoch.epoch for epoch in history if epoch.best]
    assert min(best) == 5
    later = {epoch.epoch: epoch.val_loss for epoch in history if epoch.epoch >= 5}
    assert max(best) == min(later, key=later.get)
    assert len(history) == 12 or len(history) - max(best) == 3
    with pytest.raises(UsageError, match="min_epochs"):
        TrainOptions(epochs=3, min_epochs=4)

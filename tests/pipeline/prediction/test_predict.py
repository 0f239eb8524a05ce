"""`pipeline predict`: the same features and probabilities as the two stages would give."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from small_runs import PATCH, make_run, tissue

from pipeline.cli import main
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.recipe import PatchOptions
from pipeline.fitting.model_file import load_model
from pipeline.prediction.predict import PredictOptions, predict
from pipeline.prediction.reader import Reader
from pipeline.weights.weights_file import (
    load_weights,
    publish_weights,
    random_weights,
)


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def options(run, **changes):
    return PredictOptions(weights=run.weights, device="cpu", threads=1, **changes)


def test_on_test_images_it_reproduces_what_the_fit_said(small_run, tmp_path):
    for fold in range(3):
        said = [
            row
            for row in table(small_run.fits / f"fold{fold}/predictions.csv")
            if row["role"] == "test"
        ]
        images = [small_run.folder / f"images/{row['image_id']}.png" for row in said]
        out = tmp_path / f"{fold}.csv"
        predict([small_run.model(fold)], images, out, options(small_run))
        found = table(out)
        assert len(found) == len(said) > 0
        for mine, theirs in zip(found, said, strict=True):
            probability = float(mine["probability_malignant"])
            assert probability == pytest.approx(float(theirs["probability"]), abs=1e-6)
            assert mine["called"] == theirs["called"]
            assert mine["fitted"] == "0"


def by_hand(run, image):
    """Decode, cut, encode with torch, pool, whiten and classify, without the stages' code."""
    from torch.nn import functional

    weights = load_weights(run.weights).arrays
    pixels = np.asarray(Image.open(image).convert("RGB"))
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    patches = [
        pixels[y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
        for y in range(rows)
        for x in range(columns)
    ]
    x = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float()
    x = x - torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    for number in (0, 2, "pool", 5, 7):  # up to conv2_2
        if number == "pool":
            x = functional.max_pool2d(x, 2)
            continue
        kernel, bias = (
            torch.from_numpy(weights[f"features.{number}.{part}"]) for part in ("weight", "bias")
        )
        x = functional.relu(functional.conv2d(x, kernel, bias, padding=1))
    flat = x.flatten(2)
    features = torch.cat([flat.mean(2), flat.std(2, correction=0)], 1).half()
    total = 0.0
    for fold in range(3):
        model = load_model(run.model(fold))
        inputs = model.whitening.apply(features)
        logits = model.network(inputs.expand(2, 1, -1, -1), None).mean().detach()
        total += float(torch.sigmoid(logits / model.temperature))
    return total / 3


def test_outside_of_the_data_set_it_equals_extraction_and_forward_pass_by_hand(small_run, tmp_path):
    for seed in (100, 101, 102):
        tissue(seed, "malignant", (130, 101)).save(tmp_path / f"{seed}.png")
    images = sorted(tmp_path.glob("*.png"))
    # The last bits are those of the engine: by hand, it is torch's.
    predict(
        [*map(small_run.model, range(3))],
        images,
        tmp_path / "p.csv",
        options(small_run, engine="torch"),
    )
    for row, image in zip(table(tmp_path / "p.csv"), images, strict=True):
        found = float(row["probability_malignant"])
        assert found == pytest.approx(by_hand(small_run, image), abs=1e-6)


def test_an_image_that_models_were_fitted_to_is_told_and_so_is_an_unlike_one(small_run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    images = [small_run.folder / "images/image00.png", tmp_path / "noise.png"]
    predict([*map(small_run.model, range(3))], images, tmp_path / "p.csv", options(small_run))
    known, unlike = table(tmp_path / "p.csv")
    assert known["fitted"] == "2"  # the third fold tests it
    assert "2 of the models were fitted to this image" in known["warning"]
    assert float(unlike["distance"]) > 1
    assert "unlike the training images" in unlike["warning"]


def test_the_verb_takes_models_and_then_files_folders_and_tables(small_run, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for number in range(3):
        shutil.copy(small_run.folder / f"images/image{number:02}.png", folder)
    (tmp_path / "list.csv").write_text("path,image_id\nnew/image02.png,third\n")
    words = [small_run.folder, folder, folder / "image01.png", tmp_path / "list.csv"]
    words += ["--out", tmp_path / "p.csv", "--weights", small_run.weights, "--threads", 1]
    done = CliRunner().invoke(main, ["predict", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert "5 images by 3 models" in done.output
    assert "not for diagnosis" in done.output
    names = [row["image"] for row in table(tmp_path / "p.csv")]
    assert names == [*(str(folder / f"image{n:02}.png") for n in (0, 1, 2)), str(words[2]), "third"]


def test_json_gives_the_rows_of_the_table(small_run, tmp_path):
    words = [small_run.model(0), small_run.folder / "images/image03.png", "--json"]
    words += ["--out", tmp_path / "p.csv", "--weights", small_run.weights]
    done = CliRunner().invoke(main, ["predict", *map(str, words)])
    (row,) = json.loads(done.stdout)["predictions"]
    (line,) = table(tmp_path / "p.csv")
    assert {key: str(value) for key, value in row.items()} == line


def test_a_bad_image_costs_itself_only_and_is_listed(small_run, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    good = small_run.folder / "images/image00.png"
    with pytest.raises(
        PipelineError, match=r"1 of 2 images could not be read.*\n.*bad\.png: not a"
    ):
        predict([small_run.model(0)], [bad, good], tmp_path / "p.csv", options(small_run))
    assert [row["image"] for row in table(tmp_path / "p.csv")] == [str(good)]
    (failure,) = table(tmp_path / "p.failures.csv")
    assert failure["path"] == str(bad)
    result = predict(
        *([small_run.model(0)], [bad, good], tmp_path / "p.csv"),
        options(small_run, allow_failures=1),
    )
    assert len(result.failures) == 1
    predict([small_run.model(0)], [good], tmp_path / "p.csv", options(small_run))
    assert not (tmp_path / "p.failures.csv").exists()


def test_an_image_that_changed_since_its_table_was_made_is_refused(small_run, tmp_path):
    shutil.copy(small_run.folder / "images/image00.png", tmp_path)
    (tmp_path / "m.csv").write_text(f"path,sha256\nimage00.png,{'0' * 64}\n")
    with pytest.raises(PipelineError, match="content changed"):
        predict([small_run.model(0)], [tmp_path / "m.csv"], tmp_path / "p.csv", options(small_run))


def test_other_weights_than_the_models_are_refused(small_run, tmp_path):
    other = tmp_path / "other.safetensors"
    publish_weights(random_weights(1), other)
    image = small_run.folder / "images/image00.png"
    with pytest.raises(UsageError, match=r"need other features.*weights.*seed=0.*seed=1"):
        predict([small_run.model(0)], [image], tmp_path / "p.csv", PredictOptions(weights=other))
    assert not (tmp_path / "p.csv").exists()


def test_random_weights_are_drawn_again_and_imagenet_ones_asked_for(
    small_run, tmp_path, monkeypatch
):
    image = small_run.folder / "images/image00.png"
    predict([small_run.model(0)], [image], tmp_path / "p.csv", PredictOptions(device="cpu"))
    from pipeline.prediction.weights import weights_for

    monkeypatch.setattr("pipeline.weights.sources.cached_file", lambda: tmp_path / "none")
    recipe = load_model(small_run.model(0)).recipe
    imagenet = type(recipe)(**{**vars(recipe), "weights": "imagenet"})
    with pytest.raises(UsageError, match="not at hand: give --weights"):
        weights_for(imagenet, None)


def test_features_that_were_imported_cannot_be_made_again(small_run):
    recipe = load_model(small_run.model(0)).recipe
    foreign = dataclasses.replace(recipe, encoder="imported:trident:uni_v1")
    with pytest.raises(UsageError, match="imported, and cannot be made here from images"):
        Reader.of(foreign, random_weights(0))


def test_pictures_of_an_earlier_run_are_not_predicted(small_run, tmp_path):
    shutil.copy(small_run.folder / "images/image00.png", tmp_path)
    for _ in range(2):
        predict(
            *([small_run.model(0)], [tmp_path], tmp_path / "p.csv"),
            options(small_run, overlay=tmp_path / "overlays"),
        )
        assert len(table(tmp_path / "p.csv")) == 1


def test_models_of_different_studies_are_refused_together(small_run, weights_file, tmp_path):
    patches = PatchOptions(patch_size=PATCH, stride=16, layers=("conv2_2",))
    other = make_run(tmp_path / "other", weights_file, patches=patches, companions=False)
    image = small_run.folder / "images/image00.png"
    with pytest.raises(UsageError, match=r"does not belong to .*: stride: 32, 16"):
        predict(
            [small_run.model(0), other.model(0)], [image], tmp_path / "p.csv", options(small_run)
        )


def test_three_classes_give_a_probability_each_and_no_threshold(weights_file, tmp_path):
    run = make_run(tmp_path / "run", weights_file, labels=("a", "b", "c"), companions=False)
    images = [run.folder / f"images/image{n:02}.png" for n in range(3)]
    out, overlays = tmp_path / "p.csv", tmp_path / "overlays"
    predict([*map(run.model, range(3))], images, out, options(run, overlay=overlays))
    for row in table(out):
        probabilities = [float(row[f"probability_{name}"]) for name in "abc"]
        assert sum(probabilities) == pytest.approx(1)
        assert row["called"] == "abc"[int(np.argmax(probabilities))]
        assert row["threshold"] == ""
    assert len(list(overlays.glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{image}"], "no model among"),
        (["{model}"], "no images: name them after the models"),
        (["{model}", "{folder}/nothing.png"], "does not exist"),
        (["{model}", "{fits}/fold0/../../splits.csv"], "no column path"),
        (["{model}", "{empty}"], "no images in this folder"),
        (["{folder}/none.safetensors", "{image}"], "none.safetensors: cannot be read"),
    ],
)
def test_what_is_missing_is_named(small_run, tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    places = {
        "image": small_run.folder / "images/image00.png",
        "model": small_run.model(0),
        "fits": small_run.fits,
        "folder": tmp_path,
        "empty": tmp_path / "empty",
    }
    filled = [word.format(**places) for word in words]
    done = CliRunner().invoke(main, ["predict", *filled, "--out", str(tmp_path / "p.csv")])
    assert done.exit_code == 2, done.output
    assert message in done.output


def test_an_output_that_is_an_image_is_refused(small_run, tmp_path):
    image = tmp_path / "a.png"
    tissue(0, "benign").save(image)
    before = image.read_bytes()
    words = ["predict", small_run.model(0), tmp_path, "--weights", small_run.weights]
    done = CliRunner().invoke(main, [*map(str, words), "--out", str(image)])
    assert done.exit_code == 2
    assert image.read_bytes() == before


def test_a_model_that_was_changed_in_its_folder_is_refused(small_run, tmp_path):
    fits = tmp_path / "fits"
    shutil.copytree(small_run.fits, fits)
    shutil.copy(small_run.model(1), fits / "fold0/model.safetensors")
    words = ["predict", fits, small_run.folder / "images/image00.png", "--out", tmp_path / "p.csv"]
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 2
    assert "is not the model that was fitted here" in done.output


def test_pictures_of_equal_names_do_not_replace_each_other(small_run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(small_run.folder / "images/image00.png", tmp_path / name)
    predict(
        *([small_run.model(0)], [tmp_path / "a", tmp_path / "b"], tmp_path / "p.csv"),
        options(small_run, overlay=tmp_path / "o"),
    )
    named = [row["overlay"] for row in table(tmp_path / "p.csv")]
    assert named == [str(tmp_path / "o/image00.png"), str(tmp_path / "o/image00~2.png")]
    assert {str(path) for path in (tmp_path / "o").iterdir()} == set(named)

"""Encoders other than VGG16: features, identity, weights, and the whole way to a prediction."""

import dataclasses

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from small_data import write_study

from cache import FeatureCache
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.encoders.recipe import make_recipe
from pipeline.extraction.engines.choose import choose_backend
from pipeline.extraction.engines.model_encoder import ModelEncoder
from pipeline.extraction.recipe import PatchOptions, options_of
from pipeline.torchvision_shim import import_torchvision
from pipeline.weights.model_weights import (
    load_model_weights,
    publish_model_weights,
    random_model_weights,
)
from pipeline.weights.weights_file import random_weights


def patches(count, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def resnet():
    return find_architecture("resnet50")


@pytest.fixture(scope="module")
def resnet_weights(resnet):
    return random_model_weights(resnet.state(), 0)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory, resnet_weights):
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    publish_model_weights(resnet_weights, path)
    return path


@pytest.mark.parametrize(
    ("name", "side", "head"),
    [("resnet50", 64, "fc"), pytest.param("vit_b_16", 224, "heads", marks=pytest.mark.slow)],
)
def test_features_are_those_of_plain_torchvision(name, side, head):
    architecture = find_architecture(name)
    weights = random_model_weights(architecture.state(), 0)
    images = patches(2, side)
    found = ModelEncoder(architecture, weights, torch.device("cpu")).encode(images)
    network = getattr(import_torchvision().models, name)(weights=None)
    setattr(network, head, torch.nn.Identity())
    network.load_state_dict(dict(weights.state))
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, sd = (
        torch.tensor(values)[:, None, None]
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.inference_mode():
        expected = network.eval()((x - mean) / sd).numpy()
    assert found.shape == (2, architecture.feature_dim)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_features_of_a_patch_do_not_depend_on_those_beside_it(resnet, resnet_weights):
    encoder = ModelEncoder(resnet, resnet_weights, torch.device("cpu"))
    images = patches(2, 64)
    np.testing.assert_array_equal(encoder.encode(images)[1:], encoder.encode(images[1:]))


def test_random_weights_follow_from_their_seed_and_are_known_again(
    resnet, resnet_file, resnet_weights
):
    loaded = load_model_weights(resnet_file, resnet.state())
    assert (loaded.name, loaded.sha256) == ("random(seed=0)", resnet_weights.sha256)
    assert random_model_weights(resnet.state(), 1).sha256 != loaded.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("conv1.weight"), "missing: conv1.weight"),
        (lambda a: a.update(fc=np.zeros(3, np.float32)), "unexpected: fc"),
        (lambda a: a.update({"bn1.bias": np.zeros(63, np.float32)}), "type or shape: bn1.bias"),
        (lambda a: a.update({"bn1.bias": np.zeros(64)}), "type or shape: bn1.bias"),
        (
            lambda a: a.update({"bn1.bias": np.full(64, np.nan, np.float32)}),
            "bn1.bias holds values",
        ),
    ],
)
def test_weights_of_something_else_are_refused_by_name(
    resnet, resnet_file, tmp_path, change, message
):
    arrays = load_file(resnet_file)
    change(arrays)
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=message):
        load_model_weights(tmp_path / "w.safetensors", resnet.state())


def test_the_identifier_changes_with_the_release_and_the_transform(resnet, monkeypatch):
    first = resnet.identifier
    assert first.startswith("resnet50, torchvision ")
    assert dataclasses.replace(resnet, mean=(0.5, 0.5, 0.5)).identifier != first
    monkeypatch.setattr("pipeline.extraction.encoders.architecture.version", lambda package: "99.0")
    assert resnet.identifier != first


def test_a_recipe_says_its_encoder_and_gives_its_options_back(resnet, resnet_weights):
    options = PatchOptions(64, 32, encoder="resnet50")
    recipe = make_recipe(options, resnet_weights, "float32")
    assert (recipe.encoder, recipe.feature_dim) == (resnet.identifier, 2048)
    assert options_of(recipe) == options
    vgg16 = make_recipe(PatchOptions(64, 32), random_weights(0), "float32")
    assert recipe.fingerprint != vgg16.fingerprint


def test_what_does_not_fit_an_encoder_is_refused(resnet_weights):
    with pytest.raises(UsageError, match="takes patches of 224 pixels, not 64: give --patch-size"):
        make_recipe(PatchOptions(64, 64, encoder="vit_b_16"), resnet_weights, "float32")
    with pytest.raises(UsageError, match="--layers and --pooling are for vgg16"):
        PatchOptions(layers=("conv1_2",), encoder="resnet50")
    with pytest.raises(UsageError, match="engine ncnn: computes vgg16 only"):
        choose_backend("cpu", engine="ncnn", encoder="resnet50")
    with pytest.raises(
        UsageError, match="'resnet51': expected vgg16, resnet50, vit_b_16, or timm:"
    ):
        find_architecture("resnet51")


def test_a_file_of_torch_becomes_weights_without_its_classifier_and_nothing_is_executed(
    resnet, tmp_path
):
    network = import_torchvision().models.resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    words = ["weights", "--encoder", "resnet50", "--from", tmp_path / "resnet.pth"]
    done = CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / "w.safetensors")])
    assert done.exit_code == 0, done.output
    weights = load_model_weights(tmp_path / "w.safetensors", resnet.state())
    assert weights.name == "custom"
    assert torch.equal(weights.state["conv1.weight"], network.conv1.weight)
    torch.save({"a": print}, tmp_path / "evil.pth")
    words[-1] = tmp_path / "evil.pth"
    done = CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / "w2.safetensors")])
    assert done.exit_code == 2
    assert "cannot be read as weights" in done.output


@pytest.mark.slow
def test_an_encoder_of_timm_goes_the_whole_way(tmp_path, monkeypatch):
    import_torchvision()  # timm cannot be imported before it
    pytest.importorskip("timm")
    write_study(tmp_path, 24, cases=12)
    monkeypatch.chdir(tmp_path)

    def run(line, code=0):
        done = CliRunner().invoke(main, line.split())
        assert done.exit_code == code, done.output
        return done.output

    run("weights --encoder timm:test_resnet --random 1 --out w.safetensors")
    run("weights --random 1 --out vgg.safetensors")
    size = "--patch-size 32 --stride 32 --threads 1 --device cpu"
    made = f"--manifest manifest.csv --out features.h5 {size}"
    run(f"extract --encoder timm:test_resnet --weights w.safetensors {made}")
    run("split manifest.csv --out s.csv --folds 3")
    few = "--no-companions --steps 4 --checks 1 --members 2"
    run(f"fit-lstm --cache features.h5 --splits s.csv --out fits {few}")
    run("evaluate --fits fits --out metrics.json")
    run("report . --out report.html")
    run("predict fits image000.png --out p.csv --weights w.safetensors --device cpu --overlay o")
    with FeatureCache("features.h5") as cache:
        assert cache.recipe.encoder.startswith("timm:test_resnet, timm ")
    refused = run("predict fits image000.png --out p.csv --weights vgg.safetensors", code=2)
    assert "not the weights of this encoder" in refused
    assert "encoder: 'vgg16'" in run(f"extract --weights vgg.safetensors {made}", code=2)

"""Encoders other than VGG16: features, identity, weights, and the whole way to a prediction."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file
from small_data import write_study

from cache import FeatureCache
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.encoders.recipe import make_recipe
from pipeline.extraction.encoders.timm_names import TimmName
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
    ("name", "side", "head"), [("resnet50", 64, "fc"), ("vit_b_16", 224, "heads")]
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


def test_an_encoder_of_timm_goes_the_whole_way(tmp_path, monkeypatch):
    import_torchvision()
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


CONFIG = {
    "architecture": "test_vit",
    "num_classes": 7,
    "model_args": {"init_values": 0.5, "num_classes": 7, "act_layer": "relu"},
    "pretrained_cfg": {
        "mean": [0.7, 0.6, 0.5],
        "std": [0.2, 0.3, 0.4],
        "input_size": [3, 160, 160],
    },
}
CANONICAL = (
    "timm:test_vit?act_layer=%22relu%22"
    "&cfg.mean=[0.7%2C0.6%2C0.5]&cfg.std=[0.2%2C0.3%2C0.4]&init_values=0.5"
)


def write_folder(folder, file="model.safetensors", **changes):
    """What timm saves of a small network with a classifier, of the same weights each time."""
    import_torchvision()
    timm = pytest.importorskip("timm")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    torch.manual_seed(0)
    network = timm.create_model("test_vit", **CONFIG["model_args"]).eval()
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if file == "model.safetensors":
        safetensors.torch.save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    return network


def test_a_folder_is_known_by_what_it_describes_and_not_by_its_place(tmp_path):
    write_folder(tmp_path / "a" / "net,work")
    write_folder(tmp_path / "b")
    first = find_architecture(f"timm:{tmp_path}/a/net,work")
    assert first.name == CANONICAL
    assert first.identifier == find_architecture(f"timm:{tmp_path}/b").identifier
    assert first.identifier == find_architecture(CANONICAL).identifier
    assert first.identifier.partition(",")[0] == CANONICAL


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "test_vit2"},
        {"model_args": {"init_values": 0.25, "act_layer": "relu"}},
        {"model_args": {"init_values": 0.5}},
        {"pretrained_cfg": {**CONFIG["pretrained_cfg"], "std": [0.2, 0.3, 0.5]}},
    ],
)
def test_whatever_changes_its_features_changes_its_identifier(tmp_path, changes):
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b", **changes)
    one, other = (find_architecture(f"timm:{tmp_path}/{name}") for name in "ab")
    assert one.identifier != other.identifier


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folders_features_are_those_of_plain_timm_and_need_the_folder_no_longer(
    tmp_path, monkeypatch, file
):
    network = write_folder(tmp_path / "net", file)
    write_study(tmp_path, 24, cases=12, width=200, height=170)
    monkeypatch.chdir(tmp_path)

    def run(line):
        done = CliRunner().invoke(main, line.split())
        assert done.exit_code == 0, done.output

    size = "--patch-size 160 --stride 160 --device cpu --dtype float32"
    run("weights --encoder timm:net --out w.safetensors")
    made = f"--manifest manifest.csv --weights w.safetensors --out features.h5 {size}"
    run(f"extract --encoder timm:net {made}")
    shutil.rmtree("net")
    run("split manifest.csv --out s.csv --folds 3")
    few = "--no-companions --steps 4 --checks 1 --members 2"
    run(f"fit-lstm --cache features.h5 --splits s.csv --out fits {few}")
    run("predict fits image000.png --out p.csv --weights w.safetensors --device cpu")
    with FeatureCache("features.h5") as cache:
        found = cache.sequence(0)
        assert options_of(cache.recipe).encoder == CANONICAL
    pixels = np.asarray(Image.open("image000.png"))[:160, :160]
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    mean, sd = (torch.tensor(v)[:, None, None] for v in ((0.7, 0.6, 0.5), (0.2, 0.3, 0.4)))
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features((x - mean) / sd), pre_logits=True)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "no `architecture`"),
        ({"architecture": "../x"}, "not the name of a network"),
        ({"architecture": "no_such_network"}, "knows no such network"),
        ({"model_args": {"pretrained": True}}, "'pretrained' with value True is not allowed"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "'checkpoint_path' .* not allowed"),
        ({"model_args": {"features_only": True}}, "not allowed"),
        ({"model_args": {"a b": 1}}, "'a b' with value 1 is not allowed"),
        ({"model_args": {"act_layer": {"a": 1}}}, "not allowed"),
        ({"model_args": {"depth": float("nan")}}, "not allowed"),
        ({"model_args": {"no_such_argument": 1}}, "timm cannot build it .*no_such_argument"),
        ({"model_args": [1]}, "no description"),
        ({"pretrained_cfg": {"mean": "imagenet"}}, "mean is 'imagenet', expected"),
        ({"pretrained_cfg": {"std": [1, 1, 0]}}, "std is .*positive"),
        ({"pretrained_cfg": {"input_size": [3, 9, 9]}}, "input_size is 9"),
    ],
)
def test_a_folder_of_something_else_is_refused_with_what_is_wrong(tmp_path, changes, message):
    write_folder(tmp_path / "net", **changes)
    with pytest.raises(UsageError, match=message):
        find_architecture(f"timm:{tmp_path}/net")


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_description_that_is_no_object_is_refused(tmp_path, text):
    write_folder(tmp_path / "net")
    (tmp_path / "net/config.json").write_text(text)
    with pytest.raises(UsageError, match=r"not valid JSON|not a JSON object"):
        find_architecture(f"timm:{tmp_path}/net")


def test_a_folder_without_weights_says_which_are_missing(tmp_path):
    write_folder(tmp_path / "net")
    (tmp_path / "net/model.safetensors").unlink()
    words = ["weights", "--encoder", f"timm:{tmp_path}/net", "--out", str(tmp_path / "w")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "holds none of model.safetensors, pytorch_model.bin: give --from" in done.output


VALUES = (
    st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(-1e9, 1e9)
    | st.text(st.characters(categories=["L", "N", "P"]), max_size=20)
    | st.lists(st.integers(0, 99), max_size=4)
)


@given(
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,9}", fullmatch=True), VALUES, max_size=4),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
)
def test_a_name_says_all_of_a_network_without_comma_or_space(arguments, std):
    try:
        name = TimmName("vit.a_tag", arguments, {"std": std})
    except UsageError:
        return
    text = str(name)
    assert not set(text) & set(", \n")
    assert TimmName.parse(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "vit?b=1&a=1",
        "vit?a=1&a=1",
        "vit?a=x",
        "vit?a",
        "vit?",
        "vit?cfg.x=1",
        "a b",
        "",
        "vit?a=1 ",
    ],
)
def test_a_name_that_is_written_in_another_way_is_refused(text):
    with pytest.raises(UsageError, match="timm:"):
        TimmName.parse(text)

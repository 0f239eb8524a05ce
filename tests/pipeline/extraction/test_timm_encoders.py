"""Encoders of timm: names that say all, folders that timm saved, and what of them is refused."""

import json
import shutil
import string
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_data import write_study

from cache import FeatureCache
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.encoders.obtain import obtain
from pipeline.extraction.encoders.recipe import by_name, make_recipe
from pipeline.extraction.encoders.timm_folder import folder_of, read_folder
from pipeline.extraction.encoders.timm_names import TimmName, check_settings, parse_name
from pipeline.extraction.engines.model_encoder import ModelEncoder
from pipeline.extraction.recipe import PatchOptions, options_of
from pipeline.torchvision_shim import import_torchvision
from pipeline.weights.model_weights import load_model_weights, random_model_weights

ARGUMENTS = {"img_size": 32, "depth": 2, "act_layer": "relu", "init_values": 1e-5}
PIXELS = {"mean": [0.7, 0.6, 0.5], "std": [0.25, 0.2, 0.3], "input_size": [3, 32, 32]}
CANONICAL = (
    'timm:test_vit?act_layer="relu"&depth=2&img_size=32&init_values=1e-05'
    "&input_size=[3%2C32%2C32]&mean=[0.7%2C0.6%2C0.5]&std=[0.25%2C0.2%2C0.3]"
)


@pytest.fixture(scope="module")
def timm() -> Any:
    import_torchvision()
    return pytest.importorskip("timm")


def write_config(folder: Path, **changes: Any) -> Path:
    """Write a config.json with some keys replaced, or left out if None."""
    config = {
        "architecture": "test_vit",
        "num_classes": 5,
        "global_pool": "token",
        "model_args": {"num_classes": 5, "in_chans": 3, "drop_rate": None, **ARGUMENTS},
        "pretrained_cfg": {"tag": "own", "fixed_input_size": True, "url": "", **PIXELS},
    }
    kept = {key: value for key, value in {**config, **changes}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(kept), "utf-8")
    return folder


@pytest.fixture
def saved(timm: Any, tmp_path: Path) -> tuple[Path, Any]:
    """A folder as timm saves it, and its network, classifier included."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=5, **ARGUMENTS).eval()
    folder = write_config(tmp_path / "my models" / "vit, 1")
    save_file(network.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder, network


# Names


words = st.text(string.ascii_letters + string.digits + "_+-", max_size=20)
numbers = st.integers(-8192, 8192) | st.floats(-8192, 8192)
keys = st.text(string.ascii_lowercase, min_size=1, max_size=8).map("my_".__add__)
values = st.booleans() | numbers | words | st.lists(numbers, max_size=5)


@given(st.dictionaries(keys, values, max_size=5))
def test_a_name_is_read_as_it_was_written(settings: dict[str, Any]) -> None:
    written = str(TimmName("test_vit.a1_in1k", settings))
    assert not set(written) & set(", {}\n")
    read = parse_name(written)
    assert (str(read), dict(read.settings)) == (written, settings)
    assert {k: type(v) for k, v in read.settings.items()} == {
        k: type(v) for k, v in settings.items()
    }


@given(st.text(max_size=40))
def test_any_other_text_is_refused_and_no_more(text: str) -> None:
    try:
        assert str(parse_name(text)) == text
    except UsageError as error:
        assert str(error).startswith("encoder timm:")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit?depth", "expected a value as in JSON"),
        ("test_vit?", "expected a value as in JSON"),
        ("test_vit?depth=%FF", "expected a value as in JSON"),
        ("test_vit?depth=" + "[" * 900, "expected a value as in JSON"),
        ("test_vit?depth= 2", "expected timm:test_vit?depth=2"),
        ("test_vit?img_size=32&depth=2", "expected timm:test_vit?depth=2&img_size=32"),
        ("test_vit?depth=2&depth=3", "expected timm:test_vit?depth=3"),
        ("test_vit?depth=2,", "expected a value as in JSON"),
        ("test_vit?a=%7B%7D", "expected a number of 8192 at most"),
        ("test_vit?a=null", "expected a number of 8192 at most"),
        ("test_vit?a=NaN", "expected a number of 8192 at most"),
        ("test_vit?a=Infinity", "expected a number of 8192 at most"),
        ("test_vit?depth=1" + "0" * 400, "expected a number of 8192 at most"),
        ("test_vit?a=[[1]]", "expected at most 64 numbers"),
        ('test_vit?a="b%2Fc"', "expected a word"),
        ("test_vit?__class__=1", "'__class__' is not a setting of an encoder"),
        ("test_vit?a=" + "1" * 1000, "at most 1000 characters"),
        ("../test_vit?a=1", "neither a folder that exists nor a name"),
        ("test_vit?" + "&".join(f"a{i:02}=1" for i in range(33)), "33 settings"),
    ],
)
def test_a_name_that_is_written_otherwise_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_name(name)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "key",
    [
        *("pretrained", "checkpoint_path", "features_only", "num_classes", "cache_dir"),
        *("scriptable", "exportable", "no_jit", "pretrained_cfg", "pretrained_cfg_overlay"),
        *("pretrained_strict", "pretrained_model_args", "pretrained_filter_fn", "kwargs_filter"),
        *("model_name", "model_cfg", "model_cls", "feature_cfg", "feature_cls", "out_indices"),
        *("pruned", "device", "dtype", "cfg", "variant", "in_chans", "", "a b", "a,b", "ä"),
    ],
)
def test_settings_that_read_fetch_or_change_what_is_built_are_refused(key: str) -> None:
    with pytest.raises(UsageError, match=r"here: .* is not a setting of an encoder"):
        check_settings({key: True}, "here")


# Folders


def test_a_folder_becomes_a_name_that_does_not_depend_on_its_place(
    saved: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = saved
    here = find_architecture(f"timm:{folder}")
    shutil.copytree(folder, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    there = find_architecture("timm:elsewhere")
    assert here.name == CANONICAL
    assert here.identifier == there.identifier == find_architecture(CANONICAL).identifier
    assert (here.mean, here.sd) == ((0.7, 0.6, 0.5), (0.25, 0.2, 0.3))
    assert (here.input_size, here.feature_dim) == (32, 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "test_vit2"},
        {"model_args": {**ARGUMENTS, "depth": 3}},
        {"model_args": {**ARGUMENTS, "act_layer": "gelu"}},
        *(
            {"pretrained_cfg": {"fixed_input_size": True, **PIXELS, **change}}
            for change in (
                {"mean": [0.7, 0.6, 0.4]},
                {"std": [0.25, 0.2, 0.2]},
                {"input_size": [3, 64, 64]},
                {"fixed_input_size": False},
            )
        ),
    ],
)
def test_any_change_of_the_network_or_its_pixels_is_another_encoder(
    changes: dict[str, Any], timm: Any, tmp_path: Path
) -> None:
    first = find_architecture(f"timm:{write_config(tmp_path / 'a')}")
    other = find_architecture(f"timm:{write_config(tmp_path / 'b', **changes)}")
    assert other.identifier != first.identifier


def test_what_is_timms_own_or_says_nothing_of_the_network_is_left_out(
    timm: Any, tmp_path: Path
) -> None:
    own = {"mean": [0.5, 0.5, 0.5], "input_size": [3, 160, 160], "crop_pct": 0.9}
    folder = write_config(tmp_path, model_args=None, pretrained_cfg=own)
    assert find_architecture(f"timm:{folder}").name == "timm:test_vit"
    old = {"model_args": None, "pretrained_cfg": None, "global_pool": "avg", **PIXELS}
    folder = write_config(tmp_path, **old)
    found = find_architecture(f"timm:{folder}")
    assert found.name.startswith('timm:test_vit?global_pool="avg"&input_size=')
    assert (found.mean, found.input_size) == ((0.7, 0.6, 0.5), 32)


def test_a_name_of_timm_comes_before_a_folder_of_that_name(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path / "test_vit")
    monkeypatch.chdir(tmp_path)
    assert find_architecture("timm:test_vit").name == "timm:test_vit"
    assert find_architecture("timm:./test_vit").name == CANONICAL
    for text in ("timm:", "timm:a\0b", "timm:" + "a" * 10_000, "test_vit"):
        assert folder_of(text) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "config.json: architecture is null, expected the name"),
        ({"architecture": "hf-hub:a/b"}, 'architecture is "hf-hub:a/b", expected the name'),
        ({"architecture": "../test_vit"}, "expected the name of a timm network"),
        ({"architecture": "no_such_network"}, "timm knows no network 'no_such_network'"),
        ({"model_args": {"pretrained": True}}, "config.json: model_args: 'pretrained' is not"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "'checkpoint_path' is not a setting"),
        ({"model_args": {"in_chans": 4}}, "'in_chans' is not a setting"),
        ({"model_args": {"act_layer": "os.system"}}, 'act_layer is "os.system", expected a word'),
        ({"model_args": {"depth": 1e6}}, "depth is 1000000.0, expected a number"),
        ({"model_args": {"mlp": {"a": 1}}}, "mlp is {.*, expected a number"),
        ({"model_args": {"mean": [0, 0, 0]}}, "mean belongs into pretrained_cfg"),
        ({"model_args": [1]}, "config.json: model_args is list, expected an object"),
        ({"pretrained_cfg": "x"}, "pretrained_cfg is str, expected an object"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "mean is .*, expected a list of three numbers"),
        ({"pretrained_cfg": {"std": [0, 1, 1]}}, "std is .*, expected numbers above 0"),
        ({"pretrained_cfg": {"input_size": [1, 9, 9]}}, "patches have three channels"),
        ({"pretrained_cfg": {"fixed_input_size": 1}}, "is 1, expected true or false"),
        ({"model_args": {f"a{i}": [0.123456789] * 9 for i in range(9)}}, "at most 1000 characters"),
        ({"model_args": {"no_such": 1}}, "timm cannot build it so .TypeError.*no_such"),
        ({"model_args": {"act_layer": "no"}}, "timm cannot build it so .KeyError"),
        ({"model_args": {"global_pool": ""}}, "expected one vector: choose a global_pool"),
        ({"model_args": {"img_size": [32, 64]}}, "takes 32×64 pixels, not squares"),
    ],
)
def test_a_strangers_folder_is_refused_by_file_and_key(
    changes: dict[str, Any], message: str, timm: Any, tmp_path: Path
) -> None:
    folder = write_config(tmp_path, **changes)
    with pytest.raises(UsageError, match=message):
        find_architecture(f"timm:{folder}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "config.json: not JSON"),
        (b"\xff", "config.json: not JSON"),
        (b"[" * 100_000, "config.json: not JSON"),
        (b"[]", "config.json: holds no object"),
        (b" " * ((1 << 22) + 1), "config.json: 4,194,305 bytes, expected at most 4,194,304"),
        (None, "config.json: cannot be read"),
    ],
)
def test_a_config_that_is_none_is_refused(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_folder(tmp_path)


# Features and weights


def test_features_are_those_of_plain_timm(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, network = saved
    out = tmp_path / "w.safetensors"
    said = obtain(f"timm:{folder}", None, None, out)
    assert said.startswith(f"custom weights of {CANONICAL}, ")
    architecture = find_architecture(CANONICAL)
    weights = load_model_weights(out, architecture.state())
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    found = ModelEncoder(architecture, weights, torch.device("cpu")).encode(images)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, sd = (torch.tensor(PIXELS[key])[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        tokens = network.forward_features((x - mean) / sd)
        expected = network.forward_head(tokens, pre_logits=True).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_file_of_torch_serves_where_safetensors_is_absent_and_is_never_executed(
    saved: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, network = saved
    obtain(f"timm:{folder}", None, None, tmp_path / "1.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    obtain(f"timm:{folder}", None, None, tmp_path / "2.safetensors")
    first, second = (load_file(tmp_path / f"{i}.safetensors") for i in (1, 2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.save({"head.weight": print}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin: cannot be read as weights"):
        obtain(f"timm:{folder}", None, None, tmp_path / "3.safetensors")
    torch.save(dict.fromkeys(network.state_dict(), 1), folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="not the weights of this encoder; first differing: "):
        obtain(f"timm:{folder}", None, None, tmp_path / "3.safetensors")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UsageError, match="no weights: expected model"):
        obtain(f"timm:{folder}", None, None, tmp_path / "3.safetensors")
    with pytest.raises(UsageError, match="are not fetched: give --from"):
        obtain(CANONICAL, None, None, tmp_path / "3.safetensors")


def test_a_norm_before_the_classifier_is_no_part_of_it(timm: Any, tmp_path: Path) -> None:
    network = timm.create_model("test_convnext", num_classes=5)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    obtain("timm:test_convnext", tmp_path / "a.pth", None, tmp_path / "w.safetensors")
    assert "head.norm.weight" in load_file(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224?depths=[1%2C1%2C1%2C1]"])
def test_a_network_with_tables_that_no_file_holds_encodes(timm: Any, name: str) -> None:
    architecture = find_architecture(f"timm:{name}")
    weights = random_model_weights(architecture.state(), 0)
    network = timm.create_model(name.partition("?")[0], num_classes=0, depths=[1, 1, 1, 1])
    network.load_state_dict(dict(weights.state))
    black = np.zeros((1, 224, 224, 3), dtype=np.uint8)
    found = ModelEncoder(architecture, weights, torch.device("cpu")).encode(black)
    mean, sd = (torch.tensor(v)[:, None, None] for v in (architecture.mean, architecture.sd))
    with torch.inference_mode():
        expected = network.eval()((-mean / sd).expand(1, 3, 224, 224)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_length_of_features_is_that_of_the_vector(timm: Any) -> None:
    found = find_architecture("timm:mobilenetv3_small_050")
    assert (found.feature_dim, found.input_size) == (1024, None)


# Recipes


def test_patches_that_a_network_does_not_take_are_refused_whatever_its_config_says(
    timm: Any, tmp_path: Path
) -> None:
    pixels = {**PIXELS, "fixed_input_size": False}
    rigid = {**ARGUMENTS, "dynamic_img_size": False}
    folder = write_config(tmp_path, pretrained_cfg=pixels, model_args=rigid)
    weights = random_model_weights(find_architecture(f"timm:{folder}").state(), 0)
    make_recipe(PatchOptions(32, 32, encoder=f"timm:{folder}"), weights, "float32")
    with pytest.raises(UsageError, match=r"does not take patches of 64 pixels .*--patch-size"):
        make_recipe(PatchOptions(64, 64, encoder=f"timm:{folder}"), weights, "float32")


def test_a_recipe_gives_the_encoder_back_without_its_folder(
    saved: tuple[Path, Any],
) -> None:
    folder, _ = saved
    options = by_name(PatchOptions(32, 16, encoder=f"timm:{folder}"))
    shutil.rmtree(folder)
    weights = random_model_weights(find_architecture(CANONICAL).state(), 0)
    recipe = make_recipe(options, weights, "float32")
    assert recipe.encoder.startswith(f"{CANONICAL}, timm ")
    assert options_of(recipe) == options == PatchOptions(32, 16, encoder=CANONICAL)
    assert by_name(PatchOptions()) == PatchOptions()


def test_a_folder_goes_the_whole_way_and_prediction_needs_it_no_more(
    saved: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = saved
    work = tmp_path / "work"
    work.mkdir()
    write_study(work, 24, cases=12)
    monkeypatch.chdir(work)

    def run(*words: str) -> str:
        line = [part for word in words for part in ([word] if "timm:" in word else word.split())]
        done = CliRunner().invoke(main, line)
        assert done.exit_code == 0, done.output
        return done.output

    shutil.copytree(folder, "elsewhere/a")
    for place, out in ((str(folder), "one.h5"), ("elsewhere/a", "features.h5")):
        run("weights --out w.safetensors --encoder", f"timm:{place}")
        size = "--patch-size 32 --stride 32 --threads 1 --device cpu"
        made = f"--manifest manifest.csv --weights w.safetensors --out {out} {size}"
        run(f"extract {made} --encoder", f"timm:{place}")
    with FeatureCache("one.h5") as one, FeatureCache("features.h5") as other:
        assert one.recipe == other.recipe
        assert one.recipe.encoder.startswith(f"{CANONICAL}, timm ")
    shutil.rmtree(folder)
    shutil.rmtree("elsewhere")
    run("split manifest.csv --out s.csv --folds 3")
    few = "--no-companions --steps 4 --checks 1 --members 2"
    run(f"fit-lstm --cache features.h5 --splits s.csv --out fits {few}")
    run("evaluate --fits fits --out metrics.json")
    run("report . --out report.html")
    run("predict fits image000.png --out p.csv --weights w.safetensors --device cpu")
    with h5py.File("features.h5", "r+") as file:
        file["features"][0] = 1
    repaired = "cache repair features.h5 --manifest manifest.csv --weights w.safetensors"
    run(f"{repaired} --device cpu")
    run("cache diff one.h5 features.h5")

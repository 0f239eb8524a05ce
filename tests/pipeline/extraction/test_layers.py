"""Layers and their poolings: the features that the recipe names, in the columns that it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cache
from cache import Recipe
from cache.columns import VGG16_CHANNELS, columns_of
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.extraction.engines.torch_encoder import TorchEncoder
from pipeline.extraction.recipe import (
    DEFAULT_LAYERS,
    DEFAULT_POOLING,
    DEFAULT_VIEWS,
    LAYERS,
    PatchOptions,
    options_of,
    parse_names,
    vgg16_recipe,
)
from pipeline.torchvision_shim import import_torchvision
from pipeline.weights.weights_file import load_weights

CPU = torch.device("cpu")
PLAIN = PatchOptions(layers=("pool5",), pooling="mean")
ALL = PatchOptions(layers=tuple(LAYERS), pooling="mean+sd")


def recipe(options: PatchOptions) -> Recipe:
    return vgg16_recipe(options, "custom", "a" * 64, "float32")


def patches(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def reference(weights_file, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of torchvision's layers, one after another, by the name in a recipe."""
    layers = import_torchvision().models.vgg16(weights=None).features.eval()
    arrays = load_weights(weights_file).arrays
    layers.load_state_dict(
        {k.removeprefix("features."): torch.tensor(v) for k, v in arrays.items()}
    )
    maps = torch.tensor(pixels.astype(np.float32)) - torch.tensor([123.68, 116.779, 103.939])
    maps, found = maps.permute(0, 3, 1, 2), {}
    with torch.inference_mode():
        for i, layer in enumerate(layers):
            maps = layer(maps)
            found[f"features.{i}"] = maps.numpy().copy()
    return found


def test_every_column_is_the_mean_or_deviation_of_the_layer_that_the_recipe_names(weights_file):
    encoder = TorchEncoder(load_weights(weights_file), CPU, "float32", ALL)
    pixels = patches(encoder.batch_size)
    features, maps = encoder.encode(pixels), reference(weights_file, pixels)
    parts = columns_of(recipe(ALL))
    assert len(parts) == 12
    for layer, pooled, columns in parts:
        expected = getattr(maps[layer], {"mean": "mean", "sd": "std"}[pooled])(axis=(2, 3))
        np.testing.assert_allclose(features[:, columns], expected, rtol=1e-3, atol=1e-3)
    assert parts[-1].columns.stop == features.shape[1] == ALL.vgg16_dim


def test_a_layer_has_the_same_bits_whatever_else_is_asked_for(weights_file):
    weights = load_weights(weights_file)
    pixels = patches(2)
    together = TorchEncoder(weights, CPU, "float32", ALL).encode(pixels)
    plain = TorchEncoder(weights, CPU, "float32", PLAIN).encode(pixels)
    parts = {(part.layer, part.pooled): part.columns for part in columns_of(recipe(ALL))}
    np.testing.assert_array_equal(together[:, parts["features.30", "mean"]], plain)
    for name, layer in LAYERS.items():
        one = PatchOptions(layers=(name,), pooling="mean+sd")
        alone = TorchEncoder(weights, CPU, "float32", one).encode(pixels)
        columns = [np.arange(4000)[parts[layer, pooled]] for pooled in ("mean", "sd")]
        np.testing.assert_array_equal(together[:, np.concatenate(columns)], alone)


@pytest.mark.parametrize("side", [32, 64])
def test_all_layers_do_not_depend_on_batches_threads_or_order(weights_file, side):
    encoder = TorchEncoder(load_weights(weights_file), CPU, "float32", ALL)
    pixels = patches(encoder.batch_size, side)
    together, threads = encoder.encode(pixels), torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            alone = [encoder.encode(pixels[i : i + 1]) for i in range(len(pixels))]
            np.testing.assert_array_equal(together, np.concatenate(alone))
            np.testing.assert_array_equal(together[::-1], encoder.encode(pixels[::-1].copy()))
    finally:
        torch.set_num_threads(threads)


def test_layers_after_the_last_one_asked_for_are_not_computed(weights_file):
    options = PatchOptions(layers=("conv1_2", "conv2_2"))
    encoder = TorchEncoder(load_weights(weights_file), CPU, "float32", options)
    seen = []
    for stage in encoder._stages:
        for layer in stage:
            layer.register_forward_hook(lambda layer, *_: seen.append(type(layer).__name__))
    encoder.encode(patches(1))
    assert seen.count("Conv2d") == 4
    assert seen[-1] == "ReLU"


def test_layers_keep_the_order_of_the_network_whatever_order_they_are_given_in():
    options = PatchOptions(layers=("pool5", "conv3_3"))
    assert recipe(options).layer == "features.15,features.30"
    assert recipe(options) == recipe(PatchOptions(layers=("conv3_3", "pool5")))


@pytest.mark.parametrize("layers", [(), ("pool4",), ("pool5", "pool5"), ("",), ("conv3_3 ",)])
def test_layers_that_there_are_not_are_refused(layers):
    with pytest.raises(UsageError, match=r"layers .*expected one or more of conv1_2"):
        PatchOptions(layers=layers)


def test_a_pooling_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match=r"pooling 'max': expected mean or mean\+sd"):
        PatchOptions(pooling="max")


@pytest.mark.parametrize(
    "options",
    [
        PatchOptions(),
        ALL,
        PatchOptions(64, 32, "pad", "float32", ("conv4_3",), "mean", ("rot90", "identity")),
    ],
)
def test_a_recipe_gives_back_its_options(options):
    assert recipe(options_of(recipe(options))) == recipe(options)


def test_options_that_are_not_given_keep_their_default():
    assert PatchOptions(**parse_names(None, None, None)) == PatchOptions()
    given = PatchOptions(**parse_names("conv3_3,pool5", "mean+sd", "identity,rot180"))
    assert given.layers == ("conv3_3", "pool5")
    assert (given.pooling, given.views) == ("mean+sd", ("identity", "rot180"))


def test_the_help_states_the_defaults():
    text = " ".join(CliRunner().invoke(main, ["extract", "--help"]).output.split())
    for default in (",".join(DEFAULT_LAYERS), DEFAULT_POOLING, ",".join(DEFAULT_VIEWS)):
        assert f"[default: {default}]" in text
    assert ", ".join(LAYERS) in text


def test_names_from_the_command_line_are_checked(tmp_path):
    arguments = "extract --manifest m.csv --weights w.safetensors --out f.h5"
    for option, name in (("--layers", "conv9_9"), ("--views", "upside_down")):
        result = CliRunner().invoke(main, [*arguments.split(), option, name])
        assert result.exit_code == 2
        assert name in result.output


def test_the_names_of_layers_are_those_of_format_md():
    text = (Path(cache.__file__).parent / "FORMAT.md").read_text("utf-8")
    for name, layer in LAYERS.items():
        assert f"| `{layer}` | {name}" in text
        assert f"| {VGG16_CHANNELS[layer]} |" in text

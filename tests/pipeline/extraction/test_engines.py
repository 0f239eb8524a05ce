"""Engines agree with each other, and a patch's features are its own; the choice is checked."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_data import write_study

from cache import FeatureCache
from pipeline.cli import main
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.engines.choose import (
    Backend,
    choose_backend,
    choose_devices,
    choose_engine,
    choose_precision,
    make_encoder,
)
from pipeline.extraction.engines.ncnn_encoder import NcnnEncoder
from pipeline.extraction.engines.round_robin import RoundRobin
from pipeline.extraction.engines.torch_encoder import TorchEncoder
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.recipe import LAYERS, PatchOptions
from pipeline.weights.weights_file import load_weights

CPU = torch.device("cpu")
ALL = PatchOptions(layers=tuple(LAYERS), pooling="mean+sd")
PLAIN = PatchOptions(layers=("conv1_2",), pooling="mean")


def patches(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    shape = (count, side, side, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def weights(weights_file):
    return load_weights(weights_file)


@pytest.fixture(scope="module", params=["ncnn", "torch"])
def encoder(request, weights):
    threads = torch.get_num_threads()
    yield make_encoder(weights, Backend(request.param, (CPU,), "float32"), ALL, 2)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("side", [32, 33, 47, 64, 224])
def test_ncnn_agrees_with_torch_to_1e_4(weights, side):
    pixels = patches(2, side)
    expected = TorchEncoder(weights, CPU, options=ALL).encode(pixels)
    found = NcnnEncoder(weights, ALL, 1).encode(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_ncnn_computes_no_layer_after_the_last_one_asked_for(weights):
    shallow = NcnnEncoder(weights, PatchOptions(layers=("conv1_2", "conv2_2")), 1)
    assert len(shallow._net.layers()) == 1 + 5  # input, four convolutions, a pooling
    pixels = patches(1)
    whole = NcnnEncoder(weights, ALL, 1).encode(pixels)
    np.testing.assert_array_equal(shallow.encode(pixels)[:, :192], whole[:, :192])


@pytest.mark.parametrize("side", [32, 64, 128])
def test_features_do_not_depend_on_batches_threads_or_order(encoder, side):
    pixels = patches(4, side)

    def encode(chosen):
        size = encoder.batch_size
        parts = [encoder.submit(chosen[i : i + size])() for i in range(0, len(chosen), size)]
        return np.concatenate(parts)

    together = encode(pixels)
    np.testing.assert_array_equal(together[::-1], encode(pixels[::-1].copy()))
    np.testing.assert_array_equal(
        together, np.concatenate([encode(pixels[i : i + 1]) for i in range(4)])
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        np.testing.assert_array_equal(together, encode(pixels))
    finally:
        torch.set_num_threads(before)


def test_threads_that_encode_side_by_side_do_not_disturb_each_other(weights):
    encoder = NcnnEncoder(weights, ALL, 4)
    pixels = [patches(2, 64, seed) for seed in range(16)]
    expected = [encoder.encode(one) for one in pixels]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(encoder.encode, pixels), expected, strict=True):
            np.testing.assert_array_equal(found, alone)


def test_a_failure_of_ncnn_is_an_error_that_names_the_other_engine(weights):
    encoder = NcnnEncoder(weights, PLAIN, 1)
    encoder._ends = ("features.99",)
    with pytest.raises(PipelineError, match=r"features\.99 .*--engine torch"):
        encoder.encode(patches(1))


class Recording:
    """An encoder that keeps what it was given until its result is asked for."""

    engine, device_name, batch_size, in_flight, side_by_side = "none", "a GPU", 4, 2, False

    def __init__(self, log, name):
        self.log, self.name = log, name

    def submit(self, pixels):
        self.log.append(self.name)
        return lambda: np.full((len(pixels), 1), self.name, np.float32)


def test_several_devices_take_turns_and_are_counted():
    log = []
    both = RoundRobin([Recording(log, 0), Recording(log, 1)])
    assert (both.device_name, both.in_flight, both.batch_size) == ("2 × a GPU", 4, 4)
    results = [both.submit(patches(3)) for _ in range(5)]
    assert log == [0, 1, 0, 1, 0]
    assert [result()[0, 0] for result in results] == log


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batches_in_flight_keep_their_own_pixels(weights, precision):
    """As on CUDA, where a batch is computed while the next is put together."""
    encoder = TorchEncoder(weights, CPU, precision, PLAIN)
    batches = [patches(n, side, n) for n, side in ((2, 32), (1, 32), (2, 64), (2, 32))]
    expected = [encoder.encode(batch) for batch in batches]
    shared = [batch.copy() for batch in batches]
    waiting = [encoder.submit(batch) for batch in shared]
    for batch in shared:
        batch[:] = 0
    for result, alone in zip(waiting, expected, strict=True):
        np.testing.assert_array_equal(result(), alone)


def test_half_precision_is_near_single_precision(weights):
    pixels = patches(2)
    exact = TorchEncoder(weights, CPU, "float32", ALL).encode(pixels)
    rounded = TorchEncoder(weights, CPU, "bfloat16", ALL).encode(pixels)
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_the_engine_is_in_the_provenance_and_not_in_the_fingerprint(tmp_path, weights_file):
    """Stored as float16, features of the engines are equal but for the last bit of a few."""
    write_study(tmp_path, images=3)
    found = {}
    for engine in ("ncnn", "torch"):
        out = tmp_path / f"{engine}.h5"
        options = ExtractOptions(PatchOptions(32, 32), "cpu", engine, threads=2)
        extract(tmp_path / "manifest.csv", weights_file, out, options)
        with FeatureCache(out) as cache:
            assert cache.provenance["engine"].startswith(f"{engine} ")
            found[engine] = cache.load(), cache.fingerprint
    assert found["ncnn"][1] == found["torch"][1]
    ncnn, torchs = (features.astype(np.float32) for features, _ in found.values())
    np.testing.assert_allclose(ncnn, torchs, rtol=2**-10, atol=1e-5 * np.abs(torchs).max())


def test_without_ncnn_torch_encodes_and_says_so(tmp_path, weights_file, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with caplog.at_level("INFO"):
        assert choose_backend("cpu").engine == "torch"
    assert "ncnn is not installed: torch encodes" in caplog.text
    with pytest.raises(UsageError, match="pip install ncnn"):
        choose_engine("ncnn", CPU)
    write_study(tmp_path, images=2)
    extract(
        tmp_path / "manifest.csv",
        weights_file,
        tmp_path / "f.h5",
        ExtractOptions(PatchOptions(32, 32), "cpu", threads=1),
    )
    with FeatureCache(tmp_path / "f.h5") as cache:
        assert cache.provenance["engine"].startswith("torch ")


def test_the_engine_can_be_chosen_on_the_command_line(tmp_path, weights_file):
    write_study(tmp_path, images=2)
    words = ["extract", "--manifest", tmp_path / "manifest.csv", "--weights", weights_file]
    words += ["--out", tmp_path / "f.h5", "--engine", "torch", "--patch-size", "32"]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    with FeatureCache(tmp_path / "f.h5") as cache:
        assert cache.provenance["engine"].startswith("torch ")


class TestDevices:
    @pytest.fixture
    def two_gpus(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("auto", "01"), ("cuda", "01"), ("cuda:1", "1"), ("cuda:1,cuda:0", "10"), ("cpu", "")],
    )
    def test_gpus_are_all_or_those_named(self, two_gpus, name, expected):
        devices = choose_devices(name)
        assert list(map(str, devices)) == ([f"cuda:{n}" for n in expected] or ["cpu"])
        backend = choose_backend(name)
        on_cpu = name == "cpu"
        assert backend.engine == ("ncnn" if on_cpu else "torch")
        assert backend.precision == ("float32" if on_cpu else "float16")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("cuda:2", "there are 2 CUDA devices, counted from 0"),
            ("cuda:0,cuda:7", "there are 2 CUDA devices"),
            *((name, "expected auto, cpu, cuda") for name in ("tpu9", "", "cuda:0,cuda:0")),
            *((name, "expected auto, cpu, cuda") for name in ("cpu,cuda:0", "cuda:", "cuda:1234")),
        ],
    )
    def test_what_there_is_not_is_refused(self, two_gpus, name, message):
        with pytest.raises(UsageError, match=message):
            choose_devices(name)

    def test_ncnn_on_a_gpu_is_refused(self, two_gpus):
        with pytest.raises(UsageError, match="use --engine torch"):
            choose_backend("cuda", engine="ncnn")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("name", ["cuda", "cuda:0"])
    def test_without_a_gpu_one_is_refused_and_auto_takes_the_cpu(self, name):
        assert choose_devices("auto") == (CPU,)
        with pytest.raises(UsageError, match="no CUDA device"):
            choose_devices(name)

    def test_precisions_and_engines_that_there_are_not_are_refused(self):
        with pytest.raises(UsageError, match="float32"):
            choose_precision("float16", CPU)
        with pytest.raises(UsageError, match="auto, float32, float16, bfloat16"):
            choose_precision("float8", torch.device("cuda"))
        with pytest.raises(UsageError, match="expected auto, ncnn, torch"):
            choose_engine("onnx", CPU)
        assert choose_precision("auto", torch.device("cuda")) == "float16"

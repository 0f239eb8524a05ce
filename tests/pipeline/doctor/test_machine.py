"""The engine, the GPUs and the memory: what is missed or slow is told with advice."""

import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch

from pipeline.doctor import machine
from pipeline.doctor.finding import FAULT, NOTE, OK, Finding
from pipeline.extraction.engines import ncnn_encoder


def test_a_missing_ncnn_is_a_note_that_says_what_it_costs(require, monkeypatch):
    require("ncnn>=1")
    monkeypatch.setattr(ncnn_encoder, "ncnn_version", lambda: None)
    finding = machine.check_engine()
    assert (finding.state, finding.advice) == (NOTE, 'pip install "ncnn>=1"')
    assert "three times as long" in finding.found


def test_an_old_ncnn_is_a_note_with_advice(require, monkeypatch):
    require("ncnn>=3")
    monkeypatch.setattr(ncnn_encoder, "ncnn_version", lambda: "2.0")
    assert machine.check_engine() == Finding(
        "engine", NOTE, "ncnn 2.0, expected ncnn>=3", 'pip install "ncnn>=3"'
    )


def nvidia_smi(monkeypatch, output, code=0):
    """Let NVIDIA's tool be there and answer so, and torch find no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: SimpleNamespace(stdout=output, returncode=code)
    )


def test_no_gpu_is_a_note_that_says_what_it_means(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    finding = machine.check_gpu()
    assert (finding.state, finding.found) == (NOTE, "no CUDA device")
    assert "CPU" in finding.advice


def test_a_tool_that_finds_no_gpu_either_is_no_fault(monkeypatch):
    nvidia_smi(monkeypatch, "No devices were found\n", code=6)
    assert machine.check_gpu().state == NOTE


def test_a_gpu_beside_a_cpu_build_of_torch_is_a_fault_with_the_build_to_install(
    require, monkeypatch
):
    require("torch==2.0")
    nvidia_smi(monkeypatch, "NVIDIA A\nNVIDIA B\n")
    monkeypatch.setattr(torch.version, "cuda", None)
    finding = machine.check_gpu()
    assert finding.state == FAULT
    assert finding.found.startswith("nvidia-smi lists NVIDIA A, NVIDIA B; torch ")
    assert "CPU only" in finding.advice
    assert 'pip install --force-reinstall "torch==2.0"' in finding.advice


def test_a_gpu_that_a_cuda_build_misses_is_a_fault_of_the_driver(monkeypatch):
    nvidia_smi(monkeypatch, "NVIDIA A\n")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = machine.check_gpu()
    assert (finding.state, "CUDA 13.0" in finding.advice) == (FAULT, True)


def test_a_gpu_that_the_user_hides_is_a_note(monkeypatch):
    nvidia_smi(monkeypatch, "NVIDIA A\n")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = machine.check_gpu()
    assert (finding.state, "CUDA_VISIBLE_DEVICES" in finding.advice) == (NOTE, True)


def give_gpus(monkeypatch, problem):
    device = SimpleNamespace(name="NVIDIA A", total_memory=80_000_000_000, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: device)
    monkeypatch.setattr(
        machine, "convolution_problem", lambda device: problem if device.index else ""
    )


def test_each_gpu_is_named_with_its_memory_and_capability(monkeypatch):
    give_gpus(monkeypatch, "")
    finding = machine.check_gpu()
    assert finding.state == OK
    assert finding.found == "; ".join(
        f"cuda:{number} NVIDIA A, 80 GB, compute capability 9.0" for number in range(2)
    )


def test_a_gpu_that_does_not_compute_is_a_fault_that_names_it(monkeypatch):
    give_gpus(monkeypatch, "a small convolution fails (no kernel image)")
    finding = machine.check_gpu()
    assert (finding.state, "--device cpu" in finding.advice) == (FAULT, True)
    assert finding.found.endswith("9.0, a small convolution fails (no kernel image)")
    assert finding.found.count("no kernel image") == 1


@pytest.mark.parametrize(
    ("text", "state", "found"),
    [
        ("MemTotal: 8000000 kB\nMemAvailable:   4000000 kB\n", OK, "4.1 of 8.2 GB available"),
        ("MemTotal: 8000000 kB\nMemAvailable:   1000000 kB\n", NOTE, "1.0 of 8.2 GB available, "),
        ("nothing of use", OK, "not told by this system"),
        (None, OK, "not told by this system"),
    ],
)
def test_little_memory_is_a_note_and_a_system_that_does_not_tell_is_none(
    tmp_path, monkeypatch, text, state, found
):
    file = tmp_path / "meminfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(machine, "_MEMINFO", file)
    finding = machine.check_memory()
    assert (finding.state, bool(finding.advice)) == (state, state == NOTE)
    assert finding.found.startswith(found)

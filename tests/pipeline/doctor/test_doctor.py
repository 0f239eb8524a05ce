"""The doctor: each fault is told with advice, and nothing that is broken stops it."""

import errno
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from pipeline import torchvision_shim
from pipeline.doctor import (
    checks,
    folders,
    machine,
    packages,
    requirements,
    torch_packages,
    weights,
)
from pipeline.doctor.checks import examine
from pipeline.doctor.command import doctor
from pipeline.doctor.finding import FAULT, NOTE, OK, Finding, to_json, to_text
from pipeline.errors import PipelineError
from pipeline.extraction.engines import ncnn_encoder
from pipeline.weights import sources, weights_file
from pipeline.weights.weights_file import publish_weights, random_weights

NAMES = [
    *("Python", "project", "torch", "torchvision", "packages", "Snakemake", "CPU", "engine"),
    *("GPU", "memory", "weights", "disk", "file system", "temporary folder", "app"),
]


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """The user's cached weights, in a folder of the test's own; there are none."""
    path = tmp_path / "user" / "w.safetensors"
    monkeypatch.setattr(sources, "cached_file", lambda: path)
    return path


def require(monkeypatch, *lines):
    """Let the project require this, whatever a clone says."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(lines))
    monkeypatch.setattr(requirements, "_ROOT", Path("/nowhere"))


def refuse(number=errno.EROFS):
    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fails


def look_at(folder):
    return {finding.name: finding for finding in examine(folder)}


def test_an_examination_looks_at_everything_and_leaves_nothing_behind(tmp_path):
    found = look_at(tmp_path)
    assert list(found) == NAMES
    assert {finding.state for finding in found.values()} <= {OK, NOTE, FAULT}
    for name in ("Python", "torch", "torchvision", "disk", "file system", "temporary folder"):
        assert found[name].state == OK, found[name]
    assert all(finding.advice for finding in found.values() if finding.state == FAULT)
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_fails_stops_the_examination(tmp_path, monkeypatch):
    for name in [name for name in vars(checks) if name.startswith("check_")]:
        monkeypatch.setattr(checks, name, lambda *folder: 1 / 0)
    findings = examine(tmp_path)
    assert [finding.name for finding in findings] == NAMES
    for finding in findings:
        assert (finding.state, finding.found) == (FAULT, "ZeroDivisionError: division by zero")
        assert "report it" in finding.advice


def test_a_missing_torch_is_a_fault_with_advice_and_the_rest_is_still_looked_at(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = look_at(tmp_path)
    assert (found["torch"].state, found["GPU"].state) == (FAULT, FAULT)
    assert "pip install -e" in found["torch"].advice
    assert found["disk"].state == OK


def test_an_old_python_is_a_fault_with_advice(monkeypatch):
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.10.9")
    finding = packages.check_python()
    assert (finding.state, finding.found) == (FAULT, "3.10.9, expected >=3.11")
    assert "Python >=3.11" in finding.advice


def test_another_torch_than_the_pinned_one_is_a_fault_with_advice(monkeypatch):
    require(monkeypatch, "torch==1.2.3")
    finding = torch_packages.check_torch()
    assert finding.state == FAULT
    assert finding.found == f"{torch.__version__}, expected torch==1.2.3"
    assert 'pip install "torch==1.2.3"' in finding.advice


def test_a_cpu_build_of_the_pinned_torch_is_the_pinned_torch(monkeypatch):
    require(monkeypatch, f"torch=={torch.__version__.partition('+')[0]}")
    assert torch_packages.check_torch().state == OK


@pytest.mark.parametrize("value", [float("nan"), 26.0])
def test_a_torch_that_computes_wrong_numbers_is_a_fault_with_advice(monkeypatch, value):
    monkeypatch.setattr(
        torch.nn.functional, "conv2d", lambda *arrays: torch.full((1, 4, 6, 6), value)
    )
    finding = torch_packages.check_torch()
    assert finding.state == FAULT
    assert f"gives {value:g}, expected 27" in finding.found
    assert "--force-reinstall" in finding.advice


def test_another_torchvision_than_the_pinned_one_is_a_fault_with_advice(monkeypatch):
    require(monkeypatch, "torchvision==0.1.0")
    finding = torch_packages.check_torchvision()
    assert (finding.state, finding.advice) == (FAULT, 'pip install "torchvision==0.1.0"')


def test_a_torchvision_that_does_not_import_is_a_fault_with_the_pinned_release(monkeypatch):
    def fails():
        raise PipelineError("torchvision cannot be imported (why)")

    require(monkeypatch, "torchvision==0.1.0")
    monkeypatch.setattr(torchvision_shim, "import_torchvision", fails)
    finding = torch_packages.check_torchvision()
    assert (finding.state, finding.found) == (FAULT, "torchvision cannot be imported (why)")
    assert finding.advice == 'pip install --force-reinstall "torchvision==0.1.0"'


def test_packages_that_are_old_or_missing_are_one_fault_with_the_command_that_mends_it(monkeypatch):
    require(monkeypatch, "click>=99", "not-there-at-all>=2", "numpy>=1", 'other; extra == "dev"')
    finding = packages.check_packages()
    assert finding.state == FAULT
    assert ", expected click>=99; not-there-at-all is not installed" in finding.found
    assert "numpy" not in finding.found
    assert finding.advice == 'pip install "click>=99" "not-there-at-all>=2"'


def test_an_old_snakemake_is_a_fault_with_advice(monkeypatch):
    require(monkeypatch, "snakemake<100,>=99")
    finding = packages.check_snakemake()
    assert (finding.state, finding.advice) == (FAULT, 'pip install "snakemake<100,>=99"')


def clone(folder, monkeypatch, dependencies, name="patch-feature-pipeline"):
    text = f"[project]\nname = '{name}'\ndependencies = {dependencies}\n"
    (folder / "pyproject.toml").write_text(text)
    monkeypatch.setattr(requirements, "_ROOT", folder)


def test_a_clone_that_asks_for_more_than_when_it_was_installed_is_noted_and_believed(
    tmp_path, monkeypatch
):
    require(monkeypatch, "numpy>=1")
    clone(tmp_path, monkeypatch, ["numpy >= 1", "not-there-at-all"])
    finding = packages.check_project()
    assert (finding.state, finding.advice) == (NOTE, f'pip install -e "{tmp_path}"')
    assert finding.found.endswith(": not-there-at-all")
    assert packages.check_packages().advice == 'pip install "not-there-at-all"'


@pytest.mark.parametrize("text", ["", "[project", "[project]\nname = 'another'\n"])
def test_a_pyproject_of_something_else_is_not_looked_into(tmp_path, monkeypatch, text):
    require(monkeypatch, "numpy>=1")
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(requirements, "_ROOT", tmp_path)
    assert packages.check_project().state == OK


def test_a_project_that_is_not_installed_is_a_fault_with_advice(monkeypatch):
    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    for name in ("requires", "version", "metadata"):
        monkeypatch.setattr(importlib.metadata, name, unknown)
    finding = packages.check_project()
    assert (finding.state, finding.advice) == (FAULT, f'pip install -e "{requirements._ROOT}"')
    assert packages.check_python().state == OK


def test_a_missing_ncnn_is_a_note_that_says_what_it_costs(monkeypatch):
    require(monkeypatch, "ncnn>=1")
    monkeypatch.setattr(ncnn_encoder, "ncnn_version", lambda: None)
    finding = machine.check_engine()
    assert (finding.state, finding.advice) == (NOTE, 'pip install "ncnn>=1"')
    assert "three times as long" in finding.found


def test_an_old_ncnn_is_a_note_with_advice(monkeypatch):
    require(monkeypatch, "ncnn>=3")
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


def test_a_gpu_beside_a_cpu_build_of_torch_is_a_fault_with_the_build_to_install(monkeypatch):
    require(monkeypatch, "torch==2.0")
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


def test_missing_weights_are_a_note_that_says_how_to_get_them_and_nothing_is_fetched(
    cached, monkeypatch
):
    monkeypatch.setattr(sources, "SOURCES", ())
    finding = weights.check_weights()
    assert (finding.state, str(cached.parent) in finding.found) == (NOTE, True)
    assert "pipeline weights --out vgg16.safetensors" in finding.advice
    assert "--from FILE" in finding.advice
    assert not cached.parent.exists()


@pytest.fixture
def small(monkeypatch):
    """Weights of a small network."""
    shapes = {"features.0.weight": (2, 3, 3, 3), "features.0.bias": (2,)}
    monkeypatch.setattr(weights_file, "LAYERS", shapes)
    return random_weights(1)


def test_cached_weights_are_believed_by_their_content(cached, monkeypatch, small):
    publish_weights(small, cached)
    finding = weights.check_weights()
    assert finding.state == NOTE
    assert "other weights (random(seed=1)), expected those of ImageNet" in finding.found
    monkeypatch.setattr(weights_file, "IMAGENET_ARRAYS_SHA256", small.sha256)
    assert weights.check_weights().state == OK


def test_damaged_cached_weights_are_a_note_with_advice(cached, monkeypatch, small):
    publish_weights(small, cached)
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.write_bytes(content)
    finding = weights.check_weights()
    assert (finding.state, "damaged" in finding.found) == (NOTE, True)
    assert "pipeline weights" in finding.advice


def let_free(monkeypatch, size):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=size))


@pytest.mark.parametrize(
    ("size", "state"), [(10e9, OK), (5e9, OK), (4.9e9, NOTE), (0.5e9, NOTE), (0.4e9, FAULT)]
)
def test_a_disk_is_noted_below_5_gb_and_a_fault_below_half_a_gb(tmp_path, monkeypatch, size, state):
    let_free(monkeypatch, size)
    for finding in (folders.check_disk(tmp_path), folders.check_temporary_folder()):
        assert finding.state == state
        assert finding.advice.startswith("free space" if state != OK else "")
        assert f"{size / 1e9:.1f} GB free" in finding.found


def test_a_full_disk_is_a_fault_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse(errno.ENOSPC))
    finding = folders.check_disk(tmp_path)
    assert (finding.state, "No space left on device" in finding.found) == (FAULT, True)
    assert finding.advice.startswith("free space")


def test_a_read_only_folder_is_a_fault_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse())
    finding = folders.check_disk(tmp_path)
    assert finding.state == FAULT
    assert finding.found == f"{tmp_path}: cannot be written (Read-only file system)"
    assert "permissions" in finding.advice
    assert "TMPDIR" in folders.check_temporary_folder().advice


def test_a_folder_that_is_not_there_is_one_fault(tmp_path):
    assert folders.check_disk(tmp_path / "none").state == FAULT
    assert folders.check_file_system(tmp_path / "none").state == NOTE


def test_no_temporary_folder_at_all_is_a_fault_with_advice(monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    finding = folders.check_temporary_folder()
    assert (finding.state, "TMPDIR" in finding.advice) == (FAULT, True)


@pytest.mark.parametrize(("module", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_file_system_that_cannot_publish_is_a_fault_and_nothing_is_left(
    tmp_path, monkeypatch, module, name
):
    monkeypatch.setattr(module, name, refuse(errno.EINVAL))
    finding = folders.check_file_system(tmp_path)
    assert (finding.state, "Invalid argument" in finding.found) == (FAULT, True)
    assert "another file system" in finding.advice
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links_and_locks_is_a_note_that_says_what_it_costs(
    tmp_path, monkeypatch
):
    import fcntl

    monkeypatch.setattr(Path, "hardlink_to", refuse(errno.EPERM))
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    finding = folders.check_file_system(tmp_path)
    assert finding.state == NOTE
    assert "not linked (Operation not permitted) or locked (No locks" in finding.found
    assert "shards" in finding.advice
    assert "two extractions" in finding.advice
    assert list(tmp_path.iterdir()) == []


def test_an_app_without_its_packages_is_a_note_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setattr(requirements, "_ROOT", Path("/nowhere"))
    finding = packages.check_app()
    assert (finding.state, finding.found.startswith("starlette ")) == (NOTE, True)
    assert finding.advice == 'pip install "patch-feature-pipeline[app]"'


MIXED = [
    Finding("one", OK, "1.0"),
    Finding("two", NOTE, "slow", "buy a faster one"),
    Finding("three", FAULT, "broken, " * 30, "mend it"),
]


def test_the_text_is_an_aligned_table_then_the_advice_then_the_number_of_faults():
    lines = to_text(MIXED).splitlines()
    assert lines[0].split() == ["check", "state", "found"]
    assert [line.index(word) for line, word in zip(lines[2:4], ["1.0", "slow"], strict=True)] == [
        lines[0].index("found")
    ] * 2
    assert max(map(len, lines)) <= 100
    assert lines[-4:] == ["note, two: buy a faster one", "fault, three: mend it", "", "1 fault."]
    assert to_text([*MIXED, MIXED[2]]).endswith("\n\n2 faults.")
    assert to_text(MIXED[:2]).endswith("\n\nAll is well.")


def test_a_missing_tabulate_is_told_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tabulate", None)
    assert to_text(MIXED[:1]) == "one  ok  1.0\n\nAll is well."


def test_the_json_is_a_list_of_objects():
    assert json.loads(to_json(MIXED[1:2])) == [
        {"name": "two", "state": "note", "found": "slow", "advice": "buy a faster one"}
    ]


def test_what_an_error_says_is_shown_on_one_line_without_control_characters(tmp_path, monkeypatch):
    def fails():
        raise ValueError("first\n\x1b[2Jsecond" + "x" * 1000)

    monkeypatch.setattr(checks, "check_cpu", fails)
    found = look_at(tmp_path)["CPU"].found
    assert found.startswith(r"ValueError: first \x1b[2Jsecondxxx")
    assert len(found) == 400


@pytest.mark.parametrize(("state", "code"), [(OK, 0), (NOTE, 0), (FAULT, 1)])
def test_the_exit_code_is_1_with_a_fault_and_0_without(monkeypatch, state, code):
    monkeypatch.setattr(checks, "examine", lambda folder: [Finding("one", state, str(folder))])
    result = CliRunner().invoke(doctor, ["--folder", "here", "--json"])
    assert result.exit_code == code
    assert json.loads(result.stdout)[0]["found"] == "here"
    assert CliRunner().invoke(doctor, []).stdout.splitlines()[2].split() == ["one", state, "."]


def test_the_verb_starts_without_anything_heavy():
    code = "import sys; import pipeline.doctor.command, pipeline.completion; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "h5py", "tabulate", "packaging", "pipeline.doctor.checks", "cache"}
    assert not heavy & set(found.stdout.split())

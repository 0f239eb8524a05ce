"""CPUs, what encodes on them, GPUs and memory."""

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

from pipeline.doctor.finding import FAULT, NOTE, OK, Finding
from pipeline.doctor.requirements import ANEW, pip_install, required, unmet
from pipeline.doctor.torch_packages import convolution_problem

AMPLE_MEMORY = 2e9
"""Memory that is available, in bytes: a note below."""

_MEMINFO = Path("/proc/meminfo")
_DRIVER_SECONDS = 20.0


def check_cpu() -> Finding:
    """The CPUs that this process may use."""
    from pipeline.ahead import usable_cpus

    return Finding("CPU", OK, f"{usable_cpus()} of {os.cpu_count() or 1} usable")


def check_engine() -> Finding:
    """What encodes on the CPU: ncnn, or torch in its place."""
    from pipeline.extraction.engines.ncnn_encoder import ncnn_version

    version = ncnn_version()
    if version is None:
        found = "no ncnn: on the CPU torch encodes, which takes about three times as long"
        return Finding("engine", NOTE, found, pip_install(required("ncnn")))
    wanted = unmet("ncnn", version)
    if wanted:
        return Finding("engine", NOTE, f"ncnn {version}, expected {wanted}", pip_install(wanted))
    return Finding("engine", OK, f"ncnn {version} on the CPU, torch on CUDA")


def check_gpu() -> Finding:
    """The CUDA devices, and whether torch misses one that the driver sees."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of an old driver, which is told below
        available = torch.cuda.is_available()
    if available:
        return _gpus_of_torch()
    seen = _gpus_of_driver()
    if not seen:
        advice = "images are encoded on the CPU, which takes longer"
        return Finding("GPU", NOTE, "no CUDA device", advice)
    found = f"nvidia-smi lists {', '.join(seen)}; torch {torch.__version__} finds no CUDA device"
    return _missed_gpu(found, torch.version.cuda)


def _gpus_of_torch() -> Finding:
    import torch

    lines, faulty = [], False
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        line = f"cuda:{number} {device.name}, {device.total_memory / 1e9:.0f} GB"
        problem = convolution_problem(torch.device("cuda", number))
        faulty = faulty or bool(problem)
        capability = f"compute capability {device.major}.{device.minor}"
        lines.append(", ".join(filter(None, (line, capability, problem))))
    if faulty:
        advice = "update its driver, free its memory, or use --device cpu"
        return Finding("GPU", FAULT, "; ".join(lines), advice)
    return Finding("GPU", OK, "; ".join(lines))


def _gpus_of_driver() -> list[str]:
    """The names of the GPUs that NVIDIA's own tool lists; none if it is not there or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, capture_output=True, text=True, errors="replace", timeout=_DRIVER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _missed_gpu(found: str, built_for: str | None) -> Finding:
    """Why torch may miss a GPU.

    Args:
        found: what torch and the driver say.
        built_for: the version of CUDA that torch is built for; None for a CPU build.
    """
    if built_for is None:
        command = pip_install(required("torch"), options=ANEW)
        advice = f"this torch is for the CPU only: {command}, from an index that has CUDA builds"
        return Finding("GPU", FAULT, found, advice)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        advice = "CUDA_VISIBLE_DEVICES hides it: unset that, unless it is meant"
        return Finding("GPU", NOTE, found, advice)
    advice = f"update its driver to one for CUDA {built_for}, which this torch is built for"
    return Finding("GPU", FAULT, found, advice)


def check_memory() -> Finding:
    """The memory that is available, where the system tells."""
    told = _MEMINFO.read_text("utf-8") if _MEMINFO.is_file() else ""
    sizes = {name: int(kilobytes) for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", told)}
    if "MemAvailable" not in sizes:
        return Finding("memory", OK, f"not told by this system in {_MEMINFO}")
    available = sizes["MemAvailable"] * 1024
    found = f"{available / 1e9:.1f} of {sizes.get('MemTotal', 0) * 1024 / 1e9:.1f} GB available"
    if available < AMPLE_MEMORY:
        advice = "end other programs, or extract with fewer --threads and smaller patches"
        found = f"{found}, expected {AMPLE_MEMORY / 1e9:g} GB or more"
        return Finding("memory", NOTE, found, advice)
    return Finding("memory", OK, found)

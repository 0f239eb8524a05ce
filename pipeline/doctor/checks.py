"""All checks of an installation. None of them raises."""

from collections.abc import Callable
from pathlib import Path

from pipeline.doctor.finding import FAULT, Finding
from pipeline.doctor.folders import check_disk, check_file_system, check_temporary_folder
from pipeline.doctor.machine import check_cpu, check_engine, check_gpu, check_memory
from pipeline.doctor.packages import (
    check_app,
    check_packages,
    check_project,
    check_python,
    check_snakemake,
)
from pipeline.doctor.requirements import pip_project
from pipeline.doctor.torch_packages import check_torch, check_torchvision
from pipeline.doctor.weights import check_weights

_SHOWN = 400


def examine(folder: Path) -> list[Finding]:
    """Look at everything that the pipeline needs.

    Args:
        folder: for outputs. Its disk is tried with small files, which are removed.

    Returns:
        What each check found. A check that fails unexpectedly is a fault with the error.
    """
    return [_guarded(name, check) for name, check in _checks(folder).items()]


def _checks(folder: Path) -> dict[str, Callable[[], Finding]]:
    return {
        "Python": check_python,
        "project": check_project,
        "torch": check_torch,
        "torchvision": check_torchvision,
        "packages": check_packages,
        "Snakemake": check_snakemake,
        "CPU": check_cpu,
        "engine": check_engine,
        "GPU": check_gpu,
        "memory": check_memory,
        "weights": check_weights,
        "disk": lambda: check_disk(folder),
        "file system": lambda: check_file_system(folder),
        "temporary folder": check_temporary_folder,
        "app": check_app,
    }


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        finding = check()
    except Exception as error:  # noqa: BLE001 - whatever fails here is what is looked for
        finding = Finding(name, FAULT, f"{type(error).__name__}: {error}", _advice_on(error))
    return Finding(*map(_one_line, finding))


def _advice_on(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"install this project again: {pip_project()}"
    if isinstance(error, OSError):
        return "check the file or folder that is named, its permissions and its disk"
    return "this was not expected: mend what the message names, or report it"


def _one_line(text: str) -> str:
    """At most `_SHOWN` characters, those that cannot be shown as escapes."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"

"""Python, this project, and the packages that it requires."""

import importlib
import importlib.metadata
import platform

from pipeline.doctor.finding import FAULT, NOTE, OK, Finding
from pipeline.doctor.requirements import (
    PROJECT,
    in_clone,
    in_metadata,
    parsed,
    pip_install,
    pip_project,
    required,
    requirements,
    unmet,
)

_APART = ("ncnn", "snakemake", "torch", "torchvision")  # packages with a check of their own
_APP_MODULES = ("starlette", "uvicorn")


def check_python() -> Finding:
    """The version of Python."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        expected = importlib.metadata.metadata(PROJECT)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        expected = ">=3.11"
    if SpecifierSet(expected).contains(version, prereleases=True):
        return Finding("Python", OK, f"{version}, {platform.system()} {platform.machine()}")
    advice = f"make the virtual environment with a Python {expected}, and install into that"
    return Finding("Python", FAULT, f"{version}, expected {expected}", advice)


def check_project() -> Finding:
    """That this project is installed, with what it requires today."""
    try:
        version = importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        found = f"{PROJECT} is not installed, so it is not known what it requires"
        return Finding("project", FAULT, found, pip_project())
    changed = set(parsed(in_clone()).items()) - set(parsed(in_metadata()).items())
    if changed:
        names = ", ".join(sorted(name for name, _ in changed))
        found = f"{version}, installed before pyproject.toml asked for what it does now: {names}"
        return Finding("project", NOTE, found, pip_project())
    return Finding("project", OK, version)


def check_packages() -> Finding:
    """The other packages that are required, but those with a check of their own."""
    names = [name for name in requirements() if name not in _APART]
    problems = {name: problem for name in names if (problem := _package_problem(name))}
    if problems:
        wanted = [required(name) for name in problems]
        return Finding("packages", FAULT, "; ".join(problems.values()), pip_install(*wanted))
    found = f"{len(names)} of {len(names)} others as required" if names else "none is known of"
    return Finding("packages", OK, found)


def _package_problem(name: str) -> str:
    """What is wrong with a package, by its metadata; empty if nothing is."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed, expected {required(name)}"
    wanted = unmet(name, version)
    return f"{name} is {version}, expected {wanted}" if wanted else ""


def check_snakemake() -> Finding:
    """The version of Snakemake, which runs the workflow."""
    problem = _package_problem("snakemake")
    if problem:
        return Finding("Snakemake", FAULT, problem, pip_install(required("snakemake")))
    return Finding("Snakemake", OK, importlib.metadata.version("snakemake"))


def check_app() -> Finding:
    """Whether the optional app can be started."""
    missing = []
    for name in _APP_MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        found = f"{' and '.join(missing)} cannot be imported: only the app needs them"
        return Finding("app", NOTE, found, pip_project("[app]"))
    return Finding("app", OK, f"{' and '.join(_APP_MODULES)} can be imported")

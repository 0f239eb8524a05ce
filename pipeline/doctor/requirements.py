"""What this project requires, and the commands that install it."""

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it may be missing, which a check then tells
    from packaging.requirements import Requirement

PROJECT = "patch-feature-pipeline"
ANEW = "--force-reinstall"
"""For pip, which would leave a package whose version is the required one."""

_ROOT = Path(__file__).resolve().parents[2]


def requirements() -> "dict[str, Requirement]":
    """What this project requires, by name; in a clone, as it is there now."""
    return parsed([*in_metadata(), *in_clone()])


def in_metadata() -> list[str]:
    """What was required when this project was installed; nothing if it is not."""
    try:
        return importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def in_clone() -> list[str]:
    """What the pyproject.toml of a clone requires; nothing where there is no clone."""
    try:
        import tomllib

        project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        return list(project["dependencies"]) if project["name"] == PROJECT else []
    except (ImportError, OSError, ValueError, KeyError):  # no clone, or none that tells
        return []


def parsed(lines: list[str]) -> "dict[str, Requirement]":
    """Requirements by name, the later of two; without those of the extras."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(requirement.name): requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def required(name: str) -> str:
    """The requirement of a package, as pip takes it."""
    requirement = requirements().get(name)
    return f"{name}{requirement.specifier}" if requirement else name


def unmet(name: str, version: str) -> str:
    """The requirement that a version does not meet, as pip takes it; empty if it meets it."""
    requirement = requirements().get(name)
    if requirement is None or requirement.specifier.contains(version, prereleases=True):
        return ""
    return required(name)


def pip_install(*requirements: str, options: str = "") -> str:
    """The command that installs requirements."""
    words = ["pip install", options, *(f'"{requirement}"' for requirement in requirements)]
    return " ".join(filter(None, words))


def pip_project(extra: str = "") -> str:
    """The command that installs this project, from the clone if this is one."""
    if in_clone():
        return f'pip install -e "{_ROOT}{extra}"'
    return f'pip install "{PROJECT}{extra}"'

"""Python, the project and its packages: what differs from the requirement is told with advice."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from pipeline.doctor import packages, requirements
from pipeline.doctor.finding import FAULT, NOTE, OK


def test_an_old_python_is_a_fault_with_advice(monkeypatch):
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.10.9")
    finding = packages.check_python()
    assert (finding.state, finding.found) == (FAULT, "3.10.9, expected >=3.11")
    assert "Python >=3.11" in finding.advice


def test_packages_that_are_old_or_missing_are_one_fault_with_the_command_that_mends_it(require):
    require("click>=99", "not-there-at-all>=2", "numpy>=1", 'other; extra == "dev"')
    finding = packages.check_packages()
    assert finding.state == FAULT
    assert ", expected click>=99; not-there-at-all is not installed" in finding.found
    assert "numpy" not in finding.found
    assert finding.advice == 'pip install "click>=99" "not-there-at-all>=2"'


def test_an_old_snakemake_is_a_fault_with_advice(require):
    require("snakemake<100,>=99")
    finding = packages.check_snakemake()
    assert (finding.state, finding.advice) == (FAULT, 'pip install "snakemake<100,>=99"')


def clone(folder, monkeypatch, dependencies, name="patch-feature-pipeline"):
    text = f"[project]\nname = '{name}'\ndependencies = {dependencies}\n"
    (folder / "pyproject.toml").write_text(text)
    monkeypatch.setattr(requirements, "_ROOT", folder)


def test_a_clone_that_asks_for_more_than_when_it_was_installed_is_noted_and_believed(
    tmp_path, monkeypatch, require
):
    require("numpy>=1")
    clone(tmp_path, monkeypatch, ["numpy >= 1", "not-there-at-all"])
    finding = packages.check_project()
    assert (finding.state, finding.advice) == (NOTE, f'pip install -e "{tmp_path}"')
    assert finding.found.endswith(": not-there-at-all")
    assert packages.check_packages().advice == 'pip install "not-there-at-all"'


@pytest.mark.parametrize("text", ["", "[project", "[project]\nname = 'another'\n"])
def test_a_pyproject_of_something_else_is_not_looked_into(tmp_path, monkeypatch, require, text):
    require("numpy>=1")
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


def test_an_app_without_its_packages_is_a_note_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setattr(requirements, "_ROOT", Path("/nowhere"))
    finding = packages.check_app()
    assert (finding.state, finding.found.startswith("starlette ")) == (NOTE, True)
    assert finding.advice == 'pip install "patch-feature-pipeline[app]"'

"""What the tests of the doctor share."""

import importlib.metadata
from pathlib import Path

import pytest

from pipeline.doctor import requirements
from pipeline.weights import sources


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """The user's cached weights, in a folder of the test's own; there are none."""
    path = tmp_path / "user" / "w.safetensors"
    monkeypatch.setattr(sources, "cached_file", lambda: path)
    return path


@pytest.fixture
def require(monkeypatch):
    """Let the project require these lines, whatever a clone says."""

    def requires(*lines):
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(lines))
        monkeypatch.setattr(requirements, "_ROOT", Path("/nowhere"))

    return requires

"""The verb: its exit code, and that it starts at once."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.doctor import checks
from pipeline.doctor.command import doctor
from pipeline.doctor.finding import FAULT, NOTE, OK, Finding


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

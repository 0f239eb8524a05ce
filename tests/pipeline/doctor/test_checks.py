"""The examination: it looks at everything, and nothing that is broken stops it."""

import sys

from pipeline.doctor import checks
from pipeline.doctor.checks import examine
from pipeline.doctor.finding import FAULT, NOTE, OK

NAMES = [
    *("Python", "project", "torch", "torchvision", "packages", "Snakemake", "CPU", "engine"),
    *("GPU", "memory", "weights", "disk", "file system", "temporary folder", "app"),
]


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


def test_what_an_error_says_is_shown_on_one_line_without_control_characters(tmp_path, monkeypatch):
    def fails():
        raise ValueError("first\n\x1b[2Jsecond" + "x" * 1000)

    monkeypatch.setattr(checks, "check_cpu", fails)
    found = look_at(tmp_path)["CPU"].found
    assert found.startswith(r"ValueError: first \x1b[2Jsecondxxx")
    assert len(found) == 400

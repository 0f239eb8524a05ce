"""Disks and file systems: what cannot be written or published is told, and nothing is left."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.doctor import folders
from pipeline.doctor.finding import FAULT, NOTE, OK


def refuse(number=errno.EROFS):
    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fails


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

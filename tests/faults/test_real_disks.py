"""Disks that are really full, really read-only or really gone; images that change meanwhile."""

import csv
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fault_extractions import IMAGES, SHARD_PATCHES, faults_of_text, write_small_study
from fault_runs import Action, Fault

pytestmark = pytest.mark.slow


def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def tmpfs(tmp_path):
    """Mounts a small disk, or skips the test by name."""
    folder = tmp_path / "disk"

    @contextmanager
    def mounted(size):
        folder.mkdir()
        try:
            mount("-t", "tmpfs", "-o", f"size={size}", "small-disk", folder)
        except (subprocess.CalledProcessError, FileNotFoundError):
            pytest.skip("mounting a tmpfs is not permitted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)

    return mounted


def assert_told(outcome, *words):
    """A run that could not do its work: one message, exit code 1, nothing else."""
    assert outcome.code == 1, outcome.text
    assert faults_of_text(outcome) == []
    errors = [line for line in outcome.text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.text
    assert "internal fault" not in errors[0]
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize("size", ["36k", "90k", "130k", "170k"])
def test_a_full_disk_is_told_and_what_was_done_is_used_when_it_is_larger(extraction, tmpfs, size):
    with tmpfs(size) as disk:
        failed = extraction.run(disk / "run")
        assert_told(failed, "features.h5", "No space left on device")
        assert extraction.faults_of_output(disk / "run") == []
        mount("-o", "remount,size=10m", disk)
        resumed = extraction.run(disk / "run")
        assert extraction.faults_of_end(disk / "run", resumed) == []
        assert failed.patches + resumed.patches - extraction.patches <= SHARD_PATCHES + 2


def test_a_read_only_disk_is_told_and_work_goes_on_when_it_is_writable(extraction, tmpfs):
    with tmpfs("10m") as disk:
        killed = extraction.run(disk / "run", Fault(Action.KILL_AFTER, len(extraction.trace) // 2))
        mount("-o", "remount,ro", disk)
        assert_told(extraction.run(disk / "run"), "features.h5", "Read-only file system")
        mount("-o", "remount,rw", disk)
        resumed = extraction.run(disk / "run")
        assert extraction.faults_of_end(disk / "run", resumed) == []
        assert killed.patches + resumed.patches - extraction.patches <= SHARD_PATCHES + 2


@pytest.mark.parametrize("shards", [1, 3, 5])
def test_a_folder_that_vanishes_during_the_run_is_told(extraction, tmp_path, shards):
    folder = tmp_path / "run"
    with extraction.running(folder, shards) as run:
        (folder / "out").rename(tmp_path / "gone")
    assert_told(run.result(), "features.h5")
    assert extraction.faults_of_output(folder) == []
    assert extraction.faults_of_end(folder, extraction.run(folder)) == []


def test_a_folder_that_is_deleted_during_the_run_is_told(extraction, tmp_path):
    folder = tmp_path / "run"
    with extraction.running(folder, shards=3) as run:
        shutil.rmtree(folder / "out", ignore_errors=True)
    assert_told(run.result(), "features.h5")
    assert extraction.faults_of_output(folder) == []
    assert extraction.faults_of_end(folder, extraction.run(folder)) == []


def test_images_replaced_or_deleted_during_the_run_are_listed_and_the_others_kept(
    extraction, tmp_path
):
    manifest = write_small_study(tmp_path / "study")
    private, folder = replace(extraction, manifest=manifest), tmp_path / "run"
    replaced, deleted = manifest.with_name("image14.png"), manifest.with_name("image16.png")
    kept = {path: path.read_bytes() for path in (replaced, deleted)}
    with private.running(folder, shards=2) as run:
        shutil.copyfile(manifest.with_name("image00.png"), replaced)
        deleted.unlink()
    failed = run.result()
    assert_told(failed, f"2 of {IMAGES} images")
    with (folder / "out/features.failures.csv").open(newline="") as listing:
        assert [row["image_id"] for row in csv.DictReader(listing)] == ["image14", "image16"]
    assert not extraction.output(folder).exists()
    for path, data in kept.items():
        path.write_bytes(data)
    resumed = private.run(folder)
    assert extraction.faults_of_end(folder, resumed) == []
    assert failed.patches + resumed.patches == extraction.patches

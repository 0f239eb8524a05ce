"""Two extractions on one output: the second is refused at once, and a dead one hinders nobody."""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys

import pytest

from cache import PublishError
from pipeline.errors import PipelineError
from pipeline.extraction.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from pipeline.extraction.lock import locked
with locked(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "f.h5"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "f.h5.shards"


@pytest.fixture
def holder(out, folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, out, folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_with_process_and_host_of_the_first(out, folder, holder):
    with pytest.raises(PipelineError) as raised, locked(out, folder):
        pass
    message = str(raised.value)
    assert f"{out}: is being written by process {holder.pid} on {socket.gethostname()}" in message
    assert "choose another --out" in message


def test_a_lock_left_by_a_killed_process_is_named_and_taken_over(out, folder, holder, caplog):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (folder / "lock").exists()
    with caplog.at_level(logging.WARNING), locked(out, folder):
        assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()
    assert f"left by process {holder.pid} on {socket.gethostname()}" in caplog.text
    assert not folder.exists()


def test_the_lock_is_given_back_even_after_an_error(out, folder, caplog):
    with pytest.raises(ZeroDivisionError), locked(out, folder):
        raise ZeroDivisionError
    assert not folder.exists(), "an empty folder is left"
    with caplog.at_level(logging.WARNING), locked(out, folder):
        pass
    assert caplog.text == ""


def test_a_lock_removed_while_one_waited_for_it_is_not_held(out, folder, monkeypatch):
    """Its last holder removes the file between another's opening and locking of it."""
    real, removed = fcntl.flock, []

    def flock(handle, operation):
        real(handle, operation)
        if not removed:
            (folder / "lock").unlink()
            removed.append(handle)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(out, folder):
        assert (folder / "lock").exists()
    assert removed


@pytest.mark.parametrize("text", ["", "[]", "{}", "not JSON", '{"pid": 1}', "\udcff"])
def test_an_unreadable_signature_hinders_nobody(out, folder, text):
    folder.mkdir()
    (folder / "lock").write_bytes(text.encode("utf-8", "surrogateescape"))
    with locked(out, folder):
        pass


def test_a_file_system_without_locks_is_told(out, folder, monkeypatch, caplog):
    def refuse(handle, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), locked(out, folder):
        pass
    assert "no locks (Function not implemented)" in caplog.text


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_output(tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file/f.h5"
    refusal = pytest.raises(PublishError, match=r"file/f\.h5: cannot be written")
    with refusal, locked(out, tmp_path / "file/f.h5.shards"):
        pass

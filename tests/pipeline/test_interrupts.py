"""A signal stops the work where stopping is safe; a second one stops it at once."""

import signal
import subprocess
import sys
import threading

import pytest

from pipeline.interrupts import watch_signals

SLOW = """
import os, sys, time
from pipeline.interrupts import watch_signals
with watch_signals("stopping soon") as interruption:
    print("ready", flush=True)
    while not interruption or sys.argv[1] == "stubborn":
        time.sleep(0.01)
    error = interruption.error("half is done")
print(error, flush=True)
sys.exit(error.exit_code)
"""


def start(kind="polite", **arguments) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **arguments,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_is_looked_at_and_gives_the_usual_exit_code(name):
    process = start()
    process.send_signal(signal.Signals[name])
    said, told = process.communicate(timeout=60)
    assert said == f"stopped by {name}: half is done\n"
    assert "once more to stop at once" in told
    assert process.returncode == 128 + signal.Signals[name]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_second_ends_the_process_at_once(name):
    process = start("stubborn")
    process.send_signal(signal.Signals[name])
    assert "stopping" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.Signals[name])
    process.communicate(timeout=60)
    assert process.returncode == -signal.Signals[name]


def test_a_reader_of_messages_that_has_gone_disturbs_nothing():
    """Ctrl-C at a terminal ends `tee`, which the workflow's jobs write to, as well."""
    process = start()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    with process.stdout as said:
        assert said.read() == "stopped by SIGINT: half is done\n"
    assert process.wait(timeout=60) == 128 + signal.SIGINT


def test_an_ignored_signal_stays_ignored():
    """As SIGHUP is under nohup."""
    process = start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_handlers_are_put_back_if_no_signal_came():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with watch_signals("stopping soon") as interruption:
        assert not interruption
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_of_the_main_thread_nothing_is_caught():
    seen = []

    def work():
        with watch_signals("stopping soon") as interruption:
            seen.append(bool(interruption))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]

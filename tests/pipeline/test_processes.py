"""Processes side by side: results in order, errors told, nobody left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.errors import PipelineError, UsageError
from pipeline.processes import side_by_side

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_results_come_in_order_whoever_is_first(workers, count):
    def work(number):
        time.sleep(0.02 * (count - number) / count)
        return number * number

    assert list(side_by_side(work, range(count), workers)) == [n * n for n in range(count)]


@linux
def test_work_is_done_in_other_processes_that_see_this_ones_memory():
    seen = {"parent": os.getpid()}
    found = list(side_by_side(lambda _: (os.getpid(), seen["parent"]), [0, 1], 2))
    assert all(child != os.getpid() == parent for child, parent in found)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_user_reaches_the_caller_as_it_is(workers):
    def work(number):
        if number == 1:
            raise UsageError("row 1 is wrong")
        return number

    results = side_by_side(work, [0, 1, 2], workers)
    assert next(results) == 0
    with pytest.raises(UsageError, match="row 1 is wrong"):
        list(results)


@linux
def test_a_process_that_is_killed_is_an_error_that_says_why_it_may_be():
    def work(number):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(PipelineError, match="memory runs out"):
        list(side_by_side(work, [0, 1], 2))


ORPHANS = r"""
import os, time
from pipeline.processes import side_by_side
def work(number):
    os.write(1, f"{os.getpid()}\n".encode())  # at once, whoever else writes
    time.sleep(600)
list(side_by_side(work, [0, 1], 2))
"""


@linux
def test_processes_die_with_the_one_that_began_them():
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    try:
        children = [int(parent.stdout.readline()) for _ in range(2)]
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    end = time.monotonic() + 30
    while any(map(alive, children)):
        assert time.monotonic() < end, "a child goes on without its parent"
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

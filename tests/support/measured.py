"""Run a function on many inputs in a process of its own, and say what each one cost.

As a program: `measured.py MODULE FUNCTION`, names on standard input, one JSON object a line out.
"""

import importlib
import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

SECONDS = 5.0
GROWTH = 1 << 30
"""No input may cost more time or more memory, in bytes."""


class Cost(NamedTuple):
    """What one input gave, in words, and cost."""

    outcome: str
    seconds: float
    growth: int


def run_measured(module: str, function: str, names: list[str], *paths: str) -> dict[str, Cost]:
    """Call a function of a test support module with each name, in another process."""
    command = [sys.executable, __file__, module, function, *paths]
    done = subprocess.run(
        command, input="\n".join(names), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: Cost(*cost) for name, cost in map(json.loads, done.stdout.splitlines())}


def memory(field: str) -> int:
    """A figure of this process in bytes: VmRSS now, VmHWM at most since it was reset."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def ring(*_: object) -> None:
    raise TimeoutError(f"not done after {SECONDS} s")


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    call = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    signal.signal(signal.SIGALRM, ring)
    for name in sys.stdin.read().splitlines():
        run = call(name)
        reset_peak()
        before, began = memory("VmRSS"), time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
        outcome = run()
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - began
        print(json.dumps([name, [outcome, seconds, memory("VmHWM") - before]]), flush=True)


if __name__ == "__main__":
    main()

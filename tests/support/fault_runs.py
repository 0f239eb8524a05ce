"""Run `pipeline` with a fault at a chosen file operation, and see what is left."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent


class Action(IntEnum):
    """What happens at the chosen operation; as in faulty_disk.c."""

    WATCH = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    KILL_HALF = 3
    FAIL = 4
    FAIL_HALF = 5
    SIGNAL = 6


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        action: what happens.
        at: the operation it happens at, counted from 1 among those that change the folder.
        again: the operation at which a signal comes a second time.
        value: an errno or a signal number.
        sticky: whether all later operations fail as well.
        trace: a file to write the operations to.
        snapshots: a folder for what each fsync makes durable.
        signals: (seconds after the start, signal), sent from outside.
    """

    action: Action = Action.WATCH
    at: int = 0
    again: int = 0
    value: int = 0
    sticky: bool = False
    trace: str = ""
    snapshots: str = ""
    signals: tuple[tuple[float, int], ...] = ()

    def __str__(self) -> str:
        if self.signals:
            return ", ".join(
                f"signal {number} after {after:.3f} s" for after, number in self.signals
            )
        name = self.action.name.lower().replace("_", " ")
        if self.action is Action.SIGNAL:
            name = f"{signal.Signals(self.value).name}"
        elif self.value:
            name += f" with {os.strerror(self.value)}"
        text = f"{name} at operation {self.at}" + (" and after" if self.sticky else "")
        return text + (f" and {self.again}" if self.again else "")


NO_FAULT = Fault()


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        code: its exit code, negative if a signal ended it.
        process: its process id.
        hung: whether it had to be killed.
        operations: file operations counted.
        patches: patches encoded, if only for nothing.
        text: its standard error.
        output: its standard output.
    """

    code: int
    process: int
    hung: bool
    operations: int
    patches: int
    text: str
    output: str


def compile_library(folder: Path) -> Path:
    """Build the fault library, or skip the test by name."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("fault injection needs Linux and a C compiler (cc)")
    library = folder / "faulty_disk.so"
    source = SUPPORT / "faulty_disk.c"
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source]
    subprocess.run(words, check=True)
    return library


@dataclass
class FaultServer:
    """A process that runs the command line as often as asked, each time in a fork."""

    process: subprocess.Popen

    def ask(self, request: dict) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer(request["timeout"] + 60)

    def _answer(self, seconds: float) -> dict:
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.process.kill()
            raise TimeoutError("the fault server does not answer")
        return json.loads(self.process.stdout.readline())

    def run(
        self,
        words: Sequence[str | Path],
        folder: Path,
        fault: Fault = NO_FAULT,
        images_per_shard: int = 3,
        timeout: float = 60.0,
        seconds_per_batch: float = 0.0,
    ) -> Outcome:
        """Run `pipeline WORDS` in `folder`; faults concern what lies below it."""
        with tempfile.TemporaryDirectory(prefix="said") as said:
            request = {
                "words": [str(word) for word in words],
                "folder": str(folder),
                "fault": {**asdict(fault), "root": str(folder)},
                "signals": fault.signals,
                "faulty": fault != NO_FAULT,
                "stdout": f"{said}/out",
                "stderr": f"{said}/err",
                "images_per_shard": images_per_shard,
                "timeout": timeout,
                "seconds_per_batch": seconds_per_batch,
            }
            for name in ("out", "err"):
                Path(said, name).touch()
            answer = self.ask(request)
            return Outcome(
                **answer,
                text=Path(said, "err").read_text(errors="replace"),
                output=Path(said, "out").read_text(errors="replace"),
            )


@contextmanager
def fault_server(library: Path, weights: Path) -> Iterator[FaultServer]:
    """Start a server, and end it."""
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    words = [sys.executable, SUPPORT / "fault_server.py", weights]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    ) as process:
        server = FaultServer(process)
        server._answer(120)
        yield server
        process.stdin.close()


@dataclass(frozen=True)
class Operation:
    """One line of a trace: an operation that changed the folder, or failed to.

    Attributes:
        number: its place, counted from 1.
        name: `open`, `write`, `truncate`, `fsync`, `rename`, `link`, `unlink`, `mkdir`, `rmdir`.
        result: what it returned; negative if it failed.
        inode: of the file.
        offset: of a write; 1 for an open that truncates.
        length: of a write or truncation, in bytes.
        path: the file, relative to the folder.
        target: the second name of a rename or link.
    """

    number: int
    name: str
    result: int
    inode: int
    offset: int
    length: int
    path: str
    target: str


def read_trace(file: Path, root: Path) -> list[Operation]:
    """The operations of a watched run, in order."""
    operations = []
    for line in file.read_text().splitlines():
        number, name, result, inode, offset, length, *paths = line.split("\t")
        path, target = (os.path.relpath(path, root) if path else "" for path in paths)
        numbers = (int(result), int(inode), int(offset), int(length))
        operations.append(Operation(int(number), name, *numbers, path, target))
    return operations


def phase(operation: Operation) -> str:
    """The part of an extraction that an operation belongs to, by the name of its file."""
    names = f"{operation.path} {operation.target}"
    if ".shards" not in names:
        return "merge"
    return "shard" if "-of-" in names else "tidying"

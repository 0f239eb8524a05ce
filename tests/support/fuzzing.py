"""Feed a reader thousands of damaged files, each from a seed, and count what it does with them.

The reader runs in a process of its own, so that a crash of a library is a result and not an end.
As a program: `fuzzing.py TARGET SEED COUNT FOLDER`; one JSON object on standard output.
"""

import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from measured import GROWTH, SECONDS, memory, reset_peak, ring

Mutation = Callable[[random.Random, bytes], bytes]

NUMBERS = [
    *(b"0", b"-1", b"1e999", b"nan", b"inf", b"-0", b"0x10", b"1_0", b"", b"true", b"null"),
    *(str(n).encode() for n in (2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30)),
    b"9" * 4299,
    b"9" * 5000,
    "١٢".encode(),
]
ODDITIES = [
    *(b"\0", b"\n", b"\r", b"\r\n", b"\x1b[2J", b"\x7f", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf"),
    *(b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80", b"\xf0\x9f"),
    *(text.encode() for text in ("é", "e\u0301", "\u202e", "\u2028", "\u00a0", "\ufeff", "𝟙", "𐏿")),
    *(b"/", b"..", b"../", b"\\", b"%s", b"{}", b"'", b"`", b"=1+1", b" ", b"\t"),
]
TABLE_TOKENS = [b",", b'"', b'""', b'","', b'"\n"', b";", b"\n\n", b",,,,", b"image_id", b"case"]
JSON_TOKENS = [
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b'\\"', b"\\ud800", b"\\u0000", b"[" * 3000),
    *(b"null", b"{}", b'{"a":1}', b"F16", b"I64", b"BOOL", b"F32", b"[0,0]", b"1e5", b"-"),
]


def flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def delete(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 2, 8, 64, 1000)) :]


def duplicate(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    span = data[start : start + rng.choice((1, 8, 64, 1000))]
    return data[:start] + span * rng.choice((2, 2, 3, 50)) + data[start:]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def swap_fields(rng: random.Random, data: bytes) -> bytes:
    fields = re.split(rb"([,\n:])", data)
    if len(fields) > 2:
        i, j = rng.randrange(0, len(fields), 2), rng.randrange(0, len(fields), 2)
        fields[i], fields[j] = fields[j], fields[i]
    return b"".join(fields)


def swap_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def extreme_number(rng: random.Random, data: bytes) -> bytes:
    numbers = list(re.finditer(rb"\d+", data))
    if not numbers:
        return data
    chosen = rng.choice(numbers)
    return data[: chosen.start()] + rng.choice(NUMBERS) + data[chosen.end() :]


def insert(tokens: Sequence[bytes]) -> Mutation:
    def mutation(rng: random.Random, data: bytes) -> bytes:
        at = rng.randrange(len(data))
        return data[:at] + rng.choice(tokens) + data[at + rng.choice((0, 0, 1, 4)) :]

    return mutation


BLIND = [flip, delete, duplicate, truncate]
TEXT = [*BLIND, swap_fields, swap_lines, extreme_number, extreme_number, insert(ODDITIES)]


def mutated(rng: random.Random, data: bytes, mutations: Sequence[Mutation]) -> bytes:
    """The data after one to eight mutations, mostly few."""
    for _ in range(min(rng.randint(1, 8), rng.randint(1, 8))):
        data = rng.choice(mutations)(rng, data) or b"\n"
    return data


class Target(NamedTuple):
    """A reader under test.

    Attributes:
        make: gives one input from a random generator.
        read: puts an input into a folder and reads it there.
    """

    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], object]


class Result(NamedTuple):
    """What became of the inputs: how many were read and refused; the slowest, in seconds; growth of
    memory in bytes; and each fault, with its input and seed."""

    accepted: int
    refused: int
    slowest: float
    growth: int
    faults: list[str]
    kinds: dict[str, int]


def fuzz(target: str, count: int, seed: int, folder: Path) -> Result:
    """Run `count` inputs of a target in another process.

    A crash ends the run and is reported with the input on which it happened.
    """
    command = [sys.executable, __file__, target, str(seed), str(count), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        last = (folder / "input").read_bytes() if (folder / "input").exists() else b"nothing"
        fault = f"exit {done.returncode} on {last[:5000]!r} (seed {seed}): {done.stderr[-2000:]}"
        return Result(0, 0, 0.0, 0, [fault], {})
    return Result(**json.loads(done.stdout))


def run(target: Target, seed: int, count: int, folder: Path) -> Result:
    """Run the inputs here, each with its own generator, so that one can be run again alone."""
    from cache import CacheError
    from pipeline.errors import PipelineError

    accepted, slowest, faults, kinds = 0, 0.0, [], {}
    with suppress(CacheError, PipelineError):
        target.read(target.make(random.Random(f"{seed}-0")))  # imports what it needs
    start = memory("VmRSS")
    reset_peak()
    for number in range(count):
        data = target.make(random.Random(f"{seed}-{number}"))
        (folder / "input").write_bytes(data)
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            target.read(data)
            accepted += 1
        except (CacheError, PipelineError) as error:
            kind = re.sub(r"\d+", "N", f"{type(error).__name__} {error}")[-60:]
            kinds[kind] = kinds.get(kind, 0) + 1
            if not str(error).isprintable():
                faults.append(f"{error!r} is not printable, on {data!r} (seed {seed}-{number})")
        except BaseException:  # noqa: BLE001 - whatever else is raised is what is looked for
            faults.append(f"{traceback.format_exc()} on {data!r} (seed {seed}-{number})")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        slowest = max(slowest, time.perf_counter() - began)
        if len(faults) == 5:
            break
    growth = memory("VmHWM") - start
    return Result(accepted, count - accepted, slowest, growth, faults, kinds)


def check(result: Result, count: int, least_share: float = 0.01) -> None:
    """Assert that the readers kept their promises, and that both outcomes were put to the test."""
    assert not result.faults, "\n".join(fault[:20_000] for fault in result.faults)
    assert result.accepted + result.refused == count
    assert result.accepted > least_share * count
    assert result.refused > least_share * count
    assert result.slowest < SECONDS
    assert result.growth < GROWTH


def main() -> None:
    import fuzz_targets

    name, seed, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    target = fuzz_targets.TARGETS[name](folder)
    limit = memory("VmSize") + 2 * GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, ring)
    print(json.dumps(run(target, seed, count, folder)._asdict()))


if __name__ == "__main__":
    main()

"""Run the command line many times, each in a process of its own, at a known fault.

Started by `fault_runs`, with the fault library loaded before everything else. It imports what is
heavy once; each run is a fork, so it costs what the work costs. Requests and answers are lines
of JSON on its standard input and output.
"""

import ctypes
import gc
import json
import mmap
import os
import runpy
import select
import signal
import struct
import sys
import time
from pathlib import Path

import torch

import pipeline.cli  # noqa: F401 - imported once, here, for all runs
from pipeline.extraction import extract
from pipeline.extraction.engines import ncnn_encoder
from pipeline.torchvision_shim import import_torchvision
from pipeline.weights.weights_file import load_weights

COUNTERS = struct.Struct("@ll")  # operations, patches: C longs


def serve(weights: Path) -> None:
    torch.set_num_threads(1)
    import_torchvision()
    loaded = load_weights(weights)
    extract.load_weights = lambda path: loaded
    counters = mmap.mmap(-1, mmap.PAGESIZE)
    gc.freeze()  # a fork need not look through, and copy, what was there before
    answers = os.dup(1)
    os.dup2(2, 1)
    os.set_inheritable(answers, False)
    os.write(answers, b"{}\n")
    for line in sys.stdin:
        request = json.loads(line)
        counters[: COUNTERS.size] = COUNTERS.pack(0, 0)
        child = os.fork()
        if child == 0:
            become(request, counters)
            return  # to a real end of the interpreter, with all that is done there
        status, hung = wait(child, request)
        operations, patches = COUNTERS.unpack(counters[: COUNTERS.size])
        answer = {"code": status, "hung": hung, "operations": operations, "patches": patches}
        answer["process"] = child
        os.write(answers, json.dumps(answer).encode() + b"\n")


def wait(child: int, request: dict) -> tuple[int, bool]:
    """Wait for a run, send it the signals it is to get from outside, and end one that hangs."""
    began = time.monotonic()
    handle = os.pidfd_open(child)
    hung = False
    try:
        for delay, signum in [*request["signals"], (request["timeout"], None)]:
            left = max(0.0, began + delay - time.monotonic())
            if select.select([handle], [], [], left)[0]:
                break
            hung = signum is None
            signal.pidfd_send_signal(handle, signum or signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), hung
    finally:
        os.close(handle)


def become(request: dict, counters: mmap.mmap) -> None:
    """Turn into the run that was asked for."""
    Path(request["folder"]).mkdir(parents=True, exist_ok=True)
    os.chdir(request["folder"])
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        path = "/dev/null" if number == 0 else request[name]
        os.dup2(os.open(path, flags), number)
    extract.IMAGES_PER_SHARD = {"cpu": request["images_per_shard"]}
    count_patches(counters, request["seconds_per_batch"])
    arm(request["fault"], counters)
    sys.argv = ["pipeline", *request["words"]]
    try:
        runpy.run_module("pipeline", run_name="__main__")
    except SystemExit as end:
        if not request["faulty"]:  # nothing can go wrong at the end of the interpreter: save it
            sys.stdout.flush()
            os._exit(int(end.code or 0))
        raise


def count_patches(counters: mmap.mmap, seconds: float) -> None:
    encode = ncnn_encoder.NcnnEncoder.encode

    def counted(self, patches):
        time.sleep(seconds)
        features = encode(self, patches)
        operations, done = COUNTERS.unpack(counters[: COUNTERS.size])
        counters[: COUNTERS.size] = COUNTERS.pack(operations, done + len(patches))
        return features

    ncnn_encoder.NcnnEncoder.encode = counted


def arm(fault: dict, counters: mmap.mmap) -> None:
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.fault_arm(
        os.fsencode(fault["root"]),
        ctypes.c_int(fault["action"]),
        ctypes.c_long(fault["at"]),
        ctypes.c_long(fault["again"]),
        ctypes.c_int(fault["value"]),
        ctypes.c_int(fault["sticky"]),
        ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(counters))),
        os.fsencode(fault["trace"]),
        os.fsencode(fault["snapshots"]),
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

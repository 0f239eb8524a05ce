"""Work in processes side by side, for what holds Python's lock too much for threads."""

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pipeline.errors import PipelineError

In = TypeVar("In")
Out = TypeVar("Out")

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)

_function: Callable[[Any], Any] | None = None


def side_by_side(function: Callable[[In], Out], items: Sequence[In], workers: int) -> Iterator[Out]:
    """Map in processes that share this one's memory as it is now; results in order.

    On Linux, they are forks, which die with this process; elsewhere threads, since forks are not
    safe there. Items and results are sent between processes, so they are best small.

    Args:
        function: what is done to each item; it must not compute on several threads.
        items: at least one.
        workers: processes.

    Raises:
        PipelineError: a process was killed.
        Exception: whatever `function` raises.
    """
    if workers == 1 or len(items) == 1:
        yield from map(function, items)
        return
    with _executor(function, min(workers, len(items))) as pool:
        try:
            with warnings.catch_warnings():
                # Idle threads of libraries are not missed, as forks compute on one thread.
                warnings.simplefilter("ignore", DeprecationWarning)
                pending = [pool.submit(_call, item) for item in items]
            for future in pending:
                yield future.result()
        except BrokenProcessPool as error:
            raise PipelineError(
                "a process that worked was killed, as happens when memory runs out: close other "
                "programs, or use fewer CPUs (taskset -c 0)"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _executor(function: Callable[[In], Out], workers: int) -> Executor:
    if sys.platform != "linux":
        _begin(function)
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("fork"),
        initializer=_begin_fork,
        initargs=(function, os.getpid()),
    )


def _begin(function: Callable[[In], Out]) -> None:
    global _function
    _function = function


def _begin_fork(function: Callable[[In], Out], parent: int) -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this process asked to be told
        os._exit(1)
    _begin(function)


def _call(item: Any) -> Any:  # noqa: ANN401 - whatever is mapped
    assert _function is not None  # noqa: S101 - the initializer has run
    return _function(item)

"""Stop at a signal, between two images, with everything that was computed kept."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import PipelineError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(PipelineError):
    """The work was stopped by a signal; its exit code is 128 and the signal's number."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class Interruption:
    """Whether a signal has come, for whoever works to look at where stopping is safe."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None

    def error(self, what: str) -> StoppedError:
        """The error to raise; `what` says what is done and what is not."""
        signum = self.signum or signal.SIGINT
        name = signal.Signals(signum).name
        return StoppedError(f"stopped by {name}: {what}", signum)


@contextmanager
def watch_signals(note: str) -> Iterator[Interruption]:
    """Let the first SIGINT, SIGTERM or SIGHUP be looked at, and a second end the process at once.

    A handler that raises would do so inside HDF5 as well, which does not survive it: whoever
    writes a cache does it in here. `note` is shown when the first signal comes. Signals that are
    ignored, as SIGHUP is under nohup, stay so. Outside of the main thread, signals cannot be
    caught and keep their effect. After a first signal, the default action stays in place: the
    process is expected to end, and Python's own handler would disturb that.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {s: signal.getsignal(s) for s in _SIGNALS if signal.getsignal(s) != signal.SIG_IGN}

    def notice(signum: int, frame: FrameType | None) -> None:
        interruption.signum = signum
        for caught in before:
            signal.signal(caught, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # Ctrl-C ends whoever reads this, such as tee, too
            os.write(2, f"\n{note}; once more to stop at once\n".encode())

    for caught in before:
        signal.signal(caught, notice)
    try:
        yield interruption
    finally:
        if not interruption:
            for caught, handler in before.items():
                signal.signal(caught, handler)

"""Fixtures that several folders of tests share."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Machines that run tests are busy and noisy: how long one example takes proves nothing.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# Under nohup or in the background of a script these are ignored, and processes inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images, folds and weights; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED

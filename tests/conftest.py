"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# Machines that run tests are busy and noisy: how long one example takes proves nothing.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images, folds and weights; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED

"""What the tests of the two stages share."""

from pathlib import Path

import pytest
from small_runs import SmallRun, make_run

from pipeline.weights.weights_file import publish_weights, random_weights


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG16's shape."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    publish_weights(random_weights(0), path)
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, weights_file: Path) -> SmallRun:
    """A whole run on small images. Only to be read."""
    return make_run(tmp_path_factory.mktemp("run"), weights_file)

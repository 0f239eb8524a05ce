"""What the tests of the two stages share."""

from pathlib import Path

import pytest

from pipeline.weights.weights_file import publish_weights, random_weights


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG16's shape."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    publish_weights(random_weights(0), path)
    return path

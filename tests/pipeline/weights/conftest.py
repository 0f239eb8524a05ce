"""An architecture with the names of VGG16's layers and few channels."""

from collections.abc import Iterator

import pytest

from pipeline.weights.weights_file import LAYERS

CHANNELS = {64: 2, 128: 3, 256: 4, 512: 5, 3: 3}


@pytest.fixture(scope="module")
def small_layers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, shape in LAYERS.items():
            small = tuple(CHANNELS[size] for size in shape[:2]) + shape[2:]
            patch.setitem(LAYERS, name, small)
        yield

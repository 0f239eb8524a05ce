"""The weights at their real size."""

import numpy as np
import pytest

from pipeline.weights.sources import obtain_weights
from pipeline.weights.weights_file import (
    IMAGENET_ARRAYS_SHA256,
    LAYERS,
    load_weights,
    random_weights,
)


@pytest.fixture
def imagenet(shared):
    return shared / "weights" / "vgg16_imagenet_features.safetensors"


def test_the_imagenet_weights_are_recognised(imagenet):
    loaded = load_weights(imagenet)
    assert (loaded.name, loaded.sha256) == ("imagenet", IMAGENET_ARRAYS_SHA256)
    assert {name: array.shape for name, array in loaded.arrays.items()} == LAYERS


def test_a_file_with_the_imagenet_weights_serves_as_the_source(imagenet):
    weights = obtain_weights(imagenet)
    assert (weights.name, weights.source) == ("imagenet", f"file {imagenet.name}")


def test_random_kernels_have_the_variance_of_he_and_biases_are_zero():
    arrays = random_weights(0).arrays
    for name, shape in LAYERS.items():
        assert arrays[name].shape == shape
        assert arrays[name].dtype == np.float32
        if name.endswith("bias"):
            assert not arrays[name].any()
        else:
            expected = np.sqrt(2 / np.prod(shape[1:]))
            assert arrays[name].std(dtype=np.float64) == pytest.approx(expected, rel=0.05)

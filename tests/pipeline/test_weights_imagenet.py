"""The weights at their real size."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.weights import IMAGENET_ARRAYS_SHA256, LAYERS, load_weights, random_weights
from pipeline.weights_sources import obtain_weights

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
IMAGENET = SHARED / "weights" / "vgg16_imagenet_features.safetensors"

needs_imagenet = pytest.mark.skipif(
    not IMAGENET.exists(), reason="shared/weights/vgg16_imagenet_features.safetensors is absent"
)


@needs_imagenet
def test_the_imagenet_weights_are_recognised():
    loaded = load_weights(IMAGENET)
    assert (loaded.name, loaded.sha256) == ("imagenet", IMAGENET_ARRAYS_SHA256)
    assert {name: array.shape for name, array in loaded.arrays.items()} == LAYERS


@needs_imagenet
def test_a_file_with_the_imagenet_weights_serves_as_the_source():
    weights = obtain_weights(IMAGENET)
    assert (weights.name, weights.source) == ("imagenet", f"file {IMAGENET.name}")


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

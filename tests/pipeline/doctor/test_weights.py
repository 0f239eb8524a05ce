"""The weights at hand: believed by their content, and never fetched."""

import pytest

from pipeline.doctor import weights
from pipeline.doctor.finding import NOTE, OK
from pipeline.weights import sources, weights_file
from pipeline.weights.weights_file import publish_weights, random_weights


def test_missing_weights_are_a_note_that_says_how_to_get_them_and_nothing_is_fetched(
    cached, monkeypatch
):
    monkeypatch.setattr(sources, "SOURCES", ())
    finding = weights.check_weights()
    assert (finding.state, str(cached.parent) in finding.found) == (NOTE, True)
    assert "pipeline weights --out vgg16.safetensors" in finding.advice
    assert "--from FILE" in finding.advice
    assert not cached.parent.exists()


@pytest.fixture
def small(monkeypatch):
    """Weights of a small network."""
    shapes = {"features.0.weight": (2, 3, 3, 3), "features.0.bias": (2,)}
    monkeypatch.setattr(weights_file, "LAYERS", shapes)
    return random_weights(1)


def test_cached_weights_are_believed_by_their_content(cached, monkeypatch, small):
    publish_weights(small, cached)
    finding = weights.check_weights()
    assert finding.state == NOTE
    assert "other weights (random(seed=1)), expected those of ImageNet" in finding.found
    monkeypatch.setattr(weights_file, "IMAGENET_ARRAYS_SHA256", small.sha256)
    assert weights.check_weights().state == OK


def test_damaged_cached_weights_are_a_note_with_advice(cached, small):
    publish_weights(small, cached)
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.write_bytes(content)
    finding = weights.check_weights()
    assert (finding.state, "damaged" in finding.found) == (NOTE, True)
    assert "pipeline weights" in finding.advice

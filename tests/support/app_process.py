"""The app as a process of its own, on a free port of the loopback interface."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_app(*words: object) -> Iterator[str]:
    """Start `pipeline app` with some options; gives its address, and stops it at the end."""
    command = [sys.executable, "-m", "pipeline", "app", "--port", "0", *map(str, words)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            found = re.search(r"(http://\S+/) is ready", line)
            if found:
                yield found[1]
                break
        else:
            raise AssertionError(f"the app did not start:\n{''.join(lines)}")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def ask(address: str, data: bytes, name: str = "a.png", **headers: str) -> tuple[int, dict]:
    """Send an image as the page does; status and answer."""
    headers = {"X-Requested-With": "pipeline-app", **headers}
    request = urllib.request.Request(f"{address}answer?name={name}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        body = error.read()
        return error.code, json.loads(body) if body.startswith(b"{") else {}

"""The examples that the documents show do run."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "tests/data/archives/1.0/whole.h5"


@pytest.mark.parametrize(
    ("document", "cache"),
    [("README.md", "results/demo/features.h5"), ("cache/FORMAT.md", "features.h5")],
)
def test_python_examples_run(document, cache, tmp_path, monkeypatch):
    (tmp_path / cache).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(WHOLE, tmp_path / cache)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.S)
    names: dict[str, object] = {}
    exec(example, names)
    result = names.get("first", names.get("sequence"))
    assert result.shape == (3, 5)


def test_the_steps_of_the_readme_are_those_of_the_help():
    from pipeline.cli import main

    steps = re.search(r"## Step by step\n\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    shown = [line.split("  #")[0].split() for line in steps[1].splitlines()]
    assert [words[1] for words in shown] == list(main.commands)
    for words in shown:
        command, rest = main.commands[words[1]], words[2:]
        if words[1] == "cache":
            command, rest = command.commands[words[2]], words[3:]
        command.make_context(words[1], rest)

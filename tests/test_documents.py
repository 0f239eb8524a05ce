"""The examples that the documents show do run."""

import re
import shutil
from pathlib import Path

import pytest
from small_runs import make_run

from pipeline.weights.weights_file import publish_weights, random_weights

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "tests/data/archives/1.0/whole.h5"


def blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.S)


def test_the_example_of_the_format_runs(tmp_path, monkeypatch):
    shutil.copy(WHOLE, tmp_path / "features.h5")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("cache/FORMAT.md")
    names: dict[str, object] = {}
    exec(example, names)
    assert names["sequence"].shape == (3, 5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The files that the steps of the guide leave."""
    weights = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    publish_weights(random_weights(0), weights)
    made = make_run(tmp_path_factory.mktemp("guide"), weights, companions=False)
    shutil.copy(weights, made.folder)
    return made.folder


@pytest.mark.parametrize("number", range(4))
def test_the_python_examples_of_the_guide_run(number, run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    examples = blocks("pipeline/GUIDE.md")
    assert len(examples) == 4
    exec(examples[number], {})
    said = capsys.readouterr().out
    assert re.search(SAYS[number], said), said


SAYS = (
    r"^(0|1)\.\d+ Interval\(low=",
    r"^images/image00\.png (benign|malignant) \(0\.\d+,\) 2 of the models were fitted",
    r"^image00 (benign|malignant) 0\.\d{3}\n",
    r"^24 images, 144 patches, random\(seed=0\) weights",
)


def test_the_steps_of_the_guide_are_those_of_the_help():
    from pipeline.cli import main

    steps = re.search(
        r"## Step by step\n\n```sh\n(.*?)```", (ROOT / "pipeline/GUIDE.md").read_text(), re.S
    )
    shown = [line.split("  #")[0].split() for line in steps[1].splitlines()]
    assert [words[1] for words in shown] == list(main.commands)
    for words in shown:
        command, rest = main.commands[words[1]], words[2:]
        if words[1] == "cache":
            command, rest = command.commands[words[2]], words[3:]
        command.make_context(words[1], rest)

"""The command line: help with examples that work, answers that scripts can read, loud warnings."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from app_process import ask, running_app
from click.testing import CliRunner
from safetensors import safe_open
from small_data import write_image

from cache import FeatureCache
from pipeline.cli import main
from pipeline.weights.sources import cached_file

VERBS = [
    "demo",
    "index",
    "split",
    "audit",
    "weights",
    "extract",
    "fit-lstm",
    "evaluate",
    "compare",
    "predict",
    "report",
    "app",
    "cross-magnification",
    "cache",
    "doctor",
    "completion",
]


def commands(group: click.Group = main, path: tuple[str, ...] = ()):
    """Every command that does something, as (words, command), in the order of the help."""
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def example_of(command: click.Command) -> list[str]:
    """The words after `pipeline` of the example in a command's help."""
    found = re.search(r"Example:\n\s*pipeline (.+)", command.help)
    assert found, f"{command.name} has no example"
    return shlex.split(found[1])


def overview() -> list[list[str]]:
    """The command lines in the help of `pipeline` itself."""
    return [shlex.split(line) for line in re.findall(r"^\s*pipeline (.+)$", main.help, re.M)]


def run(*words: str):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, f"{words}: {result.output}"
    assert "Traceback" not in result.output
    return result


def parse(words: list[str]) -> None:
    """Parse a command line, options and all, without running it."""
    command: click.Command = main
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


COMMANDS = {" ".join(words): (words, command) for words, command in commands()}


def test_help_lists_all_verbs_in_the_order_of_the_pipeline():
    text = run("--help").stdout
    listed = re.findall(r"^  ([a-z-]+) {2,}", text.partition("Commands:")[2], re.M)
    assert listed == VERBS
    assert run("-h").stdout == text


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS.values()], ids=COMMANDS)
def test_every_verb_has_help_with_an_example_of_itself(words):
    text = run(*words, "--help").stdout
    assert re.search(rf"Example:\n\s+pipeline {' '.join(words)} ", text)


@pytest.mark.parametrize("command", [command for _, command in COMMANDS.values()], ids=COMMANDS)
def test_every_option_has_a_help_text(command):
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("command", [command for _, command in COMMANDS.values()], ids=COMMANDS)
def test_the_options_of_every_example_exist(command):
    parse(example_of(command))


def test_the_options_of_the_overview_exist_and_name_every_verb_of_it():
    lines = overview()
    assert [words[0] for words in lines] == VERBS[: VERBS.index("cache")]
    for words in lines:
        parse(words)


@pytest.mark.slow
def test_all_examples_run_one_after_another(shared, tmp_path, monkeypatch):
    """Those of the verbs' help, then those of the overview: verbatim, with the real weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached_file().parent.mkdir(parents=True)
    assert cached_file().is_relative_to(tmp_path)
    shutil.copy(shared / "weights/vgg16_imagenet_features.safetensors", cached_file())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for words in [*(example_of(command) for _, command in COMMANDS.values()), *overview()]:
        for start, prepare in PREPARED.items():
            if " ".join(words).startswith(start):
                prepare(words)
        if words[0] == "app":  # it serves until it is stopped
            with running_app(*words[1:]) as address:
                image = next(Path("demo").rglob("*.png"))
                assert ask(address, image.read_bytes())[0] == 200
        elif words[0] == "cross-magnification":  # the demo has one magnification
            refused = CliRunner().invoke(main, words)
            assert "expected two or more, all known" in refused.stderr
        else:
            run(*words)


def another_fit(words):
    fit = example_of(main.commands["fit-lstm"])
    run(*fit[: fit.index("--out")], "--out", words[2], "--hidden", "64")


def shards(words):
    made_of = ["--manifest", "manifest.csv", "--weights", "vgg16.safetensors"]
    for number in (1, 2):
        place = ["--out", f"shards/{number}.h5", "--shard", f"{number}/2"]
        run("extract", *made_of, *place, "--layers", "conv1_2")


def new_images(words):
    Path("new-images").mkdir(exist_ok=True)
    shutil.copy(next(Path("demo").rglob("*.png")), "new-images")


def folder_of_the_workflow(words):
    Path("results/demo").mkdir(parents=True, exist_ok=True)
    for name in ("fits", "metrics.json", "features.h5", "manifest.csv"):
        link = Path("results/demo") / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(name).resolve())


PREPARED = {
    "compare": another_fit,
    "cache merge": shards,
    "predict": new_images,
    "report": folder_of_the_workflow,
}
"""What an example takes to be there."""


def make_images(folder):
    """12 images of noise in the layout class/slide/image."""
    for i in range(12):
        slide = i // 2
        label = "malignant" if slide % 2 else "benign"
        write_image(folder / f"images/{label}/s{slide}/{i}.png", i, 64, 64)


EXTRACT = "--patch-size 32 --stride 32 --device cpu --threads 1"
FIT = "--steps 2 --checks 1 --components 4 --hidden 4 --members 2"


def run_through(group_by: str) -> dict[str, str]:
    """Every verb that works on one's own images; what each prints to stdout."""
    lines = {
        "weights": "weights --random 7 --out w.safetensors",
        "index": "index images --out manifest.csv",
        "split": f"split manifest.csv --folds 3 --group-by {group_by} --out splits.csv",
        "extract": f"extract --manifest manifest.csv --weights w.safetensors --out f.h5 {EXTRACT}",
        "fit-lstm": f"fit-lstm --cache f.h5 --splits splits.csv --out fits {FIT}",
        "evaluate": "evaluate --fits fits --out metrics.json --note noise",
        "evaluate --json": "evaluate --fits fits --out again.json --note noise --json",
        "cache info": "cache info f.h5",
        "cache info --json": "cache info f.h5 --json",
        "cache verify": "cache verify f.h5",
    }
    return {name: run(*shlex.split(line)).stdout for name, line in lines.items()}


def passed(tmp_path_factory, group_by):
    folder = tmp_path_factory.mktemp(group_by)
    make_images(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, run_through(group_by)


@pytest.fixture(scope="module")
def by_case(tmp_path_factory):
    """A folder after a pass with case-disjoint splits, and what the verbs printed."""
    return passed(tmp_path_factory, "case")


@pytest.fixture(scope="module")
def by_image(tmp_path_factory):
    """The same with splits that leak."""
    return passed(tmp_path_factory, "image")


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_pass_over_folders_of_images_says_what_each_step_did(by_case):
    folder, printed = by_case
    assert printed["index"] == (
        "manifest.csv: 12 images, 6 benign, 6 malignant, 6 slides, 6 cases\n"
    )
    assert printed["split"] == "splits.csv: 12 images, case-disjoint, 3 folds\n"
    assert "f.h5: 12 images, 48 patches" in printed["extract"]
    assert "12 encoded now" in printed["extract"]
    assert printed["fit-lstm"].startswith("fits: 3 folds, 6 steps")
    assert "3 folds, 12 images, 6 patients" in printed["evaluate"]
    assert printed["evaluate"].startswith("noise\nProtocol: case-disjoint, 3 folds\n")
    assert "12 unknown" in printed["cache info"]
    assert printed["cache verify"] == "f.h5: sound\n"
    assert not list(folder.rglob("*.part"))


def test_json_of_evaluate_is_the_file_and_nothing_else(by_case):
    folder, printed = by_case
    assert json.loads(printed["evaluate --json"]) == metrics_of(folder)
    assert (folder / "again.json").read_bytes() == (folder / "metrics.json").read_bytes()


def test_json_of_cache_info_says_what_is_in_the_cache(by_case):
    folder, printed = by_case
    found = json.loads(printed["cache info --json"])
    with FeatureCache(folder / "f.h5") as cache:
        assert found["fingerprint"] == cache.fingerprint
    assert (found["images"], found["patches"], found["feature_dim"]) == (12, 48, 1792)
    assert (found["slides"], found["cases"], found["failures"]) == (6, 6, [])
    assert found["counts"]["label"] == {"benign": 6, "malignant": 6}
    assert found["counts"]["magnification"] == {"": 12}
    assert found["recipe"]["patch_size"] == 32


@pytest.mark.parametrize("verb", ["weights", "extract", "fit-lstm", "evaluate", "cache info"])
def test_random_weights_are_named_by_every_verb_that_uses_them(by_case, verb):
    assert "random(seed=7)" in by_case[1][verb]


def test_random_weights_are_named_in_the_metrics(by_case):
    assert metrics_of(by_case[0])["weights"] == "random(seed=7)"


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("split", "image-level, 3 folds: LEAKS, "),
        ("fit-lstm", "image-level, 3 folds: LEAKS, "),
        ("evaluate", "image-level, 3 folds: LEAKS, "),
        ("evaluate", "LEAKING SPLIT: these numbers say nothing about new patients."),
    ],
)
def test_splits_that_leak_are_called_so_by_every_verb_that_sees_them(
    by_image, by_case, verb, words
):
    assert words in by_image[1][verb]
    assert not re.search("folds: LEAKS|LEAKING SPLIT", by_case[1][verb])


def test_splits_that_leak_are_called_so_in_every_file_made_from_them(by_image):
    folder, _ = by_image
    assert {row["group_by"] for row in rows_of(folder / "splits.csv")} == {"image"}
    for fold in range(3):
        fit = folder / f"fits/fold{fold}"
        assert {row["group_by"] for row in rows_of(fit / "predictions.csv")} == {"image"}
        record = json.loads((fit / "fit.json").read_text())
        assert (record["group_by"], record["leaks"]) == ("image", True)
        with safe_open(fit / "model.safetensors", framework="numpy") as model:
            assert "LEAKS" in model.metadata()["protocol"]
    metrics = metrics_of(folder)
    assert (metrics["group_by"], metrics["leaks"]) == ("image", True)
    assert "LEAKS" in metrics["protocol"]


def test_a_second_run_of_every_step_is_allowed_and_changes_no_number(by_case, monkeypatch):
    folder, _ = by_case
    before = (folder / "metrics.json").read_bytes()
    monkeypatch.chdir(folder)
    printed = run_through("case")
    assert "nothing was left to encode" in printed["extract"]
    assert (folder / "metrics.json").read_bytes() == before

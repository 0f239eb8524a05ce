"""The workflow's settings: command lines, names, the digest of a data set, the defaults."""

import copy
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import pipeline.workflow
from pipeline.cli import main
from pipeline.workflow.settings import Settings

WORKFLOW = Path(pipeline.workflow.__file__).parent
PROJECT = Path(__file__).resolve().parents[2]
DEFAULTS: dict[str, Any] = yaml.safe_load((WORKFLOW / "config.yaml").read_text("utf-8"))
SCHEMA: dict[str, Any] = yaml.safe_load((WORKFLOW / "config.schema.yaml").read_text("utf-8"))

VERBS = {
    "weights": "weights",
    "index": "index",
    "split": "split",
    "extract": "extract",
    "fit": "fit-lstm",
    "evaluate": "evaluate",
}
SECTIONS = sorted(VERBS)

FROM_THE_RULES = {"out", "manifest", "weights", "cache", "splits", "fits", "threads"}
"""Options to which the Snakefile itself gives values."""

NOT_FOR_THE_WORKFLOW = {"help", "overwrite", "fold", "json", "shard"}


def settings(**changes: Any) -> Settings:
    """The defaults, but for some sections or keys."""
    config = copy.deepcopy(DEFAULTS)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return Settings(config)


# Options


def test_options_are_the_sections_keys_as_long_options_in_their_order() -> None:
    found = settings(split={"folds": 3, "val_fraction": 0.25}).options("split")
    assert found == (
        "--folds 3 --group-by case --repeats 1 --seed 0 --stratify label --val-fraction 0.25"
    )


@pytest.mark.parametrize("section", ["weights", "evaluate"])
def test_null_leaves_an_option_out(section: str) -> None:
    assert settings(dataset="images").options(section) == ""


@pytest.mark.parametrize(
    ("value", "shown", "hidden"),
    [(True, "--bidirectional", "--one-direction"), (False, "--one-direction", "--bidirectional")],
)
def test_a_truth_value_becomes_the_option_or_its_opposite(
    value: bool, shown: str, hidden: str
) -> None:
    words = shlex.split(settings(fit={"bidirectional": value}).options("fit"))
    assert shown in words
    assert hidden not in words
    assert not {"True", "False"} & set(words)


def test_a_list_repeats_the_option() -> None:
    words = shlex.split(settings(fit={"try": ["hidden=16", "layers=all steps=50"]}).options("fit"))
    tried = [words[i + 1] for i, word in enumerate(words) if word == "--try"]
    assert tried == ["hidden=16", "layers=all steps=50"]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_survives_the_shells_quoting(text: str) -> None:
    words = shlex.split(settings(dataset="x", evaluate={"note": text}).options("evaluate"))
    assert words == ["--note", text]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_verbs_accept_the_default_options(section: str) -> None:
    command = main.commands[VERBS[section]]
    given_by_rules = {"out", "manifest", "weights", "cache", "splits", "fits", "dataset"}
    words = shlex.split(settings().options(section))
    for parameter in command.params:
        if parameter.required and isinstance(parameter, click.Option):
            assert option_key(parameter) in given_by_rules
            words += [parameter.opts[0], "file"]
        elif parameter.required:
            words.append("file")
    command.make_context(VERBS[section], words)


# Names


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("demo", "demo"),
        ("./demo", "demo"),
        ("my images", "my_images"),
        ("/data/my images/", "my_images"),
        ("/data/tables/study 7.csv", "study_7"),
        ("/data/BreaKHis_v1", "BreaKHis_v1"),
        ("/data/Größe?", "Größe_"),
    ],
)
def test_results_are_named_after_the_data_set(dataset: str, name: str) -> None:
    assert settings(dataset=dataset).results == Path("results") / name


def test_folders_that_differ_after_a_dot_have_different_results() -> None:
    assert settings(dataset="images.v1").results != settings(dataset="images.v2").results


def test_the_name_of_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings(dataset=".").results == Path("results") / tmp_path.name


def test_a_name_of_the_users_goes_before_the_data_sets() -> None:
    assert settings(dataset="images", name="trial.2").results == Path("results/trial.2")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "two words"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**DEFAULTS, "name": name}, SCHEMA)


def test_weights_of_different_encoders_have_different_files() -> None:
    names = ("vgg16", "resnet50", "timm:resnet18", "timm:resnet34")
    files = {settings(extract={"encoder": name}).weights for name in names}
    assert len(files) == 4
    assert all(file.name.endswith("_imagenet.safetensors") for file in files)


@pytest.mark.parametrize("encoder", ["timm:" + "a/" * 500, 'timm:test_vit?act_layer="gelu"'])
def test_weights_of_an_encoder_of_any_name_have_a_short_file_of_their_own(encoder: str) -> None:
    file, other = (settings(extract={"encoder": e}).weights for e in (encoder, encoder + "_"))
    assert file != other
    assert re.fullmatch(r"[\w.-]{1,100}", file.name, re.ASCII)


def test_the_files_of_an_encoders_folder_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "pytorch_model.bin").touch()
    found = settings(extract={"encoder": f"timm:{tmp_path}"}).encoder_files
    assert [file.name for file in found] == ["config.json", "pytorch_model.bin"]
    assert settings(extract={"encoder": "timm:resnet18"}).encoder_files == []


@pytest.mark.parametrize(
    ("encoder", "is_valid"),
    [
        *((name, True) for name in ("vgg16", "timm:resnet18.a1_in1k", "timm:/my models/ä b")),
        ('timm:test_vit?act_layer="gelu"&mean=[0.5%2C0.5%2C0.5]', True),
        *((name, False) for name in ("", "timm:", "timm:{a}", "timm:a\nb", "/models/a", "a b")),
    ],
)
def test_an_encoder_is_a_name_or_a_folder_for_timm(encoder: str, is_valid: bool) -> None:
    config = {**DEFAULTS, "extract": {**DEFAULTS["extract"], "encoder": encoder}}
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert validator.is_valid(config) == is_valid


def test_weights_of_different_sources_have_different_files() -> None:
    files = {settings(weights={"random": seed}).weights for seed in (None, 0, 1)}
    assert len(files) == 3


# The demo


def test_the_demo_says_that_its_images_are_synthetic() -> None:
    option, note = shlex.split(settings().options("evaluate"))
    assert option == "--note"
    assert "SYNTHETIC" in note


def test_a_note_of_the_users_replaces_the_demos() -> None:
    assert settings(evaluate={"note": "mine"}).options("evaluate") == "--note mine"


def test_a_users_own_folder_named_demo_is_not_the_demo() -> None:
    own = settings(dataset="./demo")
    assert not own.is_demo
    assert own.options("evaluate") == ""


# The listing


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data set of three files, the first of them deep."""
    folder = tmp_path / "images"
    for name in ("benign/s1/deeper/a.png", "benign/s2/b.png", "malignant/c.png"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return folder


@pytest.fixture
def table(images: Path) -> Path:
    """A CSV file that names the images of the folder."""
    table = images.parent / "images.csv"
    rows = [f"{file},benign" for file in sorted(images.rglob("*.png"))]
    table.write_text("\n".join(["path,label", *rows]))
    return table


def resize(file: Path) -> None:
    time = file.stat()
    file.write_text(file.read_text() + "more")
    os.utime(file, ns=(time.st_atime_ns, time.st_mtime_ns))


def touch(file: Path) -> None:
    os.utime(file, ns=(0, 0))


CHANGES: Mapping[str, Callable[[Path], object]] = {
    "added": lambda file: file.with_name("new.png").write_text("new"),
    "added in a new folder": lambda file: shutil.copytree(file.parent, file.parent / "below"),
    "removed": Path.unlink,
    "renamed": lambda file: file.rename(file.with_name("other.png")),
    "resized": resize,
    "touched": touch,
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_listing_changes_when_a_file_deep_in_the_folder_is(change: str, images: Path) -> None:
    before = settings(dataset=str(images)).listing()
    CHANGES[change](images / "benign/s1/deeper/a.png")
    assert settings(dataset=str(images)).listing() != before


@pytest.mark.parametrize("change", ["removed", "resized", "touched"])
def test_the_listing_changes_when_a_file_named_in_the_table_is(
    change: str, images: Path, table: Path
) -> None:
    before = settings(dataset=str(table)).listing()
    CHANGES[change](images / "benign/s1/deeper/a.png")
    assert settings(dataset=str(table)).listing() != before


def test_the_listing_of_an_unchanged_data_set_is_the_same(
    images: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [settings(dataset=str(one)).listing() for one in (images, table)]
    for file in images.rglob("*.png"):
        file.read_bytes()
    (images.parent / "beside.png").write_text("not in the data set")
    walk = os.walk  # in whatever order the file system has its entries

    def backwards(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in walk(top):
            folders.reverse()
            yield folder, folders, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert [settings(dataset=str(one)).listing() for one in (images, table)] == before


def test_the_listing_of_a_data_set_that_is_wrong_or_missing_leaves_the_message_to_the_index(
    tmp_path: Path,
) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("no,such,columns\n1,2,3\n")
    for dataset in (wrong, tmp_path / "nowhere", tmp_path / "nowhere.csv"):
        assert settings(dataset=str(dataset)).listing()


# The end of a run


def test_numbers_of_an_earlier_run_are_not_shown_as_those_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = tmp_path / "results/demo/metrics.json"
    settings().print_results()
    metrics.parent.mkdir(parents=True)
    metrics.write_text("{}")
    settings().print_results()
    assert capsys.readouterr().out == ""


# The interpreter


def test_python3_in_the_rules_is_the_interpreter_that_runs_snakemake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    Settings.put_this_interpreter_first()
    found = shutil.which("python3")
    assert found is not None
    assert Path(found).parent == Path(sys.executable).parent


# Agreement with the command line, the schema and the project's requirements


def option_key(option: click.Parameter) -> str:
    """The configuration's key for an option."""
    return max(option.opts, key=len).removeprefix("--").replace("-", "_")


def verb_options(section: str) -> dict[str, click.Option]:
    """The options of a section's verb that are the workflow's to set."""
    options = {
        option_key(parameter): parameter
        for parameter in main.commands[VERBS[section]].params
        if isinstance(parameter, click.Option)
    }
    aside = FROM_THE_RULES | NOT_FOR_THE_WORKFLOW
    if section == "weights":
        aside |= {"encoder"}  # which is that of the extraction
    return {key: option for key, option in options.items() if key not in aside}


def test_every_section_belongs_to_a_verb() -> None:
    sections = {key for key, value in DEFAULTS.items() if isinstance(value, dict)}
    assert sections == {*SECTIONS, "scatter"}  # how jobs are divided is the Snakefile's own


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_has_exactly_the_options_of_its_verb(section: str) -> None:
    assert set(DEFAULTS[section]) == set(verb_options(section))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_workflow_and_the_command_line_have_the_same_defaults(section: str) -> None:
    command = main.commands[VERBS[section]]
    context = click.Context(command)
    for key, option in verb_options(section).items():
        default = option.get_default(context)
        # null leaves an option out, so it stands for an empty text and for no default at all.
        expected = default if isinstance(default, int | float | str) and default != "" else None
        expected = [] if option.multiple else expected
        assert DEFAULTS[section][key] == expected, f"{section}.{key}"


@pytest.mark.parametrize("section", SECTIONS)
def test_the_schema_offers_the_choices_of_the_command_line(section: str) -> None:
    for key, option in verb_options(section).items():
        if isinstance(option.type, click.Choice):
            offered = SCHEMA["properties"][section]["properties"][key]["enum"]
            assert [one for one in offered if one is not None] == list(option.type.choices)


def test_the_defaults_satisfy_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


def described(schema: Mapping[str, Any], values: Mapping[str, Any], where: str = "") -> None:
    """Check one level of the configuration against its schema, and those below it."""
    assert schema["additionalProperties"] is False, where
    assert set(schema["properties"]) == set(values), where
    for key, value in values.items():
        part = schema["properties"][key]
        assert part.get("description"), f"{where}{key} has no description"
        if isinstance(value, dict):
            described(part, value, f"{key}.")


def test_the_schema_describes_every_key_and_forbids_others_at_each_level() -> None:
    described(SCHEMA, DEFAULTS)


def test_a_conda_environment_gets_what_the_project_requires() -> None:
    environment = yaml.safe_load((WORKFLOW / "environment.yaml").read_text("utf-8"))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert lists == [project["dependencies"]]

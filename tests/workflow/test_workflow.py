"""The workflow, driven by Snakemake itself on a small data set of noise.

A start of Snakemake takes a second and a whole run ten, so one complete run serves many tests,
and what would run is asked of dry runs.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_data import write_image
from small_workflow import Finished, WorkFolder, write_images

from cache import FeatureCache
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.weights.model_weights import publish_model_weights, random_model_weights

RULES = ("weights", "index", "split", "extract", "fit_lstm", "evaluate", "report")


@pytest.fixture
def fresh(tmp_path: Path) -> WorkFolder:
    """A working directory in which nothing has run."""
    write_images(tmp_path / "work/my images")
    return WorkFolder(tmp_path / "work")


@dataclass(frozen=True)
class Complete:
    """A working directory in which the workflow ran to its end, and what it said."""

    folder: WorkFolder
    text: str


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Complete:
    """Only to be read: tests that change something work on a copy."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # shared, so that one process makes it for all
    folder, said = WorkFolder(base / "complete"), base / "complete.txt"
    with _locked(base / "complete.lock"):
        if not said.exists():
            write_images(folder.path / "my images")
            done = folder.snakemake()
            assert done.code == 0, done.text
            said.write_text(done.text, "utf-8")
    return Complete(folder, said.read_text("utf-8"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def copied(complete: Complete, tmp_path: Path) -> WorkFolder:
    """A complete run of the test's own."""
    return complete.folder.copy(tmp_path / "copied")


def rules_in(done: Finished) -> set[str]:
    """The rules of the jobs that Snakemake ran, or in a dry run would run."""
    return set(re.findall(r"^(?:local)?rule (\w+):$", done.text, re.MULTILINE)) - {"all"}


# A complete run


def test_a_run_ends_with_the_headline_the_protocol_and_where_the_results_are(
    complete: Complete,
) -> None:
    end = complete.text[complete.text.index("Protocol:") :]
    assert end.startswith("Protocol: case-disjoint, 3 folds\n")
    assert "Encoder weights: random(seed=0), not ImageNet's." in end
    assert re.search(
        r"^24 test images +pooled +95% interval +mean of folds +sd$", end, re.MULTILINE
    )
    for measure in ("accuracy", "balanced accuracy", "ROC AUC", "patient recognition rate"):
        assert re.search(rf"^{measure} +[01]\.\d{{3}} ", end, re.MULTILINE), measure
    assert "Results are in results/my_images/" in end


def test_a_run_leaves_its_results_and_their_features_once(complete: Complete) -> None:
    results = complete.folder.results
    metrics = json.loads((results / "metrics.json").read_text("utf-8"))
    assert metrics["images"] == 24
    assert {path.name for path in results.iterdir()} >= {
        *("manifest.csv", "splits.csv", "features.h5", "fits", "metrics.json", "report.html")
    }
    (kept,) = results.glob("features.h5.shards/*/*")
    assert kept.samefile(results / "features.h5"), "the shards take space twice"
    assert {path.name for path in complete.folder.path.iterdir()} <= {
        *(".snakemake", "config0.yaml", "config1.yaml", "home", "my images"),
        *("resources", "results"),
    }


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_leaves_a_log_and_a_benchmark(rule: str, complete: Complete) -> None:
    results = complete.folder.results
    assert (results / f"logs/{rule}.log").read_text("utf-8").strip()
    header, values = (results / f"benchmarks/{rule}.tsv").read_text("utf-8").splitlines()[:2]
    assert header.startswith("s\t")
    assert float(values.split("\t")[0]) > 0


# What a change makes run again

LAST = {"evaluate", "report"}
LATER = {"extract", "fit_lstm", *LAST}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({}, set()),
        ({"evaluate": {"note": "a {brace}, a 'quote'"}}, LAST),
        ({"fit": {"hidden": 128}}, {"fit_lstm", *LAST}),
        ({"split": {"seed": 1}}, {"split", "fit_lstm", *LAST}),
        ({"extract": {"stride": 16}}, LATER),
        ({"weights": {"random": 1}}, {"weights", *LATER}),
        ({"index": {"magnification": 100}}, {"index", "split", *LATER}),
    ],
    ids=["nothing", "note", "hidden", "split", "stride", "weights", "magnification"],
)
def test_a_changed_setting_runs_what_depends_on_it_and_nothing_else(
    changes: dict[str, Any], rules: set[str], copied: WorkFolder
) -> None:
    done = copied.snakemake("--dry-run", **changes)
    assert done.code == 0, done.text
    assert rules_in(done) == rules


def test_an_image_added_deep_in_the_folder_runs_everything_but_the_weights(
    copied: WorkFolder,
) -> None:
    first = copied.images[0]
    write_image(first.with_name(first.name.replace("-000", "-024")), 24, 64, 64)
    assert rules_in(copied.snakemake("--dry-run")) == {"index", "split", *LATER}


@pytest.mark.slow
def test_another_hidden_size_is_fitted_from_the_same_features(copied: WorkFolder) -> None:
    features = copied.results / "features.h5"
    before = features.read_bytes(), features.stat().st_mtime_ns
    metrics = (copied.results / "metrics.json").read_bytes()
    again = copied.snakemake()
    assert again.code == 0, again.text
    assert rules_in(again) == set()

    done = copied.snakemake(fit={"hidden": 8})
    assert done.code == 0, done.text
    assert rules_in(done) == {"fit_lstm", *LAST}
    assert (features.read_bytes(), features.stat().st_mtime_ns) == before
    assert (copied.results / "metrics.json").read_bytes() != metrics
    record = json.loads((copied.results / "fits/fold0/fit.json").read_text("utf-8"))
    assert record["options"]["hidden"] == 8


@pytest.mark.slow
def test_another_encoder_runs_to_the_report_and_a_change_of_it_starts_at_the_weights(
    fresh: WorkFolder,
) -> None:
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    settings = {
        "weights": {"random": 0},
        "extract": {"patch_size": 32, "stride": 32, "device": "cpu", "encoder": "timm:test_resnet"},
    }
    done = fresh.snakemake(**settings)
    assert done.code == 0, done.text
    assert rules_in(done) == set(RULES)
    metrics = json.loads((fresh.results / "metrics.json").read_text("utf-8"))
    assert metrics["images"] == 24
    assert "timm:test_resnet, timm " in (fresh.results / "report.html").read_text("utf-8")
    with FeatureCache(fresh.results / "features.h5") as cache:
        assert cache.recipe.encoder.startswith("timm:test_resnet, timm ")
        assert cache.recipe.weights == "random(seed=0)"
    assert rules_in(fresh.snakemake("--dry-run", **settings)) == set()

    vgg16 = fresh.snakemake("--dry-run")
    assert vgg16.code == 0, vgg16.text
    assert rules_in(vgg16) == {"weights", *LATER}
    done = fresh.snakemake()
    assert done.code == 0, done.text
    with FeatureCache(fresh.results / "features.h5") as cache:
        assert cache.recipe.encoder == "vgg16"


@pytest.mark.slow
def test_an_encoders_folder_is_read_and_a_change_in_it_runs_the_weights_again(
    fresh: WorkFolder,
) -> None:
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    expected = find_architecture("timm:test_resnet").state()
    folder = fresh.path / "saved/my net"
    folder.mkdir(parents=True)
    config = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    publish_model_weights(random_model_weights(expected, 1), folder / "model.safetensors")
    own = {"patch_size": 32, "stride": 32, "device": "cpu", "encoder": "timm:saved/my net"}
    settings = {"weights": {"random": None}, "extract": own}
    done = fresh.snakemake("--until", "extract", **settings)
    assert done.code == 0, done.text
    with FeatureCache(fresh.results / "features.h5") as cache:
        assert cache.recipe.encoder.startswith("timm:test_resnet?mean=[0.1%2C0.2%2C0.3], timm ")
        assert cache.recipe.weights == "random(seed=1)"
    assert rules_in(fresh.snakemake("--dry-run", "--until", "extract", **settings)) == set()
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet"}), "utf-8")
    again = fresh.snakemake("--dry-run", "--until", "extract", **settings)
    assert rules_in(again) == {"weights", "extract"}


# What is wrong before the first job


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fit": {"hiden": 64}}, ["hiden", "['fit']"]),
        ({"fit": {"hidden": "many"}}, ["hidden", "'many' is not of type 'integer'"]),
        ({"dataset": "no such folder"}, ["Missing input files for rule index", "no such folder"]),
        ({"dataset": "brace{s}"}, ["brace{s}", "rename the folder"]),
    ],
    ids=["unknown key", "type", "data set", "braces"],
)
def test_a_wrong_configuration_stops_before_any_job_and_is_named(
    changes: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    done = WorkFolder(tmp_path).snakemake(**changes)
    assert done.code != 0
    assert rules_in(done) == set()
    unwrapped = " ".join(re.sub(r"'\n\s+'", "", done.text).split())
    for part in named:
        assert part in unwrapped
    assert "Traceback" not in done.text
    assert not (tmp_path / "results").exists()


# What fails on the way


def change_unnoticed(file: Path) -> None:
    """Change a file as if that happened after Snakemake looked: size and time stay the same."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
def test_jobs_for_shards_and_folds_give_what_one_job_for_each_gives(
    complete: Complete, fresh: WorkFolder
) -> None:
    done = fresh.snakemake(scatter={"shards": 3, "folds": True})
    assert done.code == 0, done.text
    assert done.text.count("localrule extract_shard:") + done.text.count("rule extract_shard:") >= 3
    digests = ("features_sha256", "index_sha256", "digests_sha256", "manifest_sha256")
    with (
        FeatureCache(complete.folder.results / "features.h5") as one,
        FeatureCache(fresh.results / "features.h5") as three,
    ):
        for name in digests:
            assert one.attributes[name] == three.attributes[name]
    for fold in range(3):
        name = f"fits/fold{fold}/predictions.csv"
        assert (complete.folder.results / name).read_bytes() == (fresh.results / name).read_bytes()
    again = fresh.snakemake("--dry-run", scatter={"shards": 3, "folds": True})
    assert rules_in(again) == set()


@pytest.mark.slow
def test_snakemakes_own_report_has_the_page(copied: WorkFolder) -> None:
    done = copied.snakemake("--report", "snakemake.html")
    assert done.code == 0, done.text
    assert "Adding report.html" in done.text
    page = (copied.path / "snakemake.html").read_text("utf-8")
    assert "Everything about this run on one page" in page


@pytest.mark.slow
def test_images_that_fail_are_named_and_what_was_encoded_is_not_encoded_again(
    fresh: WorkFolder,
) -> None:
    truncated, replaced = fresh.images[2], fresh.images[5]
    truncated.write_bytes(truncated.read_bytes()[:3000])
    refused = fresh.snakemake("--until", "index")
    assert refused.code == 1
    assert f"{truncated.name}: unreadable: damaged image" in refused.text
    assert not (fresh.results / "manifest.csv").exists()

    allowed = fresh.snakemake("--until", "index", index={"allow_failures": 1})
    assert allowed.code == 0, allowed.text
    assert "23 images" in allowed.text
    assert "Results are in" not in allowed.text
    assert truncated.name in (fresh.results / "manifest.problems.csv").read_text("utf-8")

    change_unnoticed(replaced)
    failed = fresh.snakemake("--until", "extract", index={"allow_failures": 1})
    assert failed.code == 1
    assert f"{replaced.name}: content changed since it was indexed" in failed.text
    assert not (fresh.results / "features.h5").exists()
    assert list(fresh.results.glob("features.h5.shards/*/*.h5"))

    write_image(replaced, 99, 64, 64)
    done = fresh.snakemake(index={"allow_failures": 1})
    assert done.code == 0, done.text
    log = (fresh.results / "logs/extract.log").read_text("utf-8")
    assert "22 of 23 images are encoded already" in log
    assert "1 encoded now" in log
    assert json.loads((fresh.results / "metrics.json").read_text())["images"] == 23

    write_image(truncated, 98, 64, 64)
    added = fresh.snakemake("--until", "extract", index={"allow_failures": 1})
    assert added.code == 0, added.text
    assert "1 encoded now" in (fresh.results / "logs/extract.log").read_text("utf-8")


# The Snakefile


def test_snakemake_finds_nothing_to_improve(tmp_path: Path) -> None:
    done = WorkFolder(tmp_path).snakemake("--lint")
    assert done.code == 0, done.text

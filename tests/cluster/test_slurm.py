"""The whole workflow on a real Slurm: jobs of its own, one of them cancelled, the same result."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from slurm_cluster import ETC, PROGRAMS, Cluster, running_cluster
from small_workflow import SMALL, SNAKEFILE, WorkFolder, write_images

from cache import FeatureCache

pytestmark = pytest.mark.slow

PROFILE = SNAKEFILE.parent / "pipeline/workflow/profiles/slurm"
SCATTERED = {**SMALL, "scatter": {"shards": 3, "folds": True}}
DIGESTS = ("features_sha256", "index_sha256", "digests_sha256", "manifest_sha256", "fingerprint")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)")
    if any((ETC / name).exists() for name in ("slurm.conf", "gres.conf")):
        pytest.skip(f"{ETC} has a configuration already, which is left alone")
    if os.geteuid() != 0:
        pytest.skip("the daemons of a cluster of one's own need root")
    with running_cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def start_workflow(cluster: Cluster, folder: Path) -> "subprocess.Popen[str]":
    """Snakemake with the profile of the package, on the cluster."""
    (folder / "config.yaml").write_text(yaml.safe_dump(SCATTERED))
    words = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE), "--directory", "."]
    words += ["--configfile", "config.yaml", "--profile", str(PROFILE)]
    words += ["--max-threads", "1", "--latency-wait", "10"]
    words += ["--default-resources", "mem_mb=500", "runtime=10", "slurm_account=none"]
    words += ["--slurm-init-seconds-before-status-checks", "1"]
    home = folder / "home"
    home.mkdir()
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            words,
            cwd=folder,
            env={**cluster.environment, "HOME": str(home), "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def cancel_a_shard(cluster: Cluster, process: "subprocess.Popen[str]") -> str:
    """Cancel the first job of a shard that runs; its number."""
    while process.poll() is None:
        for number, line in cluster.jobs("running").items():
            if "extract_shard" in line:
                time.sleep(1)
                cluster.run("scancel", number)
                return number
        time.sleep(0.2)
    raise AssertionError("no job of a shard was seen running")


def test_a_cancelled_shard_is_tried_again_and_the_result_is_that_of_one_machine(cluster, tmp_path):
    write_images(tmp_path / "alone/my images")
    alone = WorkFolder(tmp_path / "alone")
    done = alone.snakemake()
    assert done.code == 0, done.text
    write_images(tmp_path / "cluster/my images")
    folder = WorkFolder(tmp_path / "cluster")
    process = start_workflow(cluster, folder.path)
    try:
        cancelled = cancel_a_shard(cluster, process)
        code = process.wait(900)
    except AssertionError as error:
        said = (folder.path / "said.txt").read_text()
        raise AssertionError(f"{error}\n{said}\n{cluster.logs()}") from error
    finally:
        process.kill()
        process.wait()
    said = (folder.path / "said.txt").read_text()
    jobs = cluster.jobs()
    print("\n".join(["jobs on Slurm (number, name, rule, state):", *jobs.values()]))
    assert code == 0, said + cluster.logs()
    assert "CANCELLED" in jobs[cancelled]
    rule = jobs[cancelled].split("|")[2]
    again = [line for line in jobs.values() if line.split("|")[2] == rule and "COMPLETED" in line]
    assert again, "the cancelled shard was not tried again"
    for name in ("extract_shard", "extract", "fit_fold", "evaluate", "report", "index", "split"):
        assert any(f"rule_{name}" in line and "COMPLETED" in line for line in jobs.values()), name
    with (
        FeatureCache(alone.results / "features.h5") as one,
        FeatureCache(folder.results / "features.h5") as many,
    ):
        for name in DIGESTS:
            assert one.attributes[name] == many.attributes[name], name
    for fold in range(3):
        table = f"fits/fold{fold}/predictions.csv"
        assert (alone.results / table).read_bytes() == (folder.results / table).read_bytes()

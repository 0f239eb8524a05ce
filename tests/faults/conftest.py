"""What the fault tests share, and the figures they print at the end of the run."""

import json
from collections import defaultdict

import pytest
from fault_extractions import Extraction, Figures, write_small_study
from fault_runs import compile_library, fault_server

from pipeline.weights.weights_file import publish_weights, random_weights


@pytest.fixture(scope="session")
def fault_library(tmp_path_factory):
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def fault_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("fault-weights") / "random.safetensors"
    publish_weights(random_weights(0), path)
    return path


@pytest.fixture(scope="session")
def server(fault_library, fault_weights):
    with fault_server(fault_library, fault_weights) as server:
        yield server


@pytest.fixture(scope="session")
def extraction(server, fault_weights, tmp_path_factory):
    base = tmp_path_factory.mktemp("extraction")
    manifest = write_small_study(base / "study")
    return Extraction(server, manifest, fault_weights).with_reference(base)


@pytest.fixture
def figures(record_property):
    return Figures(record_property)


def pytest_terminal_summary(terminalreporter):
    """Print what the tests counted, one line a title, summed over their batches."""
    totals = defaultdict(lambda: defaultdict(int))
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])
    ]
    for report in reports:
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "figures":
                title, counts = json.loads(value)
                for count, number in counts.items():
                    totals[title][count] += number
    if totals:
        terminalreporter.section("faults")
        for title, counts in totals.items():
            words = ", ".join(
                f"{number} {name.replace('_', ' ')}" for name, number in counts.items()
            )
            terminalreporter.write_line(f"{title}: {words}")

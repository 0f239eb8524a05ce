"""Of two extractions to one output, the second is refused at once, and the first is not hurt."""

import signal
import socket
from dataclasses import replace

import pytest
from fault_runs import Fault, fault_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def another(extraction, fault_library):
    """The same extraction, run by another server, so that two may run at once."""
    with fault_server(fault_library, extraction.weights) as server:
        yield replace(extraction, server=server)


def test_the_second_extraction_to_an_output_is_refused_with_the_name_of_the_first(
    extraction, another, tmp_path
):
    folder = tmp_path / "run"
    with extraction.running(folder, shards=1) as first:
        second = another.run(folder)
        in_time = not first.done()
    assert in_time, "the first was done before the second was refused"
    assert second.code in (1, 2), second.text
    assert f"process {first.result().process} on {socket.gethostname()}" in second.text
    assert second.patches == 0
    assert extraction.faults_of_end(folder, first.result()) == []


def test_an_output_that_is_being_replaced_is_refused_to_a_second_extraction(
    extraction, another, tmp_path
):
    folder = tmp_path / "run"
    assert extraction.run(folder, Fault(), "--edge", "pad").code == 0
    earlier = extraction.output(folder).read_bytes()
    with extraction.running(folder, 1, "--overwrite") as first:
        second = another.run(folder, Fault(), "--overwrite")
        assert extraction.output(folder).read_bytes() == earlier
    assert second.code in (1, 2), second.text
    assert f"process {first.result().process}" in second.text
    assert (first.result().code, extraction.loss(folder).differing) == (0, 0)


def test_two_extractions_to_two_outputs_in_one_folder_do_not_hinder_each_other(
    extraction, another, tmp_path
):
    folder = tmp_path / "run"
    other = replace(another, out="out/other.h5")
    with extraction.running(folder, shards=1) as first:
        second = other.run(folder)
    assert (first.result().code, second.code) == (0, 0), second.text
    assert [each.loss(folder).differing for each in (extraction, other)] == [0, 0]


def test_the_lock_of_a_killed_process_does_not_hinder_the_next(extraction, tmp_path):
    folder = tmp_path / "run"
    killed = extraction.run(folder, Fault(signals=((0.5, signal.SIGKILL),)))
    assert killed.code == -signal.SIGKILL
    assert extraction.faults_of_end(folder, extraction.run(folder)) == []

"""SIGTERM and SIGINT end an extraction tidily; the same command goes on."""

import random
import signal

import pytest
from fault_extractions import AHEAD, SHARD_PATCHES, faults_of_text, parts_below
from fault_runs import Action, Fault

pytestmark = pytest.mark.slow

SEED = 20260105
MOMENTS = 8
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def faults_of_stop(extraction, folder, signum, stopped, twice):
    """What is wrong with how a run ended at a signal."""
    wrong = [*faults_of_text(stopped), *extraction.faults_of_output(folder)]
    if stopped.code == 0:  # the signal came when all was done
        return wrong + extraction.faults_of_end(folder, stopped)
    if stopped.code not in (128 + signum, *[-signum] * twice):
        wrong.append(f"exit code {stopped.code}: {stopped.text[-300:]}")
    if "same command" not in stopped.text and not twice:
        wrong.append(f"does not say how to go on: {stopped.text[-300:]!r}")
    if not twice and parts_below(folder):
        wrong.append(f"left {parts_below(folder)}")
    return wrong


def stop_all(extraction, tmp_path, figures, title, signum, faults, twice=False):
    """Run with each signal, look at the end, resume, and report."""
    problems, patches, stops = [], 0, 0
    for i, fault in enumerate(faults):
        folder = tmp_path / str(i)
        stopped = extraction.run(folder, fault)
        wrong = faults_of_stop(extraction, folder, signum, stopped, twice)
        resumed = extraction.run(folder)
        wrong += extraction.faults_of_end(folder, resumed)
        redone = stopped.patches + resumed.patches - extraction.patches
        if redone > SHARD_PATCHES + AHEAD:
            wrong.append(f"{redone} patches were encoded again")
        stops, patches = stops + (stopped.code != 0), patches + redone
        problems += [[f"{fault}: {line}" for line in wrong]] if wrong else []
    figures(
        title,
        runs=len(faults),
        stopped=stops,
        resumed_to_the_same_bytes=len(faults) - len(problems),
        otherwise=len(problems),
        patches_encoded_again=patches,
    )
    assert not problems, "\n".join(line for wrong in problems for line in wrong)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_at_any_moment_stops_tidily(extraction, tmp_path, figures, signum):
    chance = random.Random(SEED + signum)
    places = [chance.randint(1, len(extraction.trace)) for _ in range(MOMENTS)]
    faults = [Fault(Action.SIGNAL, at, value=signum) for at in places]
    stop_all(extraction, tmp_path, figures, f"{signum.name} at random moments", signum, faults)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_second_signal_soon_after_loses_nothing_either(extraction, tmp_path, figures, signum):
    chance = random.Random(SEED + 100 + signum)
    faults = []
    for _ in range(MOMENTS // 2):
        at, later = chance.randint(1, len(extraction.trace)), chance.randint(0, 6)
        faults.append(Fault(Action.SIGNAL, at, again=at + later, value=signum))
    for _ in range(MOMENTS // 2):
        at, later = chance.uniform(0.1, 1.0), chance.uniform(0, 0.1)
        faults.append(Fault(signals=((at, signum), (at + later, signum))))
    title = f"{signum.name} twice"
    stop_all(extraction, tmp_path, figures, title, signum, faults, twice=True)

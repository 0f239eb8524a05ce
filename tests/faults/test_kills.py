"""A killed extraction goes on where it stopped, and ends with the same bytes."""

import random
import signal

import pytest
from fault_extractions import (
    AHEAD,
    SHARD_PATCHES,
    batch_of,
    copy_folder,
    fresh_seed,
)
from fault_runs import Action, Fault, phase

SEED = 20260101
MOMENTS = 50
MORE_MOMENTS = 1000
BATCHES = 5
KILLS = (Action.KILL_BEFORE, Action.KILL_AFTER, Action.KILL_HALF)
MOST_REDONE = SHARD_PATCHES + AHEAD


def random_kills(extraction, seed, count):
    """Kills uniform over the operations of an uninterrupted run."""
    chance = random.Random(seed)
    return [
        Fault(chance.choice(KILLS), at=chance.randint(1, len(extraction.trace)))
        for _ in range(count)
    ]


def kill_and_resume(extraction, folder, faults, forget=False):
    """Run with each fault in turn, then without; what went wrong, and patches encoded again.

    Args:
        forget: delete the output before the resumed run, as Snakemake does after a failed job.
    """
    wrong, encoded, killed = [], 0, 0
    for fault in faults:
        outcome = extraction.run(folder, fault)
        encoded, killed = encoded + outcome.patches, killed + (outcome.code == -signal.SIGKILL)
        wrong += extraction.faults_of_output(folder)
        if outcome.code not in (0, -signal.SIGKILL):
            wrong.append(f"exit code {outcome.code}: {outcome.text[-300:]}")
    if forget:
        extraction.output(folder).unlink(missing_ok=True)
    outcome = extraction.run(folder)
    wrong += extraction.faults_of_end(folder, outcome)
    redone = encoded + outcome.patches - extraction.patches
    if redone > killed * MOST_REDONE:
        wrong.append(f"{redone} patches were encoded again, more than {MOST_REDONE}")
    return [
        f"{' then '.join(map(str, faults))}{', forgotten' * forget}: {w}" for w in wrong
    ], redone


def kill_all(extraction, tmp_path, figures, title, plans):
    """Kill and resume for each plan (faults, forget) and report."""
    problems, patches = [], 0
    for i, (faults, forget) in enumerate(plans):
        wrong, redone = kill_and_resume(extraction, tmp_path / str(i), faults, forget)
        problems += [wrong] if wrong else []
        patches += redone
    figures(
        title,
        kills=sum(len(faults) for faults, _ in plans),
        resumed_to_the_same_bytes=len(plans) - len(problems),
        otherwise=len(problems),
        patches_encoded_again=patches,
        patches_in_all=len(plans) * extraction.patches,
    )
    assert not problems, "\n".join(line for wrong in problems for line in wrong)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_kill_at_any_moment_loses_nothing(extraction, tmp_path, figures, batch):
    kills = random_kills(extraction, SEED, MOMENTS)
    plans = [([kill], i % 2 == 1) for i, kill in enumerate(kills)]
    kill_all(
        extraction, tmp_path, figures, "kills at random moments", batch_of(plans, batch, BATCHES)
    )


@pytest.mark.exhaustive
def test_a_kill_at_any_of_a_thousand_moments_loses_nothing(extraction, tmp_path, figures):
    seed = fresh_seed()
    print(f"seed {seed}")
    plans = [
        ([kill], i % 2 == 1) for i, kill in enumerate(random_kills(extraction, seed, MORE_MOMENTS))
    ]
    kill_all(extraction, tmp_path, figures, f"kills at random moments, seed {seed}", plans)


def publication_kills(extraction):
    """Every operation on names after the last shard, and around the publication of one shard."""
    trace = extraction.trace
    renames = [op.number for op in trace if op.name == "rename" and phase(op) == "shard"]
    last, middle = renames[-1], renames[len(renames) // 2]
    late = [op.number for op in trace if op.number > last and op.name not in ("write", "truncate")]
    return [Fault(Action.KILL_BEFORE, at) for at in [*range(middle - 1, middle + 4), *late]]


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_kill_at_each_step_of_publishing_merging_and_tidying_loses_nothing(
    extraction, tmp_path, figures, batch
):
    """Each is resumed twice: as the kill left it, and with the output deleted by Snakemake."""
    problems, bad, again = [], set(), 0
    plans = batch_of(publication_kills(extraction), batch, BATCHES)
    for i, kill in enumerate(plans):
        folder = tmp_path / str(i)
        killed = extraction.run(folder, kill)
        copy = copy_folder(folder, tmp_path / f"{i} forgotten")
        extraction.output(copy).unlink(missing_ok=True)
        for where in (folder, copy):
            wrong = extraction.faults_of_output(where)
            resumed = extraction.run(where)
            wrong += extraction.faults_of_end(where, resumed)
            redone = killed.patches + resumed.patches - extraction.patches
            if redone > MOST_REDONE:
                wrong.append(f"{redone} patches were encoded again")
            again += redone
            bad |= {where} if wrong else set()
            problems += [f"{kill}, in {where.name}: {line}" for line in wrong]
    figures(
        "kills at each step of publishing, merging and tidying, resumed twice each",
        kills=len(plans),
        resumed_to_the_same_bytes=2 * len(plans) - len(bad),
        otherwise=len(bad),
        patches_encoded_again=again,
        patches_in_all=2 * len(plans) * extraction.patches,
    )
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(2))
def test_kills_of_the_resumed_run_as_well_lose_nothing(extraction, tmp_path, figures, batch):
    chance = random.Random(SEED + 1)
    plans = []
    for kills in (2, 2, 2, 3, 3, 3):
        places = [chance.randint(1, len(extraction.trace)) for _ in range(kills)]
        faults = [Fault(chance.choice(KILLS), at) for at in places]
        plans.append((faults, chance.random() < 0.5))
    kill_all(
        extraction,
        tmp_path,
        figures,
        "kills two or three times in a row",
        batch_of(plans, batch, 2),
    )


@pytest.mark.slow
def test_a_kill_from_outside_at_any_time_loses_nothing(extraction, tmp_path, figures):
    chance = random.Random(SEED + 2)
    delays = [chance.uniform(0.05, 1.2) for _ in range(8)]
    plans = [([Fault(signals=((delay, signal.SIGKILL),))], False) for delay in delays]
    kill_all(extraction, tmp_path, figures, "kills from outside by the clock", plans)

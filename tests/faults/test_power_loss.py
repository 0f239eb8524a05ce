"""What fsync promised is enough: when the power goes, no finished shard is lost.

The disk is simulated: see `disk_model`. The order of operations is that of a real run.
"""

import random

import pytest
from disk_model import DiskModel, model_after
from fault_extractions import SHARD_PATCHES, batch_of, fresh_seed

SEED = 20260104
MOMENTS = 50
MORE_MOMENTS = 1000
BATCHES = 3
LUCK = ("none", "all", "some")


def steps(trace):
    """Each operation that succeeded, with the disk as it was before it."""
    model = DiskModel()
    for operation in trace:
        if operation.result >= 0:
            yield operation, model
        model.apply(operation)


def is_shard(path):
    return "-of-" in path and path.endswith(".h5")


@pytest.mark.slow
def test_no_file_gets_its_name_before_its_content_is_on_the_disk(extraction):
    renamed = [
        (op, model.at(op.path)) for op, model in steps(extraction.trace) if op.name == "rename"
    ]
    assert [op.path for op, node in renamed if node.changed] == []
    assert {"out/features.h5"} < {op.target for op, _ in renamed}


@pytest.mark.slow
def test_each_shard_is_on_the_disk_before_the_next_is_begun(extraction):
    finished = []
    for operation, model in steps(extraction.trace):
        if operation.name == "open":
            assert [path for path in finished if not model.is_safe(path)] == []
        if operation.name == "rename" and is_shard(operation.target):
            finished.append(operation.target)
        if operation.name == "unlink":
            finished = [path for path in finished if path != operation.path]
    assert not finished, "the shards are removed when all is done"


@pytest.mark.slow
def test_no_shard_is_removed_before_the_merged_features_are_on_the_disk(extraction):
    removals = [
        model.is_safe("out/features.h5")
        for op, model in steps(extraction.trace)
        if op.name == "unlink" and is_shard(op.path)
    ]
    assert removals
    assert all(removals)


def finished_shards(trace, count):
    """How many shards were published by then: renamed, and their folder flushed."""
    renamed = done = 0
    for operation in trace[:count]:
        if operation.name == "rename" and is_shard(operation.target):
            renamed += 1
        elif operation.name == "fsync":
            done = renamed
    return done


def lose_power(extraction, folder, moment, luck, chance):
    """Resume on what is left after so many operations; what went wrong, and patches redone."""
    snapshots = extraction.reference.snapshots
    model_after(extraction.trace, moment).lose_power(folder, snapshots, chance, luck)
    wrong = extraction.faults_of_output(folder)
    resumed = extraction.run(folder)
    wrong += extraction.faults_of_end(folder, resumed)
    kept = SHARD_PATCHES * finished_shards(extraction.trace, moment)
    again = resumed.patches + kept - extraction.patches
    if again > 0:
        wrong.append(f"{again} patches of finished shards were encoded again")
    where = f"power lost after operation {moment}, {luck} of what was not promised arrived"
    return [f"{where}: {line}" for line in wrong], max(0, again)


def lose_power_at(extraction, tmp_path, figures, title, moments, seed):
    chance, problems, again = random.Random(seed), [], 0
    for i, (moment, luck) in enumerate(moments):
        wrong, patches = lose_power(extraction, tmp_path / str(i), moment, luck, chance)
        problems += [wrong] if wrong else []
        again += patches
    figures(
        title,
        losses=len(moments),
        resumed_to_the_same_bytes=len(moments) - len(problems),
        otherwise=len(problems),
        patches_of_finished_shards_encoded_again=again,
    )
    assert not problems, "\n".join(line for wrong in problems for line in wrong)


def random_moments(extraction, seed, count):
    chance = random.Random(seed)
    return [(chance.randint(0, len(extraction.trace)), LUCK[i % 3]) for i in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_power_lost_at_any_moment_costs_no_finished_shard(extraction, tmp_path, figures, batch):
    moments = batch_of(random_moments(extraction, SEED, MOMENTS), batch, BATCHES)
    title = "power lost at random moments"
    lose_power_at(extraction, tmp_path, figures, title, moments, SEED + batch)


@pytest.mark.slow
@pytest.mark.parametrize("luck", LUCK)
def test_power_lost_while_merging_and_tidying_costs_no_finished_shard(
    extraction, tmp_path, figures, luck
):
    trace = extraction.trace
    last = max(op.number for op in trace if op.name == "rename" and is_shard(op.target))
    late = [op.number for op in trace if op.number >= last and op.name not in ("write", "truncate")]
    title = "power lost at each step of merging and tidying"
    moments = [(moment, luck) for moment in late]
    lose_power_at(extraction, tmp_path, figures, title, moments, SEED)


@pytest.mark.exhaustive
def test_power_lost_at_any_of_a_thousand_moments_costs_no_finished_shard(
    extraction, tmp_path, figures
):
    seed = fresh_seed()
    moments = random_moments(extraction, seed, MORE_MOMENTS)
    title = f"power lost at random moments, seed {seed}"
    lose_power_at(extraction, tmp_path, figures, title, moments, seed)

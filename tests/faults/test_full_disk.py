"""A full or failing disk ends an extraction with a message, and costs nothing that was done."""

import errno
import random

import pytest
from fault_extractions import batch_of, copy_folder, faults_of_text, fresh_seed
from fault_runs import NO_FAULT, Action, Fault, read_trace

SEED = 20260102
MOMENTS = 50
MORE_MOMENTS = 500
BATCHES = 4
ALLOCATES = ("open", "write", "truncate", "link", "mkdir")


def random_failures(extraction, code, seed, count):
    """Faults at random operations that can fail so, half of them for good."""
    chance = random.Random(seed)
    able = [op for op in extraction.trace if code != errno.ENOSPC or op.name in ALLOCATES]
    return [
        Fault(
            chance.choice((Action.FAIL, Action.FAIL, Action.FAIL_HALF)),
            at=chance.choice(able).number,
            value=code,
            sticky=i % 2 == 1,
        )
        for i in range(count)
    ]


def faults_of_failure(extraction, folder, outcome):
    """What is wrong with the end of a run whose disk failed."""
    wrong = [*faults_of_text(outcome), *extraction.faults_of_output(folder)]
    if outcome.code == 0:  # the fault hit nothing that the output needs
        return wrong + extraction.faults_of_end(folder, outcome, tidy=False)
    errors = [line for line in outcome.text.splitlines() if line.startswith("error: ")]
    if outcome.code != 1:
        wrong.append(f"exit code {outcome.code}: {outcome.text[-300:]}")
    if len(errors) != 1 or "features.h5" not in errors[0]:
        wrong.append(f"the message names no file: {outcome.text[-300:]!r}")
    if "internal fault" in outcome.text:
        wrong.append(f"taken for an internal fault: {outcome.text[-300:]!r}")
    return wrong


def fail_all(extraction, tmp_path, figures, title, faults):
    """Run with each fault, resume without, and report."""
    problems, harmless, patches = [], 0, 0
    for i, fault in enumerate(faults):
        folder = tmp_path / str(i)
        failed = extraction.run(folder, fault)
        wrong = faults_of_failure(extraction, folder, failed)
        resumed = extraction.run(folder)
        wrong += extraction.faults_of_end(folder, resumed)
        harmless += failed.code == 0
        patches += failed.patches + resumed.patches - extraction.patches
        problems += [[f"{fault}: {line}" for line in wrong]] if wrong else []
    figures(
        title,
        failures=len(faults),
        refused_with_a_message=len(faults) - harmless - len(problems),
        harmless=harmless,
        otherwise=len(problems),
        patches_encoded_again=patches,
    )
    assert not problems, "\n".join(line for wrong in problems for line in wrong)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_failing_write_at_any_moment_is_told_and_loses_nothing(
    extraction, tmp_path, figures, code, batch
):
    faults = random_failures(extraction, code, SEED + code, MOMENTS)
    title = f"{errno.errorcode[code]} at random moments"
    fail_all(extraction, tmp_path, figures, title, batch_of(faults, batch, BATCHES))


@pytest.mark.exhaustive
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_failing_write_at_any_of_many_moments_loses_nothing(extraction, tmp_path, figures, code):
    seed = fresh_seed()
    faults = random_failures(extraction, code, seed, MORE_MOMENTS)
    title = f"{errno.errorcode[code]} at random moments, seed {seed}"
    fail_all(extraction, tmp_path, figures, title, faults)


@pytest.mark.slow
def test_a_failing_fsync_or_rename_is_told_and_loses_nothing(extraction, tmp_path, figures):
    """An fsync that failed may never be tried again: the file counts as lost."""
    chance = random.Random(SEED)
    of_kind = {
        name: [op.number for op in extraction.trace if op.name == name and op.result >= 0]
        for name in ("fsync", "rename")
    }
    faults = [
        Fault(Action.FAIL, at, value=errno.EIO)
        for places in of_kind.values()
        for at in [*chance.sample(places[:-2], 3), *places[-2:]]
    ]
    fail_all(extraction, tmp_path, figures, "EIO of fsync and rename", faults)


@pytest.mark.slow
def test_a_folder_that_turns_read_only_is_told_and_loses_nothing(extraction, tmp_path, figures):
    chance = random.Random(SEED + 1)
    places = [chance.randint(1, len(extraction.trace)) for _ in range(6)]
    faults = [Fault(Action.FAIL, at, value=errno.EROFS, sticky=True) for at in places]
    fail_all(extraction, tmp_path, figures, "EROFS from a random moment on", faults)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_disk_that_fails_leaves_an_earlier_output_as_it_was(extraction, tmp_path, code):
    """An output of another recipe is to be replaced, and is there until the moment it is."""
    start = tmp_path / "start"
    assert extraction.run(start, NO_FAULT, "--edge", "pad").code == 0
    earlier = extraction.output(start).read_bytes()
    watched = copy_folder(start, tmp_path / "watched")
    trace = tmp_path / "trace"
    assert extraction.run(watched, Fault(trace=str(trace)), "--overwrite").code == 0
    operations = read_trace(trace, watched)
    final = next(op.number for op in operations if op.target == "out/features.h5")
    able = [op.number for op in operations[: final - 1] if op.name in ALLOCATES]
    chance = random.Random(SEED + code)
    for at in [*chance.sample(able[:-1], 4), able[-1]]:
        folder = copy_folder(start, tmp_path / str(at))
        failed = extraction.run(folder, Fault(Action.FAIL, at, 0, code, True), "--overwrite")
        assert failed.code == 1, failed.text
        assert extraction.output(folder).read_bytes() == earlier
        resumed = extraction.run(folder, NO_FAULT, "--overwrite")
        assert resumed.code == 0, resumed.text
        assert extraction.loss(folder).differing == 0

"""Damaged and forged files are read or refused, never anything else, at once, without a crash."""

import time

import pytest
from fuzzing import check, fuzz

SEED = 20240
COUNTS = {
    "manifest": 45_000,
    "splits": 25_000,
    "foreign": 5_000,
    "model": 20_000,
    "cache": 10_000,
    "fits": 5_000,
    "images": 5_000,
}
FEW = {"manifest": 500, "splits": 500, "foreign": 300, "model": 200, "cache": 100, "fits": 200}


@pytest.mark.slow
@pytest.mark.parametrize("target", COUNTS)
def test_a_damaged_file_is_read_or_refused(tmp_path, target, figures):
    result = fuzz(target, COUNTS[target], SEED, tmp_path)
    figures(
        f"fuzzed: {target}",
        read=result.accepted,
        refused=result.refused,
        milliseconds_the_slowest=round(1000 * result.slowest),
        megabytes_of_growth=result.growth // 1_000_000,
    )
    check(result, COUNTS[target])


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", COUNTS)
def test_ten_times_as_many_from_a_fresh_seed(tmp_path, target):
    check(fuzz(target, 10 * COUNTS[target], time.time_ns(), tmp_path), 10 * COUNTS[target])


@pytest.mark.parametrize("target", FEW)
def test_a_few_of_them_take_no_time(tmp_path, target):
    check(fuzz(target, FEW[target], SEED, tmp_path), FEW[target])


def test_a_crash_is_reported_with_its_input(tmp_path):
    result = fuzz("crash", 10, SEED, tmp_path)
    assert "exit -6 on b'crash'" in result.faults[0]
    with pytest.raises(AssertionError, match="exit -6"):
        check(result, 10)


@pytest.mark.parametrize("fault", [pytest.param("hang", marks=pytest.mark.slow), "memory", "other"])
def test_what_fuzzing_looks_for_would_be_found(tmp_path, fault):
    result = fuzz(fault, 1, SEED, tmp_path)
    expected = {"hang": "TimeoutError", "memory": "MemoryError", "other": "ZeroDivisionError"}
    assert expected[fault] in result.faults[0]
    assert f"(seed {SEED}-0)" in result.faults[0]

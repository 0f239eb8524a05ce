"""Damaged and forged caches are read or refused, never anything else, at once, without a crash."""

import time

import pytest
from fuzzing import check, fuzz

SEED = 20240
COUNT = 10_000


@pytest.mark.slow
def test_a_damaged_cache_is_read_or_refused(tmp_path, figures):
    result = fuzz("cache", COUNT, SEED, tmp_path)
    figures("fuzzed: cache", read=result.accepted, refused=result.refused)
    check(result, COUNT)


@pytest.mark.exhaustive
def test_ten_times_as_many_from_a_fresh_seed(tmp_path):
    check(fuzz("cache", 10 * COUNT, time.time_ns(), tmp_path), 10 * COUNT)


def test_a_few_of_them_take_no_time(tmp_path):
    check(fuzz("cache", 100, SEED, tmp_path), 100)


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

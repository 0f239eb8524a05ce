"""How findings are shown: as a table with advice, and as JSON."""

import json
import sys

from pipeline.doctor.finding import FAULT, NOTE, OK, Finding, to_json, to_text

MIXED = [
    Finding("one", OK, "1.0"),
    Finding("two", NOTE, "slow", "buy a faster one"),
    Finding("three", FAULT, "broken, " * 30, "mend it"),
]


def test_the_text_is_an_aligned_table_then_the_advice_then_the_number_of_faults():
    lines = to_text(MIXED).splitlines()
    assert lines[0].split() == ["check", "state", "found"]
    assert [line.index(word) for line, word in zip(lines[2:4], ["1.0", "slow"], strict=True)] == [
        lines[0].index("found")
    ] * 2
    assert max(map(len, lines)) <= 100
    assert lines[-4:] == ["note, two: buy a faster one", "fault, three: mend it", "", "1 fault."]
    assert to_text([*MIXED, MIXED[2]]).endswith("\n\n2 faults.")
    assert to_text(MIXED[:2]).endswith("\n\nAll is well.")


def test_a_missing_tabulate_is_told_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tabulate", None)
    assert to_text(MIXED[:1]) == "one  ok  1.0\n\nAll is well."


def test_the_json_is_a_list_of_objects():
    assert json.loads(to_json(MIXED[1:2])) == [
        {"name": "two", "state": "note", "found": "slow", "advice": "buy a faster one"}
    ]

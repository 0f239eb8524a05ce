"""What a check found, and how findings are shown."""

import json
from collections import Counter
from typing import NamedTuple

OK, NOTE, FAULT = "ok", "note", "fault"
"""A note is about what works, but slower, or without something that is optional."""

_WIDTH = 76


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        name: of the check.
        state: `OK`, `NOTE` or `FAULT`.
        found: what is there, and what was expected where that differs.
        advice: what to do; empty if there is nothing to do.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def to_text(findings: list[Finding]) -> str:
    """The findings as a table for a terminal, then the advice, then how many faults there are."""
    advice = "\n".join(f"{f.state}, {f.name}: {f.advice}" for f in findings if f.advice)
    faults = Counter(finding.state for finding in findings)[FAULT]
    verdict = f"{faults} fault{'s' if faults > 1 else ''}." if faults else "All is well."
    return "\n\n".join(filter(None, (_table(findings), advice, verdict)))


def _table(findings: list[Finding]) -> str:
    rows = [(finding.name, finding.state, finding.found) for finding in findings]
    try:
        from tabulate import tabulate
    except ImportError:  # one of the packages whose lack is to be told
        return "\n".join("  ".join(row) for row in rows)
    widths = [None, None, _WIDTH]
    headers = ["check", "state", "found"]
    return tabulate(rows, headers, disable_numparse=True, maxcolwidths=widths)


def to_json(findings: list[Finding]) -> str:
    """The findings as a JSON list of objects."""
    return json.dumps([finding._asdict() for finding in findings], indent=2)

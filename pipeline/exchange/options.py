"""What a user chooses about an export."""

from dataclasses import dataclass
from typing import Any

Facts = dict[str, Any]
"""What a layout adds to `export.json`: JSON values."""


@dataclass(frozen=True)
class Options:
    """How an export is made.

    Attributes:
        mpp: micrometres a pixel, for layouts whose coordinates are lengths.
        view: the view to export; None takes the only one.
        overwrite: replace an earlier export.
    """

    mpp: float | None = None
    view: str | None = None
    overwrite: bool = False

"""Figures of matplotlib as SVG that takes its colours from the page."""

import io
import re
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

COLOURS: Mapping[str, str] = {
    "ink": "#010203",
    "grid": "#040506",
    "one": "#070809",
    "two": "#0a0b0c",
    "three": "#0d0e0f",
}
"""Placeholders for the page's own colours, which differ between light and dark."""

INK, GRID, ONE, TWO, THREE = COLOURS.values()

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}
"""Settings of matplotlib under which figures are made."""


def to_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an SVG element.

    Args:
        figure: made with `STYLE`, without a background.
        name: tells its ids from those of the other figures on the page.
        description: what a reader who does not see it is told.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, placeholder in COLOURS.items():
        text = text.replace(placeholder, f"var(--{colour})")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)

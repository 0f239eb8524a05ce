"""What is in a cache, on one screen."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cache import FeatureCache

_COUNTED = ("label", "subtype", "magnification")


def describe(path: Path) -> dict[str, Any]:
    """Describe a cache as JSON values.

    Raises:
        CacheError: the file is not a sound cache.
    """
    with FeatureCache(path) as cache:
        images = cache.images
        return {
            "file": str(path),
            "bytes": path.stat().st_size,
            "format_version": cache.attributes["format_version"],
            "fingerprint": cache.fingerprint,
            "images": len(cache),
            "patches": cache.patches,
            "feature_dim": cache.recipe.feature_dim,
            "sources": [source.name for source in cache.sources],
            "slides": len({slide for slide in images["slide"] if slide}),
            "cases": len({case for case in images["case"] if case}),
            "counts": {
                name: {
                    str(key or ""): n for key, n in sorted(Counter(images[name].tolist()).items())
                }
                for name in _COUNTED
            },
            "statistics": cache.has_statistics,
            "failures": [failure._asdict() for failure in cache.failures],
            "recipe": dataclasses.asdict(cache.recipe),
            "provenance": cache.provenance,
        }


def to_text(description: dict[str, Any]) -> str:
    """The description as a table for a terminal."""
    lengths = f"{description['patches']} of {description['feature_dim']} features"
    rows = [
        ("file", f"{description['file']} ({description['bytes'] / 1e6:.1f} MB)"),
        ("format", description["format_version"]),
        ("fingerprint", description["fingerprint"]),
        ("images", description["images"]),
        ("patches", lengths),
        ("features in", _places(description["sources"])),
        ("slides, cases", f"{description['slides']}, {description['cases']}"),
        *((name, _counts(description["counts"][name])) for name in _COUNTED),
        ("statistics", "of every image" if description["statistics"] else "none"),
        ("without features", len(description["failures"])),
        *(("recipe " + name, value) for name, value in description["recipe"].items()),
        *(("made: " + name, value) for name, value in description["provenance"].items()),
    ]
    return tabulate([(name, _short(value)) for name, value in rows], tablefmt="plain")


def _places(sources: list[str]) -> str:
    """Where the features are: in the file, or in the shards that a virtual cache names."""
    return f"{len(sources)} shards: {', '.join(sources)}" if sources else "the file"


def _counts(counts: dict[str, int]) -> str:
    shown = [f"{n} {key or 'unknown'}" for key, n in counts.items()]
    return ", ".join(shown[:8]) + (f", and {len(shown) - 8} more" if len(shown) > 8 else "")


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 100 else text[:99] + "…"

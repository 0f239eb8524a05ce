"""`export.json`: what an export was made from, for whoever imports it again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache import RecipeError
from cache.schema import Recipe, canonical_json
from pipeline.errors import UsageError
from pipeline.exchange.folders import RECORD
from pipeline.exchange.micrometres import MAX_MPP
from pipeline.exchange.source import Source
from pipeline.user_file import read_file

FORMAT = "patch-feature-cache export"
VERSION = 1
_MAX_BYTES = 1 << 24


@dataclass(frozen=True)
class Record:
    """What an `export.json` says.

    Attributes:
        layout: the tool whose layout the files have.
        recipe: how the features were made.
        features_sha256: digest of all features of the cache that was exported.
        mpp: micrometres a pixel; None if it was not stated.
    """

    layout: str
    recipe: Recipe
    features_sha256: str
    mpp: float | None


def write_record(folder: Path, layout: str, source: Source, facts: Mapping[str, Any]) -> None:
    """Write `export.json` into a folder that is not published yet.

    Args:
        folder: the export.
        layout: whose layout it has.
        source: what was exported.
        facts: what the layout adds.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout,
        "cache": source.cache.path.name,
        "recipe": asdict(source.recipe),
        "fingerprint": source.recipe.fingerprint,
        "cache_fingerprint": source.cache.fingerprint,
        "features_sha256": source.cache.attributes["features_sha256"],
        "images": len(source.cache),
        "patches": int(source.offsets[-1]),
        "feature_dim": source.recipe.feature_dim,
        "without_features": len(source.cache.failures),
        **facts,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path, layout: str) -> Record | None:
    """The record of an export; None if the folder is none of ours.

    Raises:
        UsageError: it is damaged, or the export has another layout.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    content = _read_json(path)
    if content.get("layout") != layout:
        raise UsageError(
            f"{path}: layout is {content.get('layout')!r}, expected {layout!r}: import it with "
            "--from as it was exported --to"
        )
    return Record(layout, _read_recipe(path, content), _text(content, path), _mpp(content, path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_file(path, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error}): export again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: not of an export (no format {FORMAT!r}): remove or rename it")
    if content.get("version") != VERSION:
        raise UsageError(
            f"{path}: version {content.get('version')!r}, expected {VERSION}: use newer software"
        )
    return content


def _read_recipe(path: Path, content: dict[str, Any]) -> Recipe:
    try:
        recipe = Recipe.from_json(canonical_json(content.get("recipe")))
    except RecipeError as error:
        raise UsageError(f"{path}: {error}: export again") from error
    if content.get("fingerprint") != recipe.fingerprint or len(recipe.views) != 1:
        raise UsageError(f"{path}: fingerprint is not that of its recipe: export again")
    return recipe


def _text(content: dict[str, Any], path: Path) -> str:
    found = content.get("features_sha256")
    if not isinstance(found, str) or len(found) != 64:
        raise UsageError(f"{path}: features_sha256 is {str(found)[:80]!r}: export again")
    return found


def _mpp(content: dict[str, Any], path: Path) -> float | None:
    found = content.get("mpp")
    if found is None or (type(found) is float and 0 < found < MAX_MPP):
        return found
    raise UsageError(f"{path}: mpp is {str(found)[:80]!r}, expected a number: export again")

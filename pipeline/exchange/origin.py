"""The recipe of imported features: what the files, `export.json` and the user say of them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cache import Recipe
from pipeline.errors import UsageError
from pipeline.exchange.describe import Described
from pipeline.exchange.foreign_file import ForeignFileError
from pipeline.exchange.layouts import encoder_name, imported_encoder
from pipeline.exchange.micrometres import check_mpp
from pipeline.exchange.record import Record, read_record

UNKNOWN = "unknown"
AS_IMPORTED = "as imported"
_OPTIONS = {
    "encoder": "--encoder uni_v1",
    "patch_size": "--patch-size 256",
    "stride": "--stride 256",
}

_Value = TypeVar("_Value", str, int)


@dataclass(frozen=True)
class Origin:
    """Where features come from.

    Attributes:
        tool: whose files they are.
        stated: what is known before a file is opened, from the user or `export.json`.
        mpp: micrometres a pixel; None where coordinates are pixels.
        record: what `export.json` says; None if the files are no export of this software.
    """

    tool: str
    stated: Described
    mpp: float | None
    record: Record | None

    def recipe(self, described: Described, dim: int, dtype: str) -> Recipe:
        """The recipe of a file's features.

        Args:
            described: what the file says.
            dim: columns of its features.
            dtype: type of its features.

        Raises:
            ForeignFileError: what it says contradicts what was stated, or does not suffice.
        """
        encoder = _agreed("encoder", described.encoder, self.stated.encoder)
        patch_size = _agreed("patch_size", described.patch_size, self.stated.patch_size)
        if self.record is not None:
            return self._recorded(self.record.recipe, dim)
        stride = self.stated.stride or described.stride or patch_size
        return Recipe(
            encoder=imported_encoder(self.tool, encoder),
            weights=UNKNOWN,
            weights_sha256=UNKNOWN,
            layer=AS_IMPORTED,
            pooling=AS_IMPORTED,
            feature_dim=dim,
            patch_size=patch_size,
            stride=stride,
            scan_order=AS_IMPORTED,
            edge_policy=AS_IMPORTED,
            colour=AS_IMPORTED,
            normalisation=AS_IMPORTED,
            precision=AS_IMPORTED,
            dtype=dtype,
            views=("identity",),
        )

    def _recorded(self, recipe: Recipe, dim: int) -> Recipe:
        if recipe.feature_dim != dim:
            raise ForeignFileError(
                f"{dim} features a patch, export.json says {recipe.feature_dim}: export again, or "
                "remove export.json to import the files without it"
            )
        encoder = imported_encoder(self.tool, encoder_name(recipe.encoder))
        return dataclasses.replace(recipe, encoder=encoder)


def find_origin(folder: Path, tool: str, stated: Described, mpp: float | None) -> Origin:
    """What is known of the files in a folder before one is opened.

    Args:
        folder: the folder, in which `export.json` is if this software made it.
        tool: one of `pipeline.exchange.layouts.LAYOUTS`.
        stated: what the user says.
        mpp: micrometres a pixel, as the user says.

    Raises:
        UsageError: what the user says is missing, or contradicts `export.json`.
    """
    check_mpp(mpp)
    if (mpp is None) == (tool == "stamp"):
        raise UsageError(
            "--mpp is missing: STAMP's coordinates are micrometres: state the size of a pixel, "
            "such as --mpp 0.5"
            if mpp is None
            else f"--mpp is for stamp: the coordinates of {tool} are pixels: leave it out"
        )
    record = read_record(folder, tool)
    if record is None:
        return Origin(tool, stated, mpp, None)
    recipe = record.recipe
    known = Described(encoder_name(recipe.encoder), recipe.patch_size, recipe.stride)
    for name, mine, theirs in [
        *((key, getattr(stated, key), getattr(known, key)) for key in _OPTIONS),
        ("mpp", mpp, record.mpp),
    ]:
        if mine is not None and mine != theirs:
            raise UsageError(
                f"{folder}: {name} {mine!r} was stated, expected {theirs!r} as in export.json"
            )
    return Origin(tool, known, mpp, record)


def _agreed(name: str, found: _Value | None, stated: _Value | None) -> _Value:
    if found is not None and stated is not None and found != stated:
        raise ForeignFileError(f"{name} is {found!r}, expected {stated!r} as stated")
    if found is not None:
        return found
    if stated is not None:
        return stated
    raise ForeignFileError(f"does not say its {name}: state it, such as {_OPTIONS[name]}")

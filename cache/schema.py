"""Names, types and version of the cache format; the recipe, its fingerprint; provenance.

`FORMAT.md` beside this file is the specification. This module is its only other statement.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from cache.errors import ImageTableError, RecipeError

FORMAT_NAME = "patch-feature-cache"
FORMAT_VERSION = "1.1"
VIRTUAL_VERSION = "1.2"
"""Of files whose features lie in others; all else that 1.2 is, 1.1 is."""
FEATURE_DTYPES = ("float16", "float32")
MAX_VIEWS = 255


class ImageRow(NamedTuple):
    """One image of a data set: a row of the manifest and of the cache's image table.

    Text that is not known is empty; a `magnification` that is not known is 0. `path` is
    absolute, or relative to the folder of the manifest that names it. `sha256` is that of the
    file's bytes, `width` and `height` are in pixels.
    """

    image_id: str
    path: str
    label: str
    subtype: str
    slide: str
    case: str
    magnification: int
    width: int
    height: int
    sha256: str


TEXT_COLUMNS = ("image_id", "path", "label", "subtype", "slide", "case", "sha256")
NUMBER_COLUMNS = ("magnification", "width", "height")


MAX_ID_BYTES = 200
"""Bytes of an id in UTF-8: with an ending, a file can have its name."""


class Failure(NamedTuple):
    """An image that has no features, and why."""

    image_id: str
    path: str
    reason: str


class ShardPlace(NamedTuple):
    """The place of a shard: `number` (from 0) of `total`, in the extraction named by `plan`."""

    number: int
    total: int
    plan: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that can change the value of a feature.

    Attributes:
        encoder: identifier of the network, which changes whenever its computation does.
        weights: name of the weights: `imagenet`, `custom`, or `random(seed=N)`.
        weights_sha256: SHA-256 of the arrays' bytes, little-endian, in layer order.
        layer: the layer whose output is pooled.
        pooling: how its spatial positions become one vector.
        feature_dim: length D of that vector.
        patch_size: side of the square patches, in pixels.
        stride: distance between neighbouring patches, in pixels.
        scan_order: which of an image's patches are encoded, in which order.
        edge_policy: what happens to pixels that do not fill a patch.
        colour: what pixels are taken to be.
        normalisation: what is done to them before the first layer.
        precision: arithmetic of the network.
        dtype: type in which features are stored.
        views: the versions of an image that are encoded, one after another.
    """

    encoder: str
    weights: str
    weights_sha256: str
    layer: str
    pooling: str
    feature_dim: int
    patch_size: int
    stride: int
    scan_order: str
    edge_policy: str
    colour: str
    normalisation: str
    precision: str
    dtype: str
    views: tuple[str, ...]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_field(field.name, getattr(self, field.name))
        if self.dtype not in FEATURE_DTYPES:
            raise RecipeError(f"recipe: dtype is {self.dtype!r}, expected float16 or float32")

    def to_json(self) -> str:
        """The canonical JSON: keys sorted, no spaces, ASCII."""
        return canonical_json(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a recipe.

        Raises:
            RecipeError: the text is not JSON, or has missing, unexpected or ill-typed fields.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"recipe: not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise RecipeError("recipe: not a JSON object")
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) != known:
            missing, unexpected = sorted(known - set(values)), sorted(set(values) - known)
            raise RecipeError(f"recipe: fields missing {missing}, unexpected {unexpected}")
        if isinstance(values["views"], list):
            values["views"] = tuple(values["views"])
        return cls(**values)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def differences(self, other: "Recipe") -> list[str]:
        """One line for each field in which `other` differs: `field: mine, other's`."""
        return [
            f"{field.name}: {getattr(self, field.name)!r}, {getattr(other, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def _check_field(name: str, value: object) -> None:
    if name in ("feature_dim", "patch_size", "stride"):
        if type(value) is not int or not 1 <= value < 2**31:
            raise RecipeError(f"recipe: {name} is {value!r}, expected a positive whole number")
    elif name == "views":
        if not isinstance(value, tuple) or not value or not all(type(v) is str for v in value):
            raise RecipeError(f"recipe: views is {value!r}, expected a list of names")
        if len(value) > MAX_VIEWS:
            raise RecipeError(f"recipe: {len(value)} views, expected at most {MAX_VIEWS}")
    elif type(value) is not str or not value:
        raise RecipeError(f"recipe: {name} is {value!r}, expected a name")


def read_provenance(text: str) -> dict[str, str]:
    """Read the attribute `provenance`.

    Raises:
        ValueError: it is not a JSON object of texts.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ValueError("provenance is not an object of texts")
    return found


def read_failures(text: str) -> list[Failure]:
    """Read the attribute `failures`.

    Raises:
        ValueError: it is not a JSON array of three texts each.
    """
    found = json.loads(text)
    if not isinstance(found, list) or not all(_is_failure(entry) for entry in found):
        raise ValueError("failures are not triples of texts")
    return [Failure(*entry) for entry in found]


def _is_failure(entry: object) -> bool:
    is_triple = isinstance(entry, list) and len(entry) == len(Failure._fields)
    return is_triple and all(isinstance(text, str) for text in entry)  # type: ignore[attr-defined]


def read_place(text: str) -> ShardPlace:
    """Read the attribute `shard`.

    Raises:
        ValueError: it is not the place of a shard.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or set(found) != set(ShardPlace._fields):
        raise ValueError("shard is not a place")
    place = ShardPlace(**found)
    if not all(type(n) is int for n in place[:2]) or not 0 <= place.number < place.total:
        raise ValueError(f"shard {place.number!r} of {place.total!r}")
    if not isinstance(place.plan, str):
        raise ValueError("the plan of a shard is not a text")
    return place


def canonical_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """JSON with sorted keys, without spaces, in ASCII: equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def check_row(row: ImageRow, where: str) -> ImageRow:
    """Check one row of the image table against the format.

    Args:
        row: the row.
        where: what names it in a message, such as `manifest.csv, line 7`.

    Raises:
        ImageTableError: an id, path or digest is missing, an id cannot be the name of a file, a
            text holds a control character, or a number is out of range.
    """
    for name in TEXT_COLUMNS:
        text = getattr(row, name)
        if not text.isprintable():
            raise ImageTableError(
                f"{where}: {name} {text[:80]!r} holds a character that cannot be shown"
            )
    for name in ("image_id", "path", "label"):
        if not getattr(row, name):
            raise ImageTableError(f"{where}: {name} is empty")
    _check_id(row.image_id, where)
    if len(row.sha256) != 64 or set(row.sha256) - set("0123456789abcdef"):
        raise ImageTableError(f"{where}: sha256 {row.sha256!r} is not 64 hexadecimal digits")
    for name in NUMBER_COLUMNS:
        if not 0 <= getattr(row, name) < 2**31:
            raise ImageTableError(f"{where}: {name} {getattr(row, name)} is out of range")
    return row


def _check_id(image_id: str, where: str) -> None:
    """Check that an id is one part of a path, so that a file can have its name."""
    if image_id in (".", "..") or "/" in image_id or "\\" in image_id:
        raise ImageTableError(
            f"{where}: image_id {image_id[:80]!r} is not a file name: choose one without / and \\"
        )
    if len(image_id.encode()) > MAX_ID_BYTES:
        raise ImageTableError(
            f"{where}: image_id {image_id[:80]!r}… has {len(image_id.encode())} bytes, expected at "
            f"most {MAX_ID_BYTES}: choose a shorter one"
        )

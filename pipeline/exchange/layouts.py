"""How other tools lay their feature files: names of folders and datasets, as they document them."""

from typing import NamedTuple


class Layout(NamedTuple):
    """One HDF5 file an image.

    Attributes:
        folders: pattern of the folder that holds the files, in the folder of the tool.
        features: name of the dataset (n, D).
        coords: name of the dataset (n, 2).
    """

    folders: str
    features: str
    coords: str


LAYOUTS = {
    "trident": Layout("features_*", "features", "coords"),
    "clam": Layout("h5_files", "features", "coords"),
    "stamp": Layout("features", "feats", "coords"),
}
"""Tools whose files can be read and written."""

IMPORTED = "imported"
"""Begins a recipe's `encoder` if the features were made elsewhere: `imported:trident:uni_v1`."""


def imported_encoder(tool: str, encoder: str) -> str:
    """What a recipe calls an encoder whose features came from the files of `tool`."""
    return f"{IMPORTED}:{tool}:{encoder}"


def encoder_name(encoder: str) -> str:
    """The encoder's own name: of `imported:trident:uni_v1`, `uni_v1`."""
    return encoder.split(":", 2)[2] if encoder.startswith(f"{IMPORTED}:") else encoder

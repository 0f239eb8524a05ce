"""Model files, sound and forged, as bytes."""

import json
from pathlib import Path

import torch
from small_caches import make_recipe

from pipeline.fitting.classifier import ClassifierSizes, LstmClassifier
from pipeline.fitting.model_file import Model, save_model


def write_model(path: Path) -> Path:
    """A small sound model."""
    torch.manual_seed(0)
    sizes = ClassifierSizes(4, projection=3, hidden=2)
    network = LstmClassifier(sizes).eval()
    recipe = make_recipe()
    save_model(path, Model(network, recipe, ("benign", "malignant"), 0, "case-disjoint, 5 folds"))
    return path


def parts_of(data: bytes) -> tuple[dict, bytes]:
    """Header and arrays of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: object, arrays: bytes, size: int | None = None) -> bytes:
    """A safetensors file of any header, which may lie about its size."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + arrays


def with_metadata(data: bytes, **changes: str | None) -> bytes:
    """The file with other metadata; None removes an entry."""
    header, arrays = parts_of(data)
    metadata = {**header["__metadata__"], **changes}
    header["__metadata__"] = {k: v for k, v in metadata.items() if v is not None}
    return joined(header, arrays)


def with_sizes(data: bytes, **changes: object) -> bytes:
    """The file with other sizes of its classifier."""
    sizes = json.loads(parts_of(data)[0]["__metadata__"]["sizes"])
    return with_metadata(data, sizes=json.dumps({**sizes, **changes}))


def with_entry(data: bytes, name: str, **changes: object) -> bytes:
    """The file with another description of one of its arrays."""
    header, arrays = parts_of(data)
    header[name] = {**header.get(name, {}), **changes}
    return joined(header, arrays)

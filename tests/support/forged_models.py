"""Model files, sound and forged, as bytes."""

import json
from pathlib import Path

import torch
from small_caches import DIM, make_recipe

from pipeline.fitting.familiar import Familiar
from pipeline.fitting.model_file import Model, save_model
from pipeline.fitting.networks import LstmNetwork, NetworkSizes
from pipeline.fitting.whitening import Whitening

SIZES = NetworkSizes(members=2, inputs=2, projection=3, hidden=2)


def sound_model(sizes: NetworkSizes = SIZES, **changes: object) -> Model:
    """A small model of features of which three columns are used."""
    generator = torch.Generator().manual_seed(0)
    network = LstmNetwork(sizes).eval()
    network.initialise(generator)
    columns = torch.tensor([3, 0, 1])
    whitening = Whitening(
        columns,
        torch.rand(3, generator=generator) + 0.5,
        torch.randn(3, generator=generator),
        torch.randn(3, sizes.inputs, generator=generator),
    )
    fields = {
        "whitening": whitening,
        "network": network,
        "familiar": Familiar(torch.randn(5, sizes.inputs, generator=generator), 1.5),
        "recipe": make_recipe(feature_dim=DIM),
        "classes": ("benign", "malignant"),
        "target": "label",
        "fold": 0,
        "protocol": "case-disjoint, 5 folds",
        "temperature": 1.25,
        "threshold": 0.5,
        "sequence_length": 512,
    }
    return Model(**{**fields, **changes})


def write_model(path: Path) -> Path:
    """A small sound model."""
    save_model(path, sound_model())
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


def with_values(data: bytes, name: str, values: bytes) -> bytes:
    """The file with other bytes at the beginning of one of its arrays."""
    header, arrays = parts_of(data)
    start = header[name]["data_offsets"][0]
    return joined(header, arrays[:start] + values + arrays[start + len(values) :])


def with_array(data: bytes, name: str, dtype: str, shape: list[int], values: bytes) -> bytes:
    """The file with one array exchanged for another of any type and shape, laid out soundly."""
    header, arrays = parts_of(data)
    parts = {}
    for key, entry in header.items():
        if key != "__metadata__":
            start, end = entry["data_offsets"]
            parts[key] = (entry["dtype"], entry["shape"], arrays[start:end])
    parts[name] = (dtype, shape, values)
    start, new = 0, {"__metadata__": header["__metadata__"]}
    for key, (kind, dims, content) in parts.items():
        end = start + len(content)
        new[key] = {"dtype": kind, "shape": dims, "data_offsets": [start, end]}
        start = end
    return joined(new, b"".join(content for _, _, content in parts.values()))

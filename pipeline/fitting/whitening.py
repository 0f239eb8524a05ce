"""Raw patch features to the inputs of a classifier: choose, compress, whiten."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.fitting.options import FitOptions

SHRINKAGE = 0.01
"""Share of the largest variance added to each, so that noise is not blown up."""

_SHARPNESS = 10.0
"""The logarithm is of 1 + this times a feature's ratio to its mean."""

_NOISE = 1e-6
"""Share of the largest variance below which one is the rounding error of single precision."""

_BLOCK = 8192

_FEW = 1024
"""Features of which all eigenvectors are found sooner than SciPy's solver is imported."""

_Map = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Whitening:
    """A map from patch features (…, D) to classifier inputs (…, k), fitted to development images.

    Attributes:
        columns: (d,) int64, the features that are used, of D.
        level: (d,) mean magnitude of each, that it is measured by before the logarithm; all 0
            where features are not compressed.
        mean: (d,) of the compressed features.
        basis: (d, k) principal directions, each divided by its standard deviation; or (d,), one
            common factor for each feature.
    """

    columns: torch.Tensor
    level: torch.Tensor
    mean: torch.Tensor
    basis: torch.Tensor

    @property
    def size(self) -> int:
        """k, the length of an input."""
        return self.basis.shape[-1]

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (p, D) of any float type to inputs (p, k), float32."""
        blocks = [self._apply(block) for block in torch.split(features, _BLOCK)]
        return torch.cat(blocks)

    def _apply(self, features: torch.Tensor) -> torch.Tensor:
        centred = compress(features[:, self.columns].float(), self.level) - self.mean  # (p, d)
        return centred * self.basis if self.basis.ndim == 1 else centred @ self.basis  # (p, k)


def compress(features: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The signed logarithm of features (p, d) relative to their level (d,); as they are if 0.

    Activations of the early layers differ between slides by factors, not by amounts.
    """
    if not level.any():
        return features
    return features.sign() * torch.log1p(features.abs() * (_SHARPNESS / level))


def fit_whitening(
    features: torch.Tensor, columns: NDArray[np.int64], options: FitOptions
) -> Whitening:
    """Fit the map to the patches of a fold's development images.

    Args:
        features: (p, D) of any float type.
        columns: (d,) the features to use.
        options: `compression` and `components` are used.

    Returns:
        The map; with fewer components than asked for if the features have fewer.
    """
    used = torch.from_numpy(columns)
    level = torch.zeros(len(columns))
    if options.compression == "log":
        level = _sums(features, used, torch.abs).div(len(features)).clamp_min(1e-6).float()
    mean = _sums(features, used, lambda block: compress(block, level)).div(len(features)).float()
    if options.components:
        basis = _principal(_covariance(features, used, level, mean), options.components)
    else:
        variance = _sums(features, used, lambda b: (compress(b, level) - mean).square())
        scale = variance.sum().div(len(features) * len(columns)).sqrt().clamp_min(1e-6)
        basis = torch.full((len(columns),), 1 / scale.item())
    return Whitening(used, level, mean, basis)


def _sums(features: torch.Tensor, columns: torch.Tensor, function: _Map) -> torch.Tensor:
    total = torch.zeros(len(columns), dtype=torch.float64)
    for block in torch.split(features, _BLOCK):
        total += function(block[:, columns].float()).sum(dim=0, dtype=torch.float64)
    return total


def _covariance(
    features: torch.Tensor, columns: torch.Tensor, level: torch.Tensor, mean: torch.Tensor
) -> torch.Tensor:
    total = torch.zeros(len(columns), len(columns), dtype=torch.float64)
    for block in torch.split(features, _BLOCK):
        centred = compress(block[:, columns].float(), level) - mean  # (b, d)
        total += (centred.T @ centred).double()
    return total / len(features)


def _principal(covariance: torch.Tensor, components: int) -> torch.Tensor:
    """(d, k) directions of the largest variance, divided by their standard deviation."""
    variances, directions = _largest(covariance, components)  # falling
    kept = max(1, int((variances > _NOISE * variances[0].clamp_min(1e-30)).sum()))
    variances, directions = variances[:kept], directions[:, :kept]
    # The sign of an eigenvector is the library's choice; its largest entry decides it here.
    largest = directions.abs().argmax(dim=0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()
    spread = (variances + SHRINKAGE * variances[0]).clamp_min(1e-12).sqrt()
    basis: torch.Tensor = directions / spread
    return basis.float()


def _largest(covariance: torch.Tensor, components: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest eigenvalues (k,) of a matrix (d, d), falling, and their vectors (d, k)."""
    size = len(covariance)
    if size > _FEW and components <= size // 8:
        from scipy.sparse.linalg import ArpackError, eigsh

        # A few of many: Lanczos iteration, from a fixed start, takes a fraction of the time.
        with suppress(ArpackError):  # it finds none where no feature varies
            found, vectors = eigsh(covariance.numpy(), components, v0=np.ones(size))
            order = np.argsort(-found)
            return torch.from_numpy(found[order]), torch.from_numpy(vectors[:, order])
    variances, directions = torch.linalg.eigh(covariance)  # rising
    return variances.flip(0)[:components], directions.flip(1)[:, :components]

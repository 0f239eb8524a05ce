"""AdamW: Loshchilov and Hutter, ICLR 2019, algorithm 2.

It is that of `torch.optim`, whose first use imports torch's compiler, which takes as long as
fitting a fold.
"""

import math
from collections.abc import Iterable

import torch

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class AdamW:
    """Takes steps along the gradients of some parameters, and decays their weights."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], learning_rate: float, weight_decay: float
    ) -> None:
        self._parameters = list(parameters)
        flat = torch.cat([parameter.detach().flatten() for parameter in self._parameters])
        sizes = [parameter.numel() for parameter in self._parameters]
        for parameter, part in zip(self._parameters, torch.split(flat, sizes), strict=True):
            parameter.data = part.view_as(parameter)  # a view: one step is taken for all at once
        self._all = flat
        self._rate, self._decay = learning_rate, weight_decay
        self._mean, self._square = torch.zeros_like(flat), torch.zeros_like(flat)
        self._root = torch.empty_like(flat)
        self._steps = 0

    @torch.no_grad()
    def step(self, loss: torch.Tensor) -> None:
        """Take one step down the gradient of a loss ()."""
        gradients = torch.autograd.grad(loss, self._parameters)
        gradient = torch.cat([part.flatten() for part in gradients])
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in _BETAS)
        self._all.mul_(1 - self._rate * self._decay)
        self._mean.lerp_(gradient, 1 - _BETAS[0])
        self._square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        torch.sqrt(self._square, out=self._root).div_(math.sqrt(second)).add_(_EPSILON)
        self._all.addcdiv_(self._mean, self._root, value=-self._rate / first)

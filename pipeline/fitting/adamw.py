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
        self._rate, self._decay = learning_rate, weight_decay
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, loss: torch.Tensor) -> None:
        """Take one step down the gradient of a loss ()."""
        gradients = torch.autograd.grad(loss, self._parameters)
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in _BETAS)
        states = zip(self._parameters, gradients, self._means, self._squares, strict=True)
        for parameter, gradient, mean, square in states:
            parameter.mul_(1 - self._rate * self._decay)
            mean.lerp_(gradient, 1 - _BETAS[0])
            square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            root = square.sqrt().div_(math.sqrt(second)).add_(_EPSILON)
            parameter.addcdiv_(mean, root, value=-self._rate / first)

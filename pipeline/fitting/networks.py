"""The classifiers, each as a batch of members that are trained side by side.

One batched product of small matrices does for all members what would otherwise be many tiny
ones. A member's weights are a slice of the first axis of each parameter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.fitting.recurrence import GATES, gate_scale, run_recurrence

MAX_PARAMETERS = 1 << 28
"""Numbers that all members of a network may learn: 1 GiB of them."""

_LIMITS = {
    "members": 100,
    "inputs": 65536,
    "projection": 8192,
    "hidden": 8192,
    "layers": 16,
    "outputs": 1024,
}


@dataclass(frozen=True)
class NetworkSizes:
    """The sizes of an LSTM network.

    Attributes:
        members: M, how many are trained side by side.
        inputs: k, length of a patch's inputs.
        outputs: C, logits: 1 for two classes.
        projection: size of a learnt layer before the LSTM; 0 leaves it out.
        hidden: h, length of the state, in each direction.
        layers: LSTM layers on top of each other.
        bidirectional: whether the sequence is read from both ends.
        dropout: fraction of values dropped before the LSTM and before the logits.

    Raises:
        UsageError: a size is out of range, or not of its type.
    """

    members: int
    inputs: int
    outputs: int = 1
    projection: int = 0
    hidden: int = 32
    layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            value, least = getattr(self, name), 0 if name == "projection" else 1
            if type(value) is not int or not least <= value <= most:
                raise UsageError(f"{name} is {value!r:.40}, expected {least} to {most}")
        if type(self.bidirectional) is not bool:
            raise UsageError(f"bidirectional is {self.bidirectional!r:.40}, expected true or false")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise UsageError(
                f"dropout is {self.dropout!r:.40}, expected at least 0 and less than 1"
            )
        if self.parameters > MAX_PARAMETERS:
            raise UsageError(
                f"the classifier would have {self.parameters:,} parameters, expected at most "
                f"{MAX_PARAMETERS:,}: choose a smaller hidden, projection or lstm_layers"
            )

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def parameters(self) -> int:
        """How many numbers all members learn."""
        width = self.directions * self.hidden
        first = (self.inputs + 1) * self.projection
        inputs = self.projection or self.inputs
        for _ in range(self.layers):
            first += 4 * width * (inputs + self.hidden + 1)
            inputs = width
        return self.members * (first + (width + 1) * self.outputs)


class Linear(nn.Module):
    """An affine map for each member: (M, n, i) to (M, n, o)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (M, n, i) to (M, n, o)."""
        return torch.baddbmm(self.bias, x, self.weight)


class Network(nn.Module):
    """What all classifiers share: initial weights and dropout from a generator of their own."""

    dropout: float

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights evenly from ±1 / √(inputs); biases stay 0."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not name.endswith("bias"):
                    bound = 1 / math.sqrt(parameter.shape[-2])
                    parameter.uniform_(-bound, bound, generator=generator)

    def drop(self, x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Dropout; without a generator, nothing is dropped."""
        if generator is None or not self.dropout:
            return x
        kept = torch.rand(x.shape, generator=generator) >= self.dropout
        return x * kept * (1 / (1 - self.dropout))

    def forward(
        self,
        x: torch.Tensor,
        inside: torch.Tensor | None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Classify sequences.

        Args:
            x: (M, B, T, k).
            inside: (M, B, T) whether a step is a patch, and not beyond its sequence's end; None
                if all are.
            generator: of the dropout in training; None to predict.

        Returns:
            Logits (M, B, C).
        """
        raise NotImplementedError


class LstmNetwork(Network):
    """An LSTM whose states are averaged over the patches: Hochreiter and Schmidhuber (1997)."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        self.sizes, self.dropout = sizes, sizes.dropout
        members, width = sizes.members, sizes.directions * sizes.hidden
        inputs = sizes.projection or sizes.inputs
        self.projection = (
            Linear(members, sizes.inputs, sizes.projection) if sizes.projection else None
        )
        self.layers = nn.ModuleList(
            LstmLayer(members, inputs if layer == 0 else width, sizes.hidden, sizes.directions)
            for layer in range(sizes.layers)
        )
        self.logit = Linear(members, width, sizes.outputs)

    def forward(
        self,
        x: torch.Tensor,
        inside: torch.Tensor | None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """See `Network.forward`."""
        states = self.drop(x, generator)  # (M, B, T, k)
        if self.projection is not None:
            flat = self.projection(states.flatten(1, 2))  # (M, B * T, projection)
            states = torch.relu(flat).view(*x.shape[:3], -1)  # (M, B, T, projection)
        for layer in self.layers:
            states = layer(states, inside)  # (M, B, T, directions * h)
        pooled = mean_over_patches(states, inside)  # (M, B, directions * h)
        logits: torch.Tensor = self.logit(self.drop(pooled, generator))  # (M, B, C)
        return logits


class LstmLayer(nn.ModuleList):
    """One layer of LSTM cells, that reads from the start and, with two directions, from the end."""

    def __init__(self, members: int, inputs: int, hidden: int, directions: int) -> None:
        super().__init__(LstmDirection(members, inputs, hidden) for _ in range(directions))
        self._scale = gate_scale(hidden)  # (4 h,)

    def forward(self, x: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
        """Inputs (M, B, T, i) to states (M, B, T, directions * h).

        A step that is not inside changes nothing.
        """
        x = x.transpose(1, 2)  # (M, T, B, i)
        steps, batch = x.shape[1:3]
        both = torch.cat([x, x.flip(1)]) if len(self) == 2 else x  # (S, T, B, i)
        weight, bias, recurrence = (
            torch.cat([getter(direction) for direction in self]) * self._scale
            for getter in _WEIGHTS
        )
        gates = torch.baddbmm(bias, both.flatten(1, 2), weight)  # (S, T * B, 4 h)
        gates = gates.view(-1, steps, batch, gates.shape[-1])
        mask = None
        if inside is not None:
            there = inside.permute(2, 0, 1)[..., None]  # (T, M, B, 1)
            mask = torch.cat([there, there.flip(0)], dim=1) if len(self) == 2 else there
        states = run_recurrence(gates, recurrence, mask)  # (T, S, B, h)
        if len(self) == 2:
            forwards, backwards = states.chunk(2, dim=1)  # (T, M, B, h) each
            states = torch.cat([forwards, backwards.flip(0)], dim=-1)  # (T, M, B, 2 h)
        return states.permute(1, 2, 0, 3)


class LstmDirection(nn.Module):
    """The weights of one layer that reads in one direction."""

    def __init__(self, members: int, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inputs = Linear(members, inputs, GATES * hidden)
        self.recurrence = nn.Parameter(torch.empty(members, hidden, GATES * hidden))


_WEIGHTS: tuple[Callable[[nn.Module], torch.Tensor], ...] = (
    attrgetter("inputs.weight"),  # (M, i, 4 h)
    attrgetter("inputs.bias"),  # (M, 1, 4 h)
    attrgetter("recurrence"),  # (M, h, 4 h)
)


class AttentionNetwork(Network):
    """Gated attention over patches: Ilse, Tomczak and Welling, ICML 2018, equation 9."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        members, width = sizes.members, 2 * sizes.hidden
        self.dropout = sizes.dropout
        self.embedding = Linear(members, sizes.inputs, width)
        self.content = Linear(members, width, sizes.hidden)
        self.gate = Linear(members, width, sizes.hidden)
        self.score = Linear(members, sizes.hidden, 1)
        self.logit = Linear(members, width, sizes.outputs)

    def forward(
        self,
        x: torch.Tensor,
        inside: torch.Tensor | None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """See `Network.forward`."""
        flat = torch.relu(self.embedding(self.drop(x, generator).flatten(1, 2)))  # (M, B * T, w)
        gated = torch.tanh(self.content(flat)) * torch.sigmoid(self.gate(flat))  # (M, B * T, h)
        scores = self.score(gated).view(x.shape[:3])  # (M, B, T)
        if inside is not None:
            scores = scores.masked_fill(~inside, -math.inf)
        weights = torch.softmax(scores, dim=-1)  # (M, B, T)
        embedded = flat.view(*x.shape[:3], -1)  # (M, B, T, w)
        pooled = (weights[..., None] * embedded).sum(dim=2)  # (M, B, w)
        logits: torch.Tensor = self.logit(self.drop(pooled, generator))  # (M, B, C)
        return logits


class MlpNetwork(Network):
    """One hidden layer on the mean of the patches."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        self.dropout = sizes.dropout
        self.first = Linear(sizes.members, sizes.inputs, 2 * sizes.hidden)
        self.logit = Linear(sizes.members, 2 * sizes.hidden, sizes.outputs)

    def forward(
        self,
        x: torch.Tensor,
        inside: torch.Tensor | None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """See `Network.forward`."""
        pooled = self.drop(mean_over_patches(x, inside), generator)  # (M, B, k)
        hidden = self.drop(torch.relu(self.first(pooled)), generator)  # (M, B, 2 h)
        logits: torch.Tensor = self.logit(hidden)  # (M, B, C)
        return logits


def mean_over_patches(x: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
    """The mean of (M, B, T, k) over the steps that are `inside` (M, B, T): (M, B, k)."""
    if inside is None:
        return x.mean(dim=2)
    return (x * inside[..., None]).sum(dim=2) / inside.sum(dim=2)[..., None]

"""The classifier: a projection, an LSTM over the patch sequence, and one logit."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.errors import UsageError

MAX_PARAMETERS = 1 << 28
"""Numbers that a classifier may learn: 1 GiB of them."""

_LIMITS = {"feature_dim": 65536, "projection": 8192, "hidden": 8192, "layers": 16}


@dataclass(frozen=True)
class ClassifierSizes:
    """The sizes of the classifier.

    Attributes:
        feature_dim: D, length of a patch's features.
        projection: length they are projected to before the recurrence.
        hidden: length of the LSTM's state, in each direction.
        layers: LSTM layers on top of each other.
        bidirectional: whether the sequence is read from both ends.
        dropout: fraction of values dropped after the projection and before the logit.

    Raises:
        UsageError: a size is out of range, or not of its type.
    """

    feature_dim: int
    projection: int = 128
    hidden: int = 64
    layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise UsageError(f"{name} is {value!r:.40}, expected 1 to {most}")
        if type(self.bidirectional) is not bool:
            raise UsageError(f"bidirectional is {self.bidirectional!r:.40}, expected true or false")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise UsageError(
                f"dropout is {self.dropout!r:.40}, expected at least 0 and less than 1"
            )
        if self.parameters > MAX_PARAMETERS:
            raise UsageError(
                f"the classifier would have {self.parameters:,} parameters, expected at most "
                f"{MAX_PARAMETERS:,}: choose a smaller hidden, projection or layers"
            )

    @property
    def parameters(self) -> int:
        """How many numbers the classifier learns."""
        directions = 2 if self.bidirectional else 1
        width = directions * self.hidden
        # Four gates, each with two kernels and, in PyTorch, two biases.
        first = 4 * width * (self.projection + self.hidden + 2)
        further = 4 * width * (width + self.hidden + 2) * (self.layers - 1)
        return (self.feature_dim + 1) * self.projection + first + further + width + 1


class LstmClassifier(nn.Module):
    """Sequences of patch features to one logit an image.

    Features are centred by `mean` and divided by one common `scale`, which belong to the model
    and are set from the training images; one scale keeps rarely active features as quiet as they
    are. The LSTM's outputs are averaged over a sequence's own steps.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, sizes: ClassifierSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.register_buffer("mean", torch.zeros(sizes.feature_dim))
        self.register_buffer("scale", torch.ones(()))
        self.projection = nn.Linear(sizes.feature_dim, sizes.projection)
        self.lstm = nn.LSTM(
            sizes.projection,
            sizes.hidden,
            num_layers=sizes.layers,
            batch_first=True,
            bidirectional=sizes.bidirectional,
        )
        self.dropout = nn.Dropout(sizes.dropout)
        self.logit = nn.Linear(sizes.hidden * (2 if sizes.bidirectional else 1), 1)

    def standardise_by(self, features: torch.Tensor) -> None:
        """Take the mean (D,) and the root mean square deviation () of training features (p, D)."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_((features - self.mean).square().mean().sqrt().clamp_min(1e-6))

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Classify sequences.

        Args:
            features: (B, T, D), anything beyond a sequence's end.
            lengths: (B,), 1 to T.

        Returns:
            Logits (B,) of the positive class; each depends on its own sequence alone.
        """
        standard = (features - self.mean) / self.scale  # (B, T, D)
        projected = self.dropout(torch.relu(self.projection(standard)))  # (B, T, projection)
        packed = pack_padded_sequence(projected, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)  # (B, T, h)
        average = states.sum(dim=1) / lengths[:, None]  # (B, h); beyond the end states are 0
        logits: torch.Tensor = self.logit(self.dropout(average)).squeeze(1)  # (B,)
        return logits

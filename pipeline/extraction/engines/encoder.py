"""What stage one asks of an encoder."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pending = Callable[[], NDArray[np.float32]]
"""Waits for the features (B, D) of a batch that was submitted."""


class Encoder(Protocol):
    """A frozen network from patches to features.

    A patch's features do not depend, to the last bit, on the patches it shares a batch with.
    """

    @property
    def engine(self) -> str:
        """Name and version of the library that computes."""

    @property
    def device_name(self) -> str:
        """The device as a person knows it."""

    @property
    def batch_size(self) -> int:
        """Patches that it likes to be given at once."""

    @property
    def in_flight(self) -> int:
        """Batches that may be submitted before the result of the first is taken."""

    @property
    def side_by_side(self) -> bool:
        """Whether threads may encode at the same time, each on one CPU."""

    def submit(self, patches: NDArray[np.uint8]) -> Pending:
        """Begin to encode patches (B, H, W, 3), RGB, B at most `batch_size`.

        The array may be reused once this returns. Results are taken in the order of submission.
        """

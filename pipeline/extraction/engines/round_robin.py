"""Several encoders as one: batches go to them in turn."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from pipeline.extraction.engines.encoder import Encoder, Pending


class RoundRobin:
    """Equal encoders, such as one on each GPU; attributes as `Encoder` has them."""

    side_by_side = False

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        first = encoders[0]
        self.engine, self.batch_size = first.engine, first.batch_size
        self.in_flight = len(encoders) * first.in_flight
        names = [encoder.device_name for encoder in encoders]
        counts = {name: names.count(name) for name in names}
        self.device_name = ", ".join(f"{count} × {name}" for name, count in counts.items())
        self._next = cycle(encoders)

    def submit(self, patches: NDArray[np.uint8]) -> Pending:
        """See `Encoder.submit`."""
        return next(self._next).submit(patches)

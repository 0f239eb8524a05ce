"""The optimiser is that of torch."""

import pytest
import torch

from pipeline.fitting.adamw import AdamW


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_ten_steps_are_those_of_torch(decay):
    torch.manual_seed(0)
    starts = [torch.randn(3, 4), torch.randn(4)]
    x = torch.randn(10, 3)
    runs = []
    for kind in ("ours", "theirs"):
        weights = [start.clone().requires_grad_() for start in starts]
        ours = AdamW(weights, 0.05, decay)
        theirs = torch.optim.AdamW(weights, lr=0.05, weight_decay=decay)
        for step in range(10):
            loss = ((x @ weights[0] + weights[1]).tanh() - step / 10).square().sum()
            if kind == "ours":
                ours.step(loss)
            else:
                theirs.zero_grad()
                loss.backward()
                theirs.step()
        runs.append(weights)
    for first, second, start in zip(*runs, starts, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
        assert not torch.allclose(first, start)

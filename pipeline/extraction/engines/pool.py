"""Maps of activations to features: means, and deviations, over positions."""

from collections.abc import Sequence

import torch


def pool(maps: Sequence[torch.Tensor], with_spread: bool) -> torch.Tensor:
    """Pool the maps of some layers over their positions, in float32.

    Args:
        maps: (…, C, H, W) of each layer, of any float type.
        with_spread: whether population standard deviations follow the means.

    Returns:
        (…, D): the means of all layers, then their deviations.
    """
    means = [one.float().mean(dim=(-2, -1)) for one in maps]  # (…, C) each
    if not with_spread:
        return torch.cat(means, dim=-1)
    # torch.std gives the same in one pass, but takes eight times as long on a CPU.
    deviations = [
        (one.float() - mean[..., None, None]).square_().mean(dim=(-2, -1)).sqrt_()
        for one, mean in zip(maps, means, strict=True)
    ]  # (…, C) each
    return torch.cat(means + deviations, dim=-1)

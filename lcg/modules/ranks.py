"""What ranks tell each other in a training step, so that together they train as one process would.

Gradients are averaged over ranks. That is right for a loss that is a mean over rows, of which all ranks have as many,
but not for a mean over known labels, of which rank r has n_r: that has to be weighted by n_r / mean_r n_r. Lightning's
own reductions wait for all ranks each time before they reduce, which on GPUs stops the queue; these do not.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean over all ranks of a tensor, without its gradient; the tensor itself where there is one process."""
    value = value.detach()
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


def weight_of_known(labels: Tensor, dim: int | None = None) -> Tensor:
    """How much a mean over this rank's known labels counts in the mean over the ranks.

    Args:
        labels: (B, A), NaN where missing.
        dim: along which the mean is; None for one of all labels together.

    Returns:
        n_r / mean_r n_r, as many as there are means; 1 in a training on one device. 0 where this rank knows none.
    """
    known = (~labels.isnan()).sum(dim).to(torch.float32)
    return known / mean_over_ranks(known).clamp(min=1e-9)

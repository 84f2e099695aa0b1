"""Gaussian noise whose numbers do not depend on the batch they are drawn in.

With one generator per row, row i is a function of generator i alone: a sample keeps its identity when the batch is
split, merged or reordered, which a single generator for the whole batch cannot give.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class Drawn:
    """Noise that was drawn beforehand and is handed out in turn.

    Args:
        numbers: each (B, ...), in the order in which they will be asked for.
    """

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        self._left = iter(numbers)

    def take(self) -> Tensor:
        """The next."""
        return next(self._left)


Randomness = torch.Generator | Sequence[torch.Generator] | Drawn | None
"""Where random numbers come from: torch's global state, one generator for a batch or for each row, or noise drawn."""


def generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """One generator per seed. They live on the CPU, so that a seed means the same on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def randn(
    shape: Sequence[int],
    generator: Randomness = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "..."]:
    """Standard normal numbers.

    Args:
        shape: (B, ...).
        generator: none, one, or one per row; numbers are drawn where it lives and then moved to `device`. Or noise of
            this shape, precision and place that was drawn before.
        dtype: precision; the same seed gives other numbers in another precision.
        device: where the result lives.

    Raises:
        ValueError: the number of generators is not the number of rows.
    """
    if isinstance(generator, Drawn):
        return generator.take()
    if generator is None:
        return torch.randn(*shape, dtype=dtype, device=device)
    if isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator, dtype=dtype, device=generator.device).to(device)
    if len(generator) != shape[0]:
        raise ValueError(
            f"`generator` must hold one generator per row: expected {shape[0]}, got {len(generator)}; "
            "make them with lcg.diffusion.generators(seeds)"
        )
    rows = [torch.randn(*shape[1:], generator=g, dtype=dtype, device=g.device).to(device) for g in generator]
    return torch.stack(rows) if rows else torch.empty(*shape, dtype=dtype, device=device)

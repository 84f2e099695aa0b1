"""Dormand and Prince's method of order 5(4), with steps of its own for every row.

    z(t + h) = z + h sum_i b_i k_i,      k_i = f(z + h sum_j a_ij k_j, t + c_i h),      error = h sum_i e_i k_i

(Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6(1)). The last slope of a
step is the first of the next. A row's result does not depend on the rows beside it, and a row that has arrived is not
evaluated any more.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.schedule import expand

# When and where the slopes are taken, and how far those of order 5 are from those of order 4.
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
SLOPES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""dz/dt of (z, t, rows): at z (R, *latent) and times t (R,), for those rows (R,) of the batch."""


def integrate(
    velocity: Velocity,
    z: Float[Tensor, "batch *latent"],
    start: float,
    stop: float,
    tolerance: float,
) -> Float[Tensor, "batch *latent"]:
    """Solves dz/dt = velocity(z, t) from `start` to `stop`.

    Args:
        velocity: asked for the rows that are on their way.
        z: at `start`.
        start: first time.
        stop: last time, earlier or later.
        tolerance: absolute and relative, for the root mean square of a row's error in a step.
    """
    end, rows = z.clone(), torch.arange(len(z), device=z.device)
    t = torch.full((len(z),), start, dtype=torch.float64, device=z.device)
    h = torch.full_like(t, (stop - start) / 100)
    slope = velocity(z, t, rows)
    while len(rows):
        last = (stop - t - h) / (stop - start) <= 1e-6  # this step reaches the end
        h = torch.where(last, stop - t, h)
        slopes, moved = [slope], z
        for node, weights in zip(NODES, SLOPES, strict=True):
            moved = z + expand(h, z) * _combined(weights, slopes)
            slopes.append(velocity(moved, t + node * h, rows))
        error = expand(h, z) * _combined(ERROR, slopes)
        allowed = tolerance * (1 + torch.maximum(z.abs(), moved.abs()))
        size = (error / allowed).flatten(1).square().mean(1).sqrt().double()
        accepted = size <= 1
        taken = accepted.reshape(-1, *(1,) * (z.ndim - 1))
        z, slope = torch.where(taken, moved, z), torch.where(taken, slopes[-1], slope)
        t = torch.where(accepted, t + h, t)
        h = h * (0.9 * size.clamp(min=1e-8) ** -0.2).clamp(0.2, 10.0)
        arrived = accepted & last
        if bool(arrived.any()):
            end[rows[arrived]] = z[arrived]
            z, t, h, slope, rows = (x[~arrived] for x in (z, t, h, slope, rows))
    return end


def _combined(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """The weighted sum of the slopes."""
    return sum((w * k for w, k in zip(weights, slopes, strict=True) if w), torch.zeros_like(slopes[0]))

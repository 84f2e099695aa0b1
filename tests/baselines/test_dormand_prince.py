"""Dormand and Prince's method: closed forms, torchdiffeq, and the same method written plainly, row by row."""

import math

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from lcg.baselines.dormand_prince import ERROR, NODES, SLOPES, integrate

TIME = 0.5 * (0.1 * (1 - 1e-3) + 19.9 * (1 - 1e-6) / 2)  # the integral of beta/2 from 1e-3 to 1


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def kinked(z: Tensor, t: Tensor, rows: Tensor) -> Tensor:
    """Faster in later rows, with corners, as networks of rectifiers have them."""
    return (1 + rows[:, None]) * (z.sin().abs() - 0.5) * (1 + t[:, None])


def plain(z: Tensor, rows: Tensor, start: float, stop: float, tolerance: float) -> Tensor:
    """One row, by the tableau."""
    t, h = start, (stop - start) / 100
    while True:
        last = (stop - t - h) / (stop - start) <= 1e-6
        h = stop - t if last else h
        slopes = [kinked(z, z.new_tensor([t]), rows)]
        for node, weights in zip(NODES, SLOPES, strict=True):
            moved = z + h * sum(w * k for w, k in zip(weights, slopes, strict=True))
            slopes.append(kinked(moved, z.new_tensor([t + node * h]), rows))
        error = h * sum(w * k for w, k in zip(ERROR, slopes, strict=True))
        size = float((error / (tolerance * (1 + torch.maximum(z.abs(), moved.abs())))).square().mean().sqrt())
        if size <= 1:
            z, t = moved, t + h
            if last:
                return z
        h *= min(max(0.9 * max(size, 1e-8) ** -0.2, 0.2), 10.0)


@pytest.mark.parametrize(("start", "stop"), [(1.0, 1e-3), (0.0, 2.0)])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_rows_together_go_the_way_of_each_alone(start: float, stop: float, tolerance: float) -> None:
    z, rows = normal(6, 3), torch.arange(6)
    together = integrate(kinked, z, start, stop, tolerance)
    alone = torch.cat([plain(z[i : i + 1], rows[i : i + 1], start, stop, tolerance) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_rows_that_have_arrived_are_not_asked_again() -> None:
    asked = torch.zeros(6, dtype=torch.long)

    def counted(z: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        asked[rows] += 1
        return kinked(z, t, rows)

    z = normal(6, 3)
    integrate(counted, z, 0.0, 2.0, 1e-4)
    needed = asked.clone()
    for i in range(6):
        asked.zero_()
        integrate(lambda z, t, rows, i=i: counted(z, t, rows + i), z[i : i + 1], 0.0, 2.0, 1e-4)
        assert asked[i] == needed[i]
    assert needed[0] < 0.7 * needed[5]
    assert integrate(kinked, z[:0], 0.0, 2.0, 1e-4).shape == (0, 3)


@pytest.mark.parametrize("backwards", [True, False])
def test_a_quadratic_energy_decays_exponentially(backwards: bool) -> None:
    """beta(t)/2 times rates of 0.2 and 3: the closed form, and torchdiffeq's solver at its tolerance."""
    z, rate = normal(5, 2), torch.tensor([0.2, 3.0], dtype=torch.float64)
    sign = 1 if backwards else -1
    start, stop = (1.0, 1e-3) if backwards else (1e-3, 1.0)

    def velocity(z: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return sign * 0.5 * (0.1 + 19.9 * t.reshape(-1, 1)) * rate * z

    exact = z * torch.exp(-rate * TIME)
    errors = [(integrate(velocity, z, start, stop, tol) - exact).abs().max() for tol in (1e-3, 1e-6, 1e-9)]
    assert errors[0] < 2e-3 and errors[1] < 2e-6 and errors[2] < 2e-9
    times = torch.tensor([start, stop], dtype=torch.float64)
    peer = odeint(lambda t, z: velocity(z, t, torch.arange(5)), z, times, rtol=1e-9, atol=1e-9, method="dopri5")[-1]
    assert (integrate(velocity, z, start, stop, 1e-9) - peer).abs().max() < 1e-8


def test_the_solver_is_of_fifth_order() -> None:
    """One step of half the length on z' = z has an error 2^6 times smaller."""

    def error(length: float) -> float:
        end = integrate(lambda z, t, rows: z, torch.ones(1, 1, dtype=torch.float64), 0.0, length, 1e9)
        return abs(float(end) - math.exp(length))

    # The first step is a hundredth; with that tolerance the next is the tenfold and the last what is left.
    assert 55 < error(0.2) / error(0.1) < 75

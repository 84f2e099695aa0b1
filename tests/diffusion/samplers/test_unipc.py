import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import DDIM, CosineSchedule, GaussianDenoiser, MixtureDenoiser, randn, z0_from_eps
from lcg.diffusion.samplers.unipc import UniPC, average, weights


def noise(n: int, dim: int) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(0), dtype=torch.float64)


# --- the average over a step ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.05, 0.7, 6.0])
@pytest.mark.parametrize("r", [[-1.3, 1.0], [-1.3, -2.0], [-1.3, -2.0, 1.0]], ids=str)
def test_average_is_exact_for_polynomials(h: float, r: list[float]) -> None:
    """Of the degree that the number of predictions allows, against quadrature with the weight exp(h (u - 1))."""
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    weight = torch.exp(h * (u - 1))
    log_snr = 0.3 + h * torch.tensor([0.0, *r], dtype=torch.float64)
    for degree in range(len(r) + 1):
        expected = ((0.3 + h * u) ** degree * weight).sum() / weight.sum()
        found = average(list((log_snr**degree)[:, None]), log_snr, h)
        assert_close(found, expected[None], rtol=1e-7, atol=1e-7)


def test_a_single_other_prediction_has_the_weight_of_b2() -> None:
    for r in (-0.5, 1.0):
        found = weights(torch.tensor([r]).double(), 2.0)
        assert found.item() == pytest.approx(0.5 / r, abs=1e-15)


@pytest.mark.parametrize("h", [1e-2, 1e-3, 1e-4])
def test_weights_of_very_small_steps_are_those_of_the_plain_average(h: float) -> None:
    """The moments lose digits like h^-3, but tend to 1 / (k + 1) like h."""
    r = torch.tensor([-1.0, -2.0, 1.0]).double()
    powers = torch.arange(1, 4)
    plain = torch.linalg.solve(r ** powers[:, None], 1 / (powers + 1.0).double())
    assert_close(weights(r, h), plain, rtol=0, atol=h / 2 + 1e-3)


# --- the solver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 3])
def test_steps_are_those_of_the_paper(mixture: MixtureDenoiser, order: int) -> None:
    """Algorithms 1 and 2 of Zhao et al. 2023 in their own terms: R_p(h), the vector of phi_k, B_2(h), for data."""
    schedule, z = mixture.schedule, noise(16, 2)
    sampler = UniPC(schedule, steps=7, order=order)
    t = sampler.times()
    alpha, sigma, lam = schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t)

    def model(z: Tensor, i: int) -> Tensor:
        return z0_from_eps(schedule, z, t[i].expand(16), mixture(z, t[i].expand(16)))

    def update(z: Tensor, i: int, m: list[Tensor], r: list[Tensor]) -> Tensor:
        """From t[i] to t[i + 1], given D_m = m - m_0 at the places r."""
        h = lam[i + 1] - lam[i]
        B, phi, b = torch.expm1(-h), torch.expm1(-h) / -h - 1, []
        for k in range(1, len(r) + 1):
            b.append(phi * math.factorial(k) / B)
            phi = phi / -h - 1 / math.factorial(k + 1)
        a = torch.full((1,), 0.5).double() if len(r) == 1 else None
        if a is None and r:
            a = torch.linalg.solve(torch.stack([torch.stack(r) ** k for k in range(len(r))]), torch.stack(b))
        D = sum((a[j] * (m[j + 1] - m[0]) / r[j] for j in range(len(r))), torch.zeros_like(z))
        return sigma[i + 1] / sigma[i] * z - alpha[i + 1] * torch.expm1(-h) * m[0] - alpha[i + 1] * B * D

    known: list[Tensor] = [model(z, 0)]
    for i in range(6):
        p = min(order, i + 1, 6 - i)
        r = [(lam[i - m] - lam[i]) / (lam[i + 1] - lam[i]) for m in range(1, p)]
        predicted = update(z, i, known, r)
        new = model(predicted, i + 1)
        z = update(z, i, [*known[:p], new], [*r, torch.ones(()).double()])
        known = [new, *known]
    assert_close(sampler.sample(mixture, noise(16, 2)), known[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("order", "slope"), [(1, 1), (2, 3), (3, 4)])
def test_the_corrector_raises_the_order_by_one(gaussian: GaussianDenoiser, order: int, slope: int) -> None:
    z, end = noise(32, 4), torch.full((32,), 0.001).double()
    z_end = gaussian.flow(z, torch.full((32,), 0.995).double(), end)
    reference = z0_from_eps(gaussian.schedule, z_end, end, gaussian(z_end, end))
    errors = [
        (UniPC(gaussian.schedule, steps=n + 1, spacing="karras", order=order).sample(gaussian, z) - reference)
        .abs()
        .max()
        for n in (25, 50, 100)
    ]
    slopes = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert min(slopes) > slope - 0.3


def test_order_one_is_ddim(mixture: MixtureDenoiser) -> None:
    z = noise(16, 2)
    expected = DDIM(mixture.schedule, steps=9).sample(mixture, z)
    assert_close(UniPC(mixture.schedule, steps=9, order=1).sample(mixture, z), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [2, 3])
def test_two_evaluations_are_ddim(mixture: MixtureDenoiser, order: int) -> None:
    z = noise(16, 2)
    expected = DDIM(mixture.schedule, steps=2).sample(mixture, z)
    assert_close(UniPC(mixture.schedule, steps=2, order=order).sample(mixture, z), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [0, 4])
def test_order_must_be_one_that_exists(order: int) -> None:
    with pytest.raises(
        ValueError, match=rf"`order` of UniPC must be a whole number from 1 to 3, got {order}; 2 is usual"
    ):
        UniPC(CosineSchedule(), order=order)

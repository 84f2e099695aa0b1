import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from lcg.conformance.probit import log_bivariate_normal, log_probits

integrate = pytest.importorskip("scipy.integrate")
special = pytest.importorskip("scipy.special")


def brute(h: float, k: float, rho: float) -> float:
    """P(x < h, y < k) as an integral over x, in pieces so that the mass is not missed."""

    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * special.ndtr((k - rho * x) / math.sqrt(1 - rho * rho))

    edges = np.linspace(min(h, 1.0) - 9, h, 65)
    return sum(integrate.quad(density, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(edges))


def points(n: int, spread: float = 2.0, largest: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    h, k = spread * torch.randn(2, n, generator=g, dtype=torch.float64)
    return h, k, largest * (2 * torch.rand(n, generator=g, dtype=torch.float64) - 1)


def test_bivariate_normal_agrees_with_an_integral_also_far_out() -> None:
    h, k, rho = points(60)
    exact = torch.tensor([math.log(brute(*map(float, row))) for row in zip(h, k, rho, strict=True)])
    assert exact.min() < -50  # probabilities of 1e-22 and below are among them
    torch.testing.assert_close(log_bivariate_normal(h, k, rho), exact.double(), rtol=1e-7, atol=1e-9)


def test_bivariate_normal_has_its_known_values() -> None:
    zero, rho = torch.zeros(5, dtype=torch.float64), torch.linspace(-0.99, 0.99, 5, dtype=torch.float64)
    orthant = 0.25 + rho.asin() / (2 * math.pi)  # Sheppard 1899
    torch.testing.assert_close(log_bivariate_normal(zero, zero, rho).exp(), orthant, rtol=0, atol=1e-9)
    h, k, _ = points(20)
    independent = torch.special.log_ndtr(h) + torch.special.log_ndtr(k)
    torch.testing.assert_close(log_bivariate_normal(h, k, torch.zeros_like(h)), independent, rtol=1e-13, atol=0)


def test_the_four_quadrants_add_up_to_one() -> None:
    h, k, rho = points(200, spread=1.5)
    parts = [log_bivariate_normal(a * h, b * k, a * b * rho) for a in (1, -1) for b in (1, -1)]
    torch.testing.assert_close(torch.stack(parts).logsumexp(0), torch.zeros_like(h), rtol=0, atol=1e-9)


def test_gradients_are_those_of_the_values() -> None:
    h, k, rho = (x[:20].requires_grad_() for x in points(40, largest=0.9))
    assert torch.autograd.gradcheck(log_bivariate_normal, (h, k, rho), atol=1e-6)


def test_a_shared_correlation_gives_the_same_values_and_gradients() -> None:
    h, k, _ = points(12)
    h, k, rho = h.reshape(4, 3), k.reshape(4, 3), torch.tensor([[-0.7, 0.2, 0.8]], dtype=torch.float64)
    shared, full = (x.clone().requires_grad_() for x in (rho, rho.expand(4, 3)))
    values = [log_bivariate_normal(h, k, r) for r in (shared, full)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    for value in values:
        value.sum().backward()
    torch.testing.assert_close(shared.grad, full.grad.sum(0, keepdim=True), rtol=1e-12, atol=1e-12)


def random_normal(n: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    factor = scale * torch.randn(n, n, generator=g, dtype=torch.float64)
    return torch.randn(n, generator=g, dtype=torch.float64), factor @ factor.T


@pytest.mark.parametrize("n", [1, 2, 3])
def test_expected_probits_agree_with_gauss_hermite_over_all_factors(n: int) -> None:
    mean, covariance = random_normal(n, scale=0.7)
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    grid = torch.cartesian_prod(*[torch.as_tensor(nodes)] * n).reshape(-1, n)
    log_w = torch.cartesian_prod(*[torch.as_tensor(np.log(weights) - 0.5 * math.log(2 * math.pi))] * n).reshape(-1, n)
    u = mean + grid @ torch.linalg.cholesky(covariance).T
    exact = (log_w.sum(1) + torch.special.log_ndtr(u).sum(1)).logsumexp(0)
    torch.testing.assert_close(log_probits(mean, covariance), exact, rtol=0, atol=1e-9)


def test_three_centred_factors_have_the_orthant_of_their_correlations() -> None:
    _, covariance = random_normal(3, scale=0.8, seed=1)
    total = covariance + torch.eye(3, dtype=torch.float64)  # Phi(u) = P(u + xi > 0)
    scale = total.diagonal().rsqrt()
    r = total * scale.outer(scale)
    exact = math.log(1 / 8 + float(r[0, 1].asin() + r[0, 2].asin() + r[1, 2].asin()) / (4 * math.pi))
    found = log_probits(torch.zeros(3, dtype=torch.float64), covariance)
    assert float(found) == pytest.approx(exact, abs=1e-7)


def test_certain_factors_are_multiplied() -> None:
    mean = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = torch.special.log_ndtr(mean).sum(1)
    torch.testing.assert_close(log_probits(mean, torch.zeros(1, 3, 3, dtype=torch.float64)), product)
    singular = torch.zeros(3, 3, dtype=torch.float64)  # one factor without spread, the others dependent
    singular[:2, :2] = 0.5
    pair = log_probits(mean[:, :2], singular[:2, :2]) + torch.special.log_ndtr(mean[:, 2])
    torch.testing.assert_close(log_probits(mean, singular), pair, rtol=1e-9, atol=1e-9)


def test_no_factor_is_certainty() -> None:
    assert log_probits(torch.zeros(4, 0), torch.zeros(4, 0, 0)).tolist() == [0.0] * 4

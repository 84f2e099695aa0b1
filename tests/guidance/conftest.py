"""Latents on a line whose attributes have exact noisy posteriors: every conditional is known on a grid."""

import math
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from torch import Tensor

from lcg.diffusion import CosineSchedule
from lcg.guidance import Term

SCHEDULE = CosineSchedule()
GRID = torch.linspace(-6, 6, 12_001, dtype=torch.float64)[:, None]


@dataclass(frozen=True)
class Line:
    """A mixture of normals on the line and attributes P(y_i = 1 | z_0) = Phi(a_i z_0 + b_i), written without matrices.

    With components z_0 | z_t, k ~ N(m_k, v_k) of weights r_k, P(y_i = 1 | z_t) = sum_k r_k Phi((a_i m_k + b_i) /
    sqrt(1 + a_i^2 v_k)). Attributes are independent given z_0; where slopes agree in sign they go together.
    """

    components: tuple[tuple[float, float, float], ...]  # weight, mean, standard deviation
    attributes: tuple[tuple[float, float], ...]  # slope a, offset b
    schedule = SCHEDULE

    def posterior(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log r_k + log q(z_t), m_k and v_k, each (B, K)."""
        weight, mean, std = (z_t.new_tensor(column) for column in zip(*self.components, strict=True))
        alpha, var = self.schedule.alpha(t)[:, None].to(z_t), self.schedule.sigma(t).square()[:, None].to(z_t)
        total = (alpha * std) ** 2 + var
        gap = z_t - alpha * mean
        log_joint = weight.log() - 0.5 * (gap**2 / total + total.log() + math.log(2 * math.pi))
        return log_joint, mean + alpha * std**2 * gap / total, std**2 * var / total

    def log_prior(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.posterior(z_t, t)[0].logsumexp(1)

    def denoiser(self, z_t: Tensor, t: Tensor) -> Tensor:
        log_joint, mean, _ = self.posterior(z_t, t)
        z_0_hat = (log_joint.softmax(1) * mean).sum(1, keepdim=True)
        return (z_t - self.schedule.alpha(t)[:, None].to(z_t) * z_0_hat) / self.schedule.sigma(t)[:, None].to(z_t)

    @property
    def terms(self) -> list[Term]:
        return [Probit(self, a, b) for a, b in self.attributes]

    def log_target(self, weight: float) -> Tensor:
        """log p(z_0) prod_i P(y_i = 1 | z_0)^weight on the grid, not normalised."""
        clean = torch.full((len(GRID),), 1e-9, dtype=torch.float64)
        return self.log_prior(GRID, clean) + weight * sum(term.log_prob(GRID, clean) for term in self.terms)

    def log_probability(self, weight: float = 1.0) -> float:
        """log E[prod_i P(y_i = 1 | z_0)^weight]."""
        return float((self.log_target(weight) + math.log(GRID[1] - GRID[0])).logsumexp(0))

    def total_variation(self, z_0: Tensor, weight: float = 1.0, bins: int = 20) -> float:
        """Of samples (n, 1) to the target, on intervals of equal probability; about 0.4 sqrt(bins / n) if exact."""
        cumulative = self.log_target(weight).softmax(0).cumsum(0)
        inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
        edges = GRID[torch.searchsorted(cumulative, inner), 0]
        expected = cumulative[torch.searchsorted(GRID[:, 0].contiguous(), edges)]
        expected = torch.diff(expected, prepend=expected.new_zeros(1), append=expected.new_ones(1))
        counts = torch.bincount(torch.bucketize(z_0[:, 0].double(), edges), minlength=bins)
        return float(0.5 * (counts / len(z_0) - expected).abs().sum())


class Probit(Term):
    def __init__(self, line: Line, slope: float, offset: float) -> None:
        self.line, self.slope, self.offset = line, slope, offset
        self.rows: list[int] = []

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        self.rows.append(len(z_t))
        log_joint, mean, var = self.line.posterior(z_t, t)
        u = (self.slope * mean + self.offset) / (1 + self.slope**2 * var).sqrt()
        return (log_joint.log_softmax(1) + torch.special.log_ndtr(u)).logsumexp(1)


DEPENDENT = ((4.0, -2.0), (3.0, -2.4))


@pytest.fixture
def gaussian_line() -> Line:
    """N(0, 1) with two attributes that go together, P = 0.20 where independence would have 0.07."""
    return Line(((1.0, 0.0, 1.0),), DEPENDENT)


@pytest.fixture
def mixture_line() -> Line:
    """Three normals with the same attributes, P = 0.26."""
    return Line(((0.5, -1.2, 0.39), (0.3, 0.5, 0.32), (0.2, 1.8, 0.28)), DEPENDENT)


@pytest.fixture(params=["gaussian_line", "mixture_line"])
def line(request: pytest.FixtureRequest) -> Line:
    return request.getfixturevalue(request.param)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users run without jaxtyping's checks: the package's own errors must be there when those are off."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

"""What a classifier's last layer is unsure of: a Bayesian one in closed form on features that are taken as given.

An attribute's logit is u = w . h(z_t, t), h the trunk's features and 1 for the bias. A normal approximation at the
trained weights (Laplace; MacKay 1992, "The evidence framework applied to classification networks") gives

    w ~ N(w_hat, S),    S^-1 = lambda I + sum_i E_{t, eps}[v h h^T](z_i),    v = p (1 - p),

the sum over the labelled latents, each noised as in training, because its label is learnt from at every noise level.
lambda = H / |w_hat|^2 is one step of evidence maximisation. Categorical attributes share one S among their values, with
v the mean of p_k (1 - p_k) over C - 1 degrees of freedom; continuous ones have v = 1 / variance, which is exact.

From it follow the information that one label carries about the weights (BALD; Houlsby et al. 2011, arXiv:1112.5745),

    I(y; w) = H(E sigmoid(u)) - E H(sigmoid(u)),      u ~ N(u_hat, h^T S h),

and what guidance suffers. Guidance adds -sigma_t grad log p(y | z_t) to eps_hat, so the weights' uncertainty adds to
eps_hat the mean squared error

    E_{t in band, z_t} sigma_t^2 E_w |delta grad log p|^2 = tr(S G),      G = E sigma_t^2 sum_v q_v q_v^T,
    q_v = d/ds r(z_t + s v) h(z_t + s v) at s = 0,    r = e_y - p,    v ~ N(0, I),

to first order in delta w, for r h is the gradient of log p(y | z_t) by w. A label is worth what it takes from tr(S G).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from lcg.diffusion import Schedule, diffuse
from lcg.nets.blocks import SkipPerceptron
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import independent
from lcg.schema import Attribute

ROWS_AT_ONCE = 4096
NODES = 32
"""Of Gauss-Hermite quadrature: off by 1e-12 nats at a logit's standard deviation of 1, 5e-5 at 3, .02 at 10."""


@dataclass(frozen=True)
class Features:
    """Latents as the last layer of one attribute sees them, at some noise levels.

    Attributes:
        h: (N, S, H), with 1 for the bias.
        v: (N, S) the curvature of -log p by the logit.
        p: (N, S, K) what is predicted: probabilities, or mean and variance of a continuous attribute.
    """

    h: Tensor
    v: Tensor
    p: Tensor

    def __getitem__(self, rows: Tensor) -> Features:
        return Features(self.h[rows], self.v[rows], self.p[rows])


class Sight:
    """How a classifier sees latents for one attribute.

    Args:
        classifier: trained, frozen.
        name: of the attribute.
        schedule: of the noise.
    """

    def __init__(self, classifier: TimeConditionedClassifier, name: str, schedule: Schedule) -> None:
        self.attribute: Attribute = classifier.schema[name]
        self.schedule = schedule
        self._single = classifier.restricted([name], joint=False)
        separate = classifier.config["trunk"] == "separate"
        net = cast(SkipPerceptron, self._single.nets[0] if separate else self._single.net)
        self._trunk = copy.copy(net)  # the same weights without the last layer
        self._trunk._modules = {**net._modules, "output": nn.Identity()}
        self.weights = net.output.weight.detach()

    def look(self, z_0: Tensor, times: Tensor, rng: torch.Generator, common: bool = False) -> Features:
        """Standardised latents (N, *latent), each noised once to every one of the times (S,).

        With `common` by the same noise for all, so that they are compared and not their noises.
        """
        noises = [torch.randn(1, *z_0.shape[1:], generator=rng) for _ in times] if common else [None] * len(times)
        parts = []
        for z in z_0.split(ROWS_AT_ONCE):
            pairs = zip(times, noises, strict=True)
            seen = [self.at(self._noised(z, t, rng, eps), t.expand(len(z))) for t, eps in pairs]
            parts.append([torch.stack(column, dim=1) for column in zip(*seen, strict=True)])
        h, v, p = (torch.cat(column) for column in zip(*parts, strict=True))
        return Features(h, v, p)

    def at(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h (B, H), v (B,) and p (B, K) of noised latents."""
        h = self._trunk(z_t.flatten(1), t)
        head = independent(self._single(z_t, t))[self.attribute.name]
        return torch.cat([h, torch.ones_like(h[:, :1])], dim=1), *predicted(self.attribute, head)

    def sensitivity(self, z_0: Tensor, band: tuple[float, float], rng: torch.Generator) -> Tensor:
        """G (H, H), float64, from one noise level in the band, one value and one direction for each of the latents."""
        return cast(Tensor, sum(self._sensitivity(z, band, rng) for z in z_0.split(ROWS_AT_ONCE))) / len(z_0)

    def _sensitivity(self, z_0: Tensor, band: tuple[float, float], rng: torch.Generator) -> Tensor:
        n, (low, high) = len(z_0), band
        t = low + (high - low) * torch.rand(n, generator=rng)
        z_t, v = self._noised(z_0, t, rng), torch.randn(z_0.shape, generator=rng)
        values = max(2, len(self.attribute.values))
        wanted = torch.nn.functional.one_hot(torch.randint(values, (n,), generator=rng), values)

        def gradient(z: Tensor) -> Tensor:
            h, _, p = self.at(z, t)
            if self.attribute.kind == "continuous":
                return (h / p[:, 1:])[:, None]
            residual = wanted - p
            residual = residual[:, 1:] if self.attribute.kind == "binary" else residual  # one logit, not two
            return residual[:, :, None] * h[:, None]

        q: Tensor = torch.func.jvp(gradient, (z_t,), (v,))[1]
        q = (q * self.schedule.sigma(t).to(q)[:, None, None]).flatten(0, 1).double()
        return q.T @ q

    def _noised(self, z_0: Tensor, t: Tensor, rng: torch.Generator, eps: Tensor | None = None) -> Tensor:
        eps = torch.randn(z_0.shape, generator=rng) if eps is None else eps.expand_as(z_0)
        return diffuse(self.schedule, z_0, t.expand(len(z_0)), eps)


def predicted(attribute: Attribute, head: Tensor) -> tuple[Tensor, Tensor]:
    """v (B,) and p (B, K) of a head's outputs."""
    if attribute.kind == "continuous":
        variance = head[:, 1].exp()
        return 1 / variance, torch.stack([head[:, 0], variance], dim=1)
    p = torch.stack([torch.sigmoid(-head), torch.sigmoid(head)], 1) if attribute.kind == "binary" else head.softmax(1)
    v = (p * (1 - p)).sum(1)
    return v / (2 if attribute.kind == "binary" else p.shape[1] - 1), p


def posterior(sight: Sight, labelled: Features) -> Tensor:
    """S (H, H), float64, of the last layer after the labelled latents, noised as in training."""
    rows, draws, size = labelled.h.shape
    h, v = labelled.h.flatten(0, 1).double(), labelled.v.flatten().double()
    prior = size * len(sight.weights) / sight.weights.double().square().sum().clamp(min=1e-6)
    precision = (h * (v / draws)[:, None]).T @ h if rows else torch.zeros(size, size, dtype=torch.float64)
    return torch.linalg.inv(precision + prior * torch.eye(size, dtype=torch.float64))


def label_information(attribute: Attribute, p: Tensor, variance: Tensor) -> Tensor:
    """I(y; w) in nats (N,) of a label of a clean latent.

    Args:
        attribute: whose label.
        p: (N, K) as `Features.p`, at the trained weights.
        variance: (N,) h^T S h.

    Returns:
        Exact for binary (by quadrature) and continuous attributes. For categorical ones 1/2 log det(I + variance
        (diag p - p p^T)) with equal eigenvalues, which holds for small variances, and the entropy of p at most.
    """
    if attribute.kind == "continuous":
        return 0.5 * torch.log1p(variance / p[:, 1])
    if attribute.kind == "binary":
        return binary_information(torch.logit(p[:, 1].double(), eps=1e-12), variance.double()).to(p)
    free = p.shape[1] - 1
    gained = 0.5 * free * torch.log1p(variance * (p * (1 - p)).sum(1) / free)
    return torch.minimum(gained, entropy(p))


def binary_information(mean: Tensor, variance: Tensor) -> Tensor:
    """H(E sigmoid(u)) - E H(sigmoid(u)) in nats for u ~ N(mean, variance), by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    x, w = torch.from_numpy(nodes).to(mean), torch.from_numpy(weights / math.sqrt(2 * math.pi)).to(mean)
    p = torch.sigmoid(mean[..., None] + variance.clamp(min=0).sqrt()[..., None] * x)
    average = (p * w).sum(-1)
    inner = (entropy(torch.stack([p, 1 - p], -1)) * w).sum(-1)
    return (entropy(torch.stack([average, 1 - average], -1)) - inner).clamp(min=0)


def entropy(p: Tensor) -> Tensor:
    """-sum p log p in nats over the last axis."""
    return -torch.special.xlogy(p, p).sum(-1)


def stratified(draws: int, rng: torch.Generator) -> Tensor:
    """Times (S,), one in each of S equal parts of [0, 1]."""
    return (torch.arange(draws) + torch.rand(draws, generator=rng)) / draws


def low_rank(matrix: Tensor, share: float = 0.999) -> Tensor:
    """R (H, r) with R R^T = G but for the faintest eigenvalues, which are 1 - `share` of its trace together."""
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = int((values.cumsum(0) < share * values.sum()).sum()) + 1
    return vectors[:, :kept] * values[:kept].sqrt()

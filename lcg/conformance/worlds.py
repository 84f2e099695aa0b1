"""Worlds in which everything is known: mixtures of Gaussians whose attributes have exact noisy posteriors.

Latents are p(z_0) = sum_k pi_k N(mu_k, S_k), so that z_0 | z_t, k ~ N(m_k, V_k) with probability r_k of component k
(`lcg.diffusion.MixtureDenoiser`). Four kinds of attributes, independent given z_0, keep that closed:

    Membership  the label of z_0's component          P(y = c | z_t) = sum_{k: c_k = c} r_k
    Probit      P(y = 1 | z_0) = Phi(a.z_0 + b)       P(y = 1 | z_t) = sum_k r_k Phi((a.m_k + b) / sqrt(1 + a'V_k a))
    Ordinal     y = the interval of a.z_0 + xi        P(y <= k | z_t) = sum_k r_k Phi((c_k - a.m_k) / sqrt(1 + a'V_k a))
    Linear      y ~ N(a.z_0 + b, s^2)                 mean and variance of a mixture; exact for a single Gaussian

Given z_t they are *not* independent: several probits have a multivariate normal orthant probability given the component
(`lcg.conformance.probit`), which gives every formula an exact joint,

    P(F | z_t) = sum_{cubes of F} sum_k r_k [memberships agree] E[prod_j Phi(+-(a_j.z_0 + b_j)) | z_t, k].

So a world has the exact prior (`denoiser`), classifiers that are perfect for each attribute (`classifier`), the term
that a perfect joint classifier would give (`joint`), exact samples of any conditional (`conditional`) and exact
probabilities. Attributes of dependent directions are what products of perfect classifiers get wrong.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lcg.conformance.probit import log_probits
from lcg.diffusion.gaussian import MixtureDenoiser
from lcg.diffusion.schedule import Schedule
from lcg.guidance.formula import Formula
from lcg.guidance.logic import parse
from lcg.guidance.probability import log_between
from lcg.guidance.terms import Term
from lcg.nets.heads import HeadOutputs, JointOutputs
from lcg.schema import Attribute, Schema

CERTAIN = 1e4
"""Logit of what is certain given the component: finite, as a network's are, and beyond any evidence for another one."""

PROPOSALS, MAX_ATTEMPTS = 4096, 10_000
"""Rejection proposes so many samples of the prior at once, and gives up after so many times."""

Cube = dict[str, int]
"""A label for each of some attributes; the others are free."""


@dataclass(frozen=True)
class Probit:
    """A binary attribute with P(y = 1 | z_0) = Phi(direction . z_0 + offset).

    Args:
        name: of the attribute.
        direction: a (D,); its length is the steepness.
        offset: b.
    """

    name: str
    direction: tuple[float, ...]
    offset: float = 0.0


@dataclass(frozen=True)
class Membership:
    """What z_0's component is labelled with: binary, or categorical when its values have names.

    Args:
        name: of the attribute.
        labels: one per component (K,): 0 or 1, or the index of a value; each must occur.
        values: names of a categorical attribute's values.
    """

    name: str
    labels: tuple[int, ...]
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Linear:
    """A continuous attribute y ~ N(direction . z_0 + offset, std^2).

    Its head outputs, a mean and a log-variance, are exact in a world of one Gaussian.
    """

    name: str
    direction: tuple[float, ...]
    offset: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Ordinal:
    """An ordinal attribute: between which cut points direction . z_0 + xi lies, xi ~ N(0, 1).

    Args:
        name: of the attribute.
        direction: a (D,); its length is the steepness.
        cuts: c_1 < ... < c_{C-1}.
        values: C names, in ascending order.
    """

    name: str
    direction: tuple[float, ...]
    cuts: tuple[float, ...]
    values: tuple[str, ...]
    offset = 0.0


Known = Probit | Membership | Ordinal | Linear
"""An attribute of a world."""


class World:
    """A mixture of Gaussians with attributes whose noisy posteriors are known; differentiable, in float64 inside.

    Args:
        log_weights: logarithms of the components' weights (K,), up to a common constant.
        means: mu_k (K, D).
        covariances: S_k (K, D, D).
        attributes: what is known of a latent; independent given z_0.
        schedule: of the noise.

    Raises:
        ValueError: what `MixtureDenoiser` refuses, or an attribute that does not fit the latents.
    """

    def __init__(
        self,
        log_weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        attributes: Sequence[Known],
        schedule: Schedule,
    ) -> None:
        self.denoiser = MixtureDenoiser(log_weights, means, covariances, schedule)
        self.covariances, self.schedule = covariances.double(), schedule
        self.components, self.dim = means.shape
        for attribute in attributes:
            _check(attribute, self.components, self.dim)
        self.attributes = {attribute.name: attribute for attribute in attributes}
        self.schema = Schema(tuple(map(_described, attributes)))

    # --- what guidance is given ---

    def classifier(self, z_t: Tensor, t: Tensor) -> HeadOutputs:
        """The perfect classifier of each attribute: raw head outputs whose probabilities are exactly p(y_j | z_t).

        Args:
            z_t: (B, D).
            t: (B,).

        Returns:
            Binary: logits (B,); categorical: log-probabilities (B, C); continuous: mean and log-variance (B, 2).
        """
        return self._single(self._posterior(z_t, t), z_t.dtype)

    def joint_outputs(self, z_t: Tensor, t: Tensor) -> JointOutputs:
        """All attributes as a mixture of products over the components, weights r_k: what a joint head gives.

        Exact where no two probits or linear attributes are correlated given the component, a_i'V_k a_j = 0, as in
        `lcg.conformance.catalogue.latent_class`.
        """
        log_r, means, covariances = posterior = self._posterior(z_t, t)
        heads: HeadOutputs = {}
        for name, a in self.attributes.items():
            if isinstance(a, Membership):
                labels = torch.tensor(a.labels, device=z_t.device).expand(len(z_t), -1)
                if a.values:
                    head = CERTAIN * one_hot(labels, len(a.values)).double()
                else:
                    head = CERTAIN * (2 * labels.double() - 1)
            elif isinstance(a, Ordinal):
                head = _log_intervals(a, *_projected(a, means, covariances))
            else:
                mean, variance = _projected(a, means, covariances)
                head = _logit(mean, variance) if isinstance(a, Probit) else _normal(mean, variance + a.std**2)
            heads[name] = head.to(z_t.dtype)
        return JointOutputs(log_r.to(z_t.dtype), heads, self._single(posterior, z_t.dtype))

    def joint(self, formula: Formula | str) -> "JointTerm":
        """The exact log P(formula | z_t) as a term; the formula is of binary and categorical attributes."""
        return JointTerm(self, self.parse(formula))

    def parse(self, formula: Formula | str) -> Formula:
        """The formula itself, or its text bound to this world's attributes."""
        return parse(formula, self.schema) if isinstance(formula, str) else formula

    # --- what is true ---

    def log_probability(self, formula: Formula | str) -> float:
        """The exact log P(formula) under the prior."""
        means, covariances = self.denoiser.means[None], self.covariances[None]
        return float(self._log_cubes(self.cubes(formula), self.denoiser.log_weights[None], means, covariances))

    def log_likelihood(self, formula: Formula | str, z_0: Tensor) -> Tensor:
        """log P(formula | z_0) (B,) of clean latents (B, D); memberships are taken by their posterior given z_0."""
        cubes, z = self.cubes(formula), z_0.double()
        members = any(isinstance(self.attributes[name], Membership) for cube in cubes for name in cube)
        log_r = self.denoiser.responsibilities(z, z.new_zeros(len(z))) if members else z.new_zeros(len(z), 1)
        means = z[:, None].expand(-1, log_r.shape[1], -1)
        return self._log_cubes(cubes, log_r, means, z.new_zeros(1, log_r.shape[1], self.dim, self.dim)).to(z_0.dtype)

    def log_density(self, z_0: Tensor, formula: Formula | str, weight: float = 1.0) -> Tensor:
        """log p(z_0) P(formula | z_0)^weight (B,), the target of guidance up to its constant."""
        prior = self.denoiser.log_prob(z_0, z_0.new_zeros(len(z_0)))
        return prior + weight * self.log_likelihood(formula, z_0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples of the prior (n, D), float64."""
        prior = self.denoiser
        component = torch.multinomial(prior.log_weights.exp(), n, replacement=True, generator=generator)
        xi = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        z_0 = torch.empty_like(xi)
        for k in range(self.components):  # each basis once, rather than one for each row
            rows = component == k
            z_0[rows] = prior.means[k] + (prior.variances[k].sqrt() * xi[rows]) @ prior.bases[k].T
        return z_0

    def conditional(
        self, formula: Formula | str, n: int, generator: torch.Generator | None = None, weight: float = 1.0
    ) -> Tensor:
        """Exact samples of p(z_0) P(formula | z_0)^weight (n, D), by rejection from the prior.

        Raises:
            ValueError: the formula is too improbable.
        """
        kept: list[Tensor] = []
        missing, formula = n, self.parse(formula)
        for _ in range(MAX_ATTEMPTS):
            z_0 = self.sample(PROPOSALS, generator)
            uniform = torch.rand(PROPOSALS, generator=generator, dtype=torch.float64)
            kept.append(z_0[uniform.log() < weight * self.log_likelihood(formula, z_0)][:missing])
            missing -= len(kept[-1])
            if missing == 0:
                return torch.cat(kept)
        raise ValueError(
            f"`formula` must be one that the prior satisfies often enough for rejection, got {str(formula)!r}, which "
            f"{n - missing} of {MAX_ATTEMPTS * PROPOSALS} samples satisfied; use a more probable one"
        )

    def labels(self, z_0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels (B, A) drawn given clean latents (B, D), in the schema's columns."""
        t = z_0.new_zeros(len(z_0))
        columns = []
        for name, output in self.classifier(z_0, t).items():
            uniform = torch.rand(len(z_0), generator=generator, dtype=torch.float64)
            if isinstance(self.attributes[name], Linear):
                mean, log_variance = output.unbind(-1)
                column = mean + (0.5 * log_variance).exp() * torch.special.ndtri(uniform)
            elif output.ndim == 1:
                column = (uniform < output.sigmoid()).double()
            else:
                column = (uniform[:, None] > output.softmax(1).cumsum(1)[:, :-1]).sum(1).double()
            columns.append(column.to(z_0.dtype))
        return torch.stack(columns, dim=1)

    # --- how ---

    def cubes(self, formula: Formula | str) -> list[Cube]:
        """Disjoint cubes that make up the formula: Shannon's expansion of its truth table, attribute after attribute.

        Deliberately independent of `lcg.guidance.probability`, which is checked against it.

        Raises:
            ValueError: the formula is weighted, or speaks of a continuous or ordinal attribute.
        """
        formula = self.parse(formula)
        if formula.is_weighted:
            raise ValueError(f"`formula` must have no weights, got {str(formula)!r}; give `weight` to what you call")
        sizes = []
        for name in formula.attributes:
            if isinstance(self.attributes[name], Linear | Ordinal):
                raise ValueError(f"`formula` must be of binary and categorical attributes, got {name!r}; use a Probit")
            sizes.append(max(2, len(self.schema[name].values)))
        rows = torch.zeros(math.prod(sizes), len(self.schema))
        columns = [self.schema.index(name) for name in formula.attributes]
        rows[:, columns] = torch.tensor(list(itertools.product(*map(range, sizes))), dtype=rows.dtype)
        return _expand(formula.attributes, formula.holds(rows).reshape(sizes))

    def _posterior(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(log r_k, m_k, V_k) given z_t: (B, K), (B, K, D), and (B, K, D, D), or (1, K, D, D) if all t are one."""
        z_t, prior = z_t.double(), self.denoiser
        log_r = prior.responsibilities(z_t, t)
        if not bool((t == t[:1]).all()):
            return log_r, *prior.component_moments(z_t, t)
        # Samplers have one t. Then V_k is the same for all rows, and m_k = mu_k + M_k (z_t - alpha mu_k) is linear.
        alpha, sigma = self.schedule.alpha(t[:1]), self.schedule.sigma(t[:1])
        variance = alpha.square() * prior.variances + sigma.square()
        gains = prior.bases * (alpha * prior.variances / variance)[:, None] @ prior.bases.mT
        covariances = prior.bases * (sigma.square() * prior.variances / variance)[:, None] @ prior.bases.mT
        residual = z_t[:, None] - alpha * prior.means
        return log_r, prior.means + torch.einsum("kde,bke->bkd", gains, residual), covariances[None]

    def _single(self, posterior: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> HeadOutputs:
        return {name: self._head(a, *posterior).to(dtype) for name, a in self.attributes.items()}

    def _head(self, attribute: Known, log_r: Tensor, means: Tensor, cov: Tensor) -> Tensor:
        if isinstance(attribute, Membership):
            values = range(max(2, len(attribute.values)))
            chosen = [[k for k, label in enumerate(attribute.labels) if label == value] for value in values]
            log_p = torch.stack([log_r[:, ks].logsumexp(1) for ks in chosen], dim=1)
            return log_p if attribute.values else log_p[:, 1] - log_p[:, 0]
        mean, variance = _projected(attribute, means, cov)
        if isinstance(attribute, Ordinal):
            return (log_r[..., None] + _log_intervals(attribute, mean, variance)).logsumexp(1)
        if isinstance(attribute, Probit):
            u = mean / (1 + variance).sqrt()
            return (log_r + torch.special.log_ndtr(u)).logsumexp(1) - (log_r + torch.special.log_ndtr(-u)).logsumexp(1)
        r = log_r.exp()
        total = (r * mean).sum(1)
        spread = (r * (variance + (mean - total[:, None]).square())).sum(1)
        return _normal(total, spread + attribute.std**2)

    def _log_cubes(self, cubes: Sequence[Cube], log_r: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
        """The logarithm of the cubes' probability (B,), given weights and moments of the components."""
        parts = []
        for cube in cubes:
            ks = [k for k in range(log_r.shape[1]) if self._agrees(cube, k)]
            if not ks:
                continue
            probits = [(a, 2.0 * cube[name] - 1) for name, a in self.attributes.items() if name in cube]
            signed = [(a, sign) for a, sign in probits if isinstance(a, Probit)]
            log_p = log_r[:, ks]
            if signed:
                sign = means.new_tensor([s for _, s in signed])
                directions = means.new_tensor([a.direction for a, _ in signed]) * sign[:, None]
                offsets = means.new_tensor([a.offset for a, _ in signed]) * sign
                u = means[:, ks] @ directions.T + offsets
                covariance = directions @ covariances[:, ks] @ directions.T
                log_p = log_p + log_probits(u, covariance)
            parts.append(log_p.logsumexp(1))
        if not parts:
            return log_r.new_full((len(log_r),), -math.inf)
        return torch.stack(parts, dim=1).logsumexp(1)

    def _agrees(self, cube: Mapping[str, int], component: int) -> bool:
        members = ((self.attributes[name], value) for name, value in cube.items())
        return all(a.labels[component] == value for a, value in members if isinstance(a, Membership))


class JointTerm(Term):
    """log P(formula | z_t), exact: what a perfect joint classifier would say. Make one with `World.joint`.

    Raises:
        ValueError: see `World.cubes`.
    """

    def __init__(self, world: World, formula: Formula) -> None:
        self.world, self.formula, self.cubes = world, formula, world.cubes(formula)

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.world._log_cubes(self.cubes, *self.world._posterior(z_t, t)).to(z_t.dtype)


class TiltTerm(Term):
    """log E[exp(g.z_0) | z_t] = log sum_k r_k exp(g.m_k + g'V_k g / 2): the exponential tilt, exact.

    Args:
        world: whose prior is tilted.
        tilt: g (D,).
    """

    def __init__(self, world: World, tilt: Tensor) -> None:
        self.world, self.tilt = world, tilt.double()

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        log_r, means, covariances = self.world._posterior(z_t, t)
        return (log_r + means @ self.tilt + 0.5 * (covariances @ self.tilt) @ self.tilt).logsumexp(1).to(z_t.dtype)

    @property
    def conditional(self) -> MixtureDenoiser:
        """The exact denoiser of p(z_0) exp(g.z_0): the mixture reweighted, each mean moved by S_k g."""
        prior, covariances = self.world.denoiser, self.world.covariances
        shift = covariances @ self.tilt
        log_weights = prior.log_weights + prior.means @ self.tilt + 0.5 * shift @ self.tilt
        return MixtureDenoiser(log_weights, prior.means + shift, covariances, prior.schedule)


class QuadratureTerm(Term):
    """log E[exp(f(z_0)) | z_t] for any log-likelihood f, by Gauss-Hermite about each component; one or two dimensions.

    Args:
        world: whose prior it is.
        log_likelihood: f, (N, D) to (N,); smooth.
        nodes: per dimension.

    Raises:
        ValueError: the latents have more than two dimensions.
    """

    def __init__(self, world: World, log_likelihood: Callable[[Tensor], Tensor], nodes: int = 32) -> None:
        if world.dim > 2:
            raise ValueError(f"`world` must have one or two dimensions, got {world.dim}; use a closed form")
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        self.world, self.log_likelihood = world, log_likelihood
        self.nodes = torch.tensor(list(itertools.product(points, repeat=world.dim)), dtype=torch.float64)
        log_weights = torch.as_tensor(np.log(weights) - 0.5 * math.log(2 * math.pi))
        self.log_weights = torch.cartesian_prod(*[log_weights] * world.dim).reshape(len(self.nodes), -1).sum(1)

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        log_r, means, covariances = self.world._posterior(z_t, t)
        factor = torch.linalg.cholesky(covariances)
        points = means[:, :, None] + (factor[:, :, None] @ self.nodes[:, :, None])[..., 0]
        log_f = self.log_likelihood(points.flatten(0, 2)).reshape(points.shape[:3])
        return (log_r + (self.log_weights + log_f).logsumexp(2)).logsumexp(1).to(z_t.dtype)


def _expand(names: Sequence[str], truth: Tensor) -> list[Cube]:
    """Disjoint cubes of a truth table with one axis per name."""
    if not truth.any():
        return []
    if truth.all():
        return [{}]
    name, *rest = names
    if bool((truth == truth[:1]).all()):  # the formula does not depend on this attribute
        return _expand(rest, truth[0])
    return [{name: value, **cube} for value, part in enumerate(truth) for cube in _expand(rest, part)]


def _check(attribute: Known, components: int, dim: int) -> None:
    if isinstance(attribute, Membership):
        values = set(range(max(2, len(attribute.values))))
        if len(attribute.labels) != components or set(attribute.labels) != values:
            raise ValueError(
                f"`labels` of {attribute.name!r} must be {components}, one per component, among them each of "
                f"{sorted(values)}, got {attribute.labels}"
            )
    elif len(attribute.direction) != dim:
        raise ValueError(f"`direction` of {attribute.name!r} must have {dim} numbers, got {len(attribute.direction)}")
    if isinstance(attribute, Ordinal) and (
        list(attribute.cuts) != sorted(set(attribute.cuts)) or len(attribute.values) != len(attribute.cuts) + 1
    ):
        raise ValueError(
            f"`cuts` of {attribute.name!r} must ascend, one fewer than its {len(attribute.values)} values, got "
            f"{attribute.cuts}"
        )
    if isinstance(attribute, Linear) and not attribute.std > 0:
        raise ValueError(f"`std` of {attribute.name!r} must be > 0, got {attribute.std}")


def _described(attribute: Known) -> Attribute:
    if isinstance(attribute, Linear):
        return Attribute(attribute.name, "continuous")
    if isinstance(attribute, Ordinal):
        return Attribute(attribute.name, "categorical", attribute.values, ordered=True)
    if isinstance(attribute, Membership) and attribute.values:
        return Attribute(attribute.name, "categorical", attribute.values)
    return Attribute(attribute.name)


def _projected(attribute: Probit | Ordinal | Linear, means: Tensor, covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, K) of direction . z_0 + offset."""
    a = means.new_tensor(attribute.direction)
    return means @ a + attribute.offset, (covariances @ a) @ a


def _log_intervals(attribute: Ordinal, mean: Tensor, variance: Tensor) -> Tensor:
    """log P(u + xi in each interval) (..., C), u ~ N(mean, variance)."""
    mean, log_variance = torch.broadcast_tensors(mean, (1 + variance).log())
    bounds = itertools.pairwise((None, *attribute.cuts, None))
    log_p = [log_between(mean.flatten(), log_variance.flatten(), lower, upper) for lower, upper in bounds]
    return torch.stack(log_p, dim=-1).unflatten(0, mean.shape)


def _logit(mean: Tensor, variance: Tensor) -> Tensor:
    """The logit of E[Phi(u)], u ~ N(mean, variance)."""
    u = mean / (1 + variance).sqrt()
    return torch.special.log_ndtr(u) - torch.special.log_ndtr(-u)


def _normal(mean: Tensor, variance: Tensor) -> Tensor:
    return torch.stack((mean, variance.log()), dim=-1)

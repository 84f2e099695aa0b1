"""The guided denoiser: a prior's denoiser plus the gradient of log-probabilities, which is again a denoiser.

    G(z_t) = w(t) sum_i grad_{z_t} log p_i(z_t, t),            eps_hat = eps_theta - sigma_t G

(Dhariwal & Nichol 2021, arXiv:2105.05233, algorithm 2, in continuous time). Equivalently z_0_hat moves by
(sigma_t^2 / alpha_t) G, which is what the trust region bounds. Samplers cannot tell it from an unguided denoiser.

With several dependent attributes, or a weight other than 1, the guided score belongs to no diffusion, and sampling with
it is biased; correctors (`lcg.diffusion.correctors`) and particles (`lcg.guidance.twisted`) remove the bias. Particles
weigh by log H = w(t) sum_i log p_i, which `twist` gives beside G from the same evaluation.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.process import Denoiser, coefficients, prepare
from lcg.diffusion.schedule import Schedule, expand
from lcg.guidance.terms import (
    PriorTerm,
    Term,
    TermAt,
    leaf,
    refuse_inference_mode,
    refuse_negative,
    value_and_gradient,
)


@dataclass(frozen=True)
class Instant:
    """All that guidance needs at one time of all rows, or at a time of each, as functions of z_t alone.

    Attributes:
        t: (B,), or () for all rows.
        denoise: the prior's eps_hat.
        climbed: the terms with a log-probability.
        others: eps_hat of the prior terms that have a denoiser of their own, by their number.
        alpha: alpha_t, a number or (B, 1, ...).
        sigma: sigma_t likewise.
        weights: w(t) for batches of so many rows, as they were asked for.
    """

    t: Tensor
    denoise: Callable[[Tensor], Tensor]
    climbed: Sequence[TermAt]
    others: Mapping[int, Callable[[Tensor], Tensor]]
    alpha: float | Tensor
    sigma: float | Tensor
    weights: dict[int, float | Tensor] = field(default_factory=dict)


class GuidedDenoiser:
    """eps_hat = eps_theta - sigma_t G, with G the weighted scores of all terms.

    Args:
        denoiser: the prior's.
        terms: what to climb, and what to condition the prior on (`PriorTerm`, such as the source of an edit).
        schedule: of the noise.
        weight: w >= 0 on the log-probabilities, or a function of t (B,) that gives it, a number or (B,). 1 is Bayes'
            rule for calibrated classifiers, 0 leaves them out. It does not apply to a `PriorTerm`, whose strength is
            its own.
        max_step: trust region c > 0: the shift (sigma_t^2 / alpha_t) G of z_0_hat is shortened to c sqrt(d) for
            latents of d numbers. None, the default, samples the target as it is; with a bound the target is another
            one.

    Raises:
        ValueError: weight < 0 or max_step <= 0; while sampling, a gradient that is not finite.
        RuntimeError: called under torch.inference_mode, where no gradient can be taken.

    Example:
        >>> from lcg.diffusion import CosineSchedule, GaussianDenoiser
        >>> class Observed(Term):  # log p(y = 2 | z_t) of y ~ N(z_0, 1), z_0 ~ N(0, 1): a Gaussian again
        ...     def log_prob(self, z_t, t):
        ...         alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        ...         return -0.5 * (2 - alpha * z_t[:, 0]) ** 2 / (1 + sigma**2)
        ...
        >>> schedule, t = CosineSchedule(), torch.tensor([0.5], dtype=torch.float64)
        >>> prior = GaussianDenoiser(torch.zeros(1), torch.eye(1), schedule)
        >>> exact = GaussianDenoiser(torch.ones(1), 0.5 * torch.eye(1), schedule)  # p(z_0 | y = 2) = N(1, 1/2)
        >>> z_t = torch.ones(1, 1, dtype=torch.float64)
        >>> torch.allclose(GuidedDenoiser(prior, [Observed()], schedule)(z_t, t), exact(z_t, t))
        True
    """

    def __init__(
        self,
        denoiser: Denoiser,
        terms: Sequence[Term | PriorTerm],
        schedule: Schedule,
        weight: float | Callable[[Tensor], float | Tensor] = 1.0,
        max_step: float | None = None,
    ) -> None:
        if not callable(weight):
            refuse_negative(weight, "weight")
        if max_step is not None and not max_step > 0:
            raise ValueError(f"`max_step` must be > 0, got {max_step}; use weight=0 for no guidance, None for no bound")
        self.denoiser, self.schedule, self.weight, self.max_step = denoiser, schedule, weight, max_step
        self.terms, self._looks = tuple(terms), True
        self._conditions = [term for term in self.terms if isinstance(term, PriorTerm)]
        self._climbed = [term for term in self.terms if isinstance(term, Term)]

    def __call__(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """The guided eps_hat (B, *latent), detached."""
        return self._eps_hat(self._at(z_t, t), z_t)

    def prepare(self, times: Float[Tensor, " steps"]) -> list[Callable[[Tensor], Tensor]]:
        """The guided eps_hat of z_t at each of these times, as functions of z_t: the same up to rounding, and fast."""
        exact = times.double()
        others = {
            k: prepare(term.denoiser, times)
            for k, term in enumerate(self._conditions)
            if term.denoiser is not self.denoiser
        }
        climbed = [term.prepare(times) for term in self._climbed]
        instants = [
            Instant(t, denoise, [term[i] for term in climbed], {k: other[i] for k, other in others.items()}, *level)
            for i, (t, denoise, *level) in enumerate(
                zip(
                    times,
                    prepare(self.denoiser, times),
                    self.schedule.alpha(exact).tolist(),
                    self.schedule.sigma(exact).tolist(),
                    strict=True,
                )
            )
        ]
        return [partial(self._eps_hat, instant) for instant in instants]

    def patient(self) -> "GuidedDenoiser":
        """This denoiser without the look at every gradient, for which a GPU's host has to wait.

        What is not finite becomes NaN, and so do the latents that come of it, clipped or not: look at those.
        """
        other = copy.copy(self)
        other._looks = False
        return other

    def evaluate(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *latent"], Float[Tensor, "batch *latent"]]:
        """(eps_theta, G), each (B, *latent), detached: the prior's prediction and what guidance adds to its score."""
        return self._evaluate(self._at(z_t, t), z_t)[:2]

    def twist(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *latent"], Float[Tensor, "batch *latent"], Float[Tensor, " batch"]]:
        """(eps_theta, G, log H): `evaluate`, and log H = w(t) sum_i log p_i(z_t, t), (B,), from the same evaluation.

        A `PriorTerm` has no log-probability and is not in H: it conditions the prior that H is weighed against.
        """
        at = self._at(z_t, t)
        eps, guidance, log_h = self._evaluate(at, z_t)
        own = [term.log_prob(z_t) for term in at.climbed if term.score is not None]
        if own and self.weight != 0:
            log_h = log_h + self._weight(at, z_t) * torch.stack(own).sum(0)
        return eps, guidance, log_h

    def _at(self, z_t: Tensor, t: Tensor) -> Instant:
        others = {k: partial(term.denoiser, t=t) for k, term in enumerate(self._conditions)}
        level = coefficients(self.schedule, t, z_t)
        return Instant(t, lambda z: self.denoiser(z, t), [term.at(t) for term in self._climbed], others, *level)

    # --- at one instant ---

    def _eps_hat(self, at: Instant, z_t: Tensor) -> Tensor:
        eps, guidance, _ = self._evaluate(at, z_t)
        return eps - at.sigma * guidance

    def _evaluate(self, at: Instant, z_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(eps_theta, G, w sum_i log p_i), the sum over those terms that are differentiated."""
        refuse_inference_mode()
        log_h, guidance = self._climb(at, z_t)
        shared = [term.needs_jacobian for term in self._conditions if term.denoiser is self.denoiser]
        with torch.set_grad_enabled(any(shared)):  # one evaluation for the prior and for those who need its Jacobian
            z = leaf(z_t) if any(shared) else z_t
            eps = at.denoise(z)
        for k, term in enumerate(self._conditions):
            if term.denoiser is self.denoiser:
                guidance = term.condition(z, at.alpha, at.sigma, eps, guidance)
            else:
                with torch.set_grad_enabled(term.needs_jacobian):
                    other = leaf(z_t)
                    other_eps = at.others[k](other)
                guidance = term.condition(other, at.alpha, at.sigma, other_eps, guidance)
        if not self._looks:
            guidance = guidance + 0 * guidance  # infinity, which clipping would hide, becomes NaN, which stays
        elif self.terms:
            self._check(guidance, at, z_t)
        return eps.detach().to(z_t.dtype), self._bounded(guidance, at), log_h

    def _climb(self, at: Instant, z_t: Tensor) -> tuple[Tensor, Tensor]:
        """w(t) times the sum of the log-probabilities that are differentiated, and the gradient of all."""
        weight = self._weight(at, z_t)
        value, total = z_t.new_zeros(len(z_t)), torch.zeros_like(z_t)
        if not isinstance(weight, Tensor) and weight == 0:
            return value, total
        summed = [term.log_prob for term in at.climbed if term.score is None]
        if summed:
            value, total = value_and_gradient(lambda z: sum_of([log_prob(z) for log_prob in summed]), z_t)
        for term in at.climbed:
            if term.score is not None:
                total = total + term.score(z_t)
        if not isinstance(weight, Tensor) and weight == 1:
            return value, total
        return value * weight, total * (expand(weight, z_t) if isinstance(weight, Tensor) else weight)

    def _weight(self, at: Instant, z_t: Tensor) -> float | Tensor:
        if not callable(self.weight):
            return self.weight
        if len(z_t) not in at.weights:
            weight = self.weight(at.t.expand(len(z_t)))
            refuse_negative(weight, "weight")
            at.weights[len(z_t)] = weight
        return at.weights[len(z_t)]

    def _check(self, guidance: Tensor, at: Instant, z_t: Tensor) -> None:
        if torch.isfinite(guidance.sum()) or torch.isfinite(guidance).all():  # a sum of finite numbers may overflow
            return
        t = at.t.expand(len(z_t))
        for term in self._climbed:
            term.log_prob(z_t, t)  # may know better what is wrong
        row = int(torch.nonzero(~torch.isfinite(guidance.flatten(1)).all(1))[0])
        raise ValueError(
            f"the guidance's gradient must be finite, got {guidance.flatten(1)[row].sum().item()} in row {row} at "
            f"t = {float(t[row]):.4g}; check the terms at this latent, and that the networks' weights are finite"
        )

    def _bounded(self, guidance: Tensor, at: Instant) -> Tensor:
        """The guidance, shortened row by row to the trust region."""
        if self.max_step is None:
            return guidance
        shift = (guidance * (at.sigma * at.sigma / at.alpha)).flatten(1).norm(dim=1)
        bound = self.max_step * math.sqrt(guidance[0].numel())
        return guidance * expand((bound / shift.clamp_min(torch.finfo(shift.dtype).tiny)).clamp_max(1.0), guidance)


def sum_of(values: Sequence[Tensor]) -> Tensor:
    """Their sum, without a kernel for a single one."""
    return values[0] if len(values) == 1 else torch.stack(list(values)).sum(0)

"""The guided denoiser: a prior's denoiser plus the gradient of log-probabilities, which is again a denoiser.

    G(z_t) = w(t) sum_i grad_{z_t} log p_i(z_t, t),            eps_hat = eps_theta - sigma_t G

(Dhariwal & Nichol 2021, arXiv:2105.05233, algorithm 2, in continuous time). Equivalently z_0_hat moves by
(sigma_t^2 / alpha_t) G, which is what the trust region bounds. Samplers cannot tell it from an unguided denoiser.

With several dependent attributes, or a weight other than 1, the guided score belongs to no diffusion, and sampling with
it is biased; correctors (`lcg.diffusion.correctors`) and particles (`lcg.guidance.twisted`) remove the bias. Particles
weigh by log H = w(t) sum_i log p_i, which `twist` gives beside G from the same evaluation.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.process import Denoiser, coefficients
from lcg.diffusion.schedule import Schedule, expand
from lcg.guidance.terms import PriorTerm, Term, leaf, refuse_inference_mode, refuse_negative, value_and_gradient


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
        self.terms = tuple(terms)
        self._conditions = [term for term in self.terms if isinstance(term, PriorTerm)]
        climbed = [term for term in self.terms if isinstance(term, Term)]
        self._own_score = [term for term in climbed if type(term).score is not Term.score]
        self._summed = [term for term in climbed if type(term).score is Term.score]

    def __call__(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """The guided eps_hat (B, *latent), detached."""
        eps, guidance = self.evaluate(z_t, t)
        return eps - expand(self.schedule.sigma(t), z_t) * guidance

    def evaluate(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *latent"], Float[Tensor, "batch *latent"]]:
        """(eps_theta, G), each (B, *latent), detached: the prior's prediction and what guidance adds to its score."""
        refuse_inference_mode()
        _, guidance = self._climb(z_t, t)
        return self._conditioned(z_t, t, guidance)

    def twist(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *latent"], Float[Tensor, "batch *latent"], Float[Tensor, " batch"]]:
        """(eps_theta, G, log H): `evaluate`, and log H = w(t) sum_i log p_i(z_t, t), (B,), from the same evaluation.

        A `PriorTerm` has no log-probability and is not in H: it conditions the prior that H is weighed against.
        """
        refuse_inference_mode()
        log_h, guidance = self._climb(z_t, t)
        if self._own_score and self.weight != 0:
            own = torch.stack([term.log_prob(z_t, t) for term in self._own_score]).sum(0)
            log_h = log_h + self._weight(t) * own
        return *self._conditioned(z_t, t, guidance), log_h

    def _conditioned(self, z_t: Tensor, t: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """(eps_theta, G), where G is the guidance with that of all prior terms, checked and bounded."""
        shared = [term.needs_jacobian for term in self._conditions if term.denoiser is self.denoiser]
        with torch.set_grad_enabled(any(shared)):  # one evaluation for the prior and for those who need its Jacobian
            z = leaf(z_t)
            eps = self.denoiser(z, t)
        for term in self._conditions:
            if term.denoiser is self.denoiser:
                guidance = term.condition(z, t, eps, guidance)
            else:
                with torch.set_grad_enabled(term.needs_jacobian):
                    other = leaf(z_t)
                    other_eps = term.denoiser(other, t)
                guidance = term.condition(other, t, other_eps, guidance)
        if self.terms and not torch.isfinite(guidance).all():
            row = int(torch.nonzero(~torch.isfinite(guidance.flatten(1)).all(1))[0])
            raise ValueError(
                f"the guidance's gradient must be finite, got {guidance.flatten(1)[row].sum().item()} in row {row} at "
                f"t = {float(t[row]):.4g}; check the terms at this latent, and that the networks' weights are finite"
            )
        return eps.detach().to(z_t.dtype), self._bounded(guidance, z_t, t)

    def _climb(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """w(t) times the sum of the log-probabilities that are differentiated, and the gradient of all."""
        weight = self._weight(t)
        value, total = z_t.new_zeros(len(z_t)), torch.zeros_like(z_t)
        if not isinstance(weight, Tensor) and weight == 0:
            return value, total
        if self._summed:
            value, total = value_and_gradient(
                lambda z: torch.stack([term.log_prob(z, t) for term in self._summed]).sum(0), z_t
            )
        for term in self._own_score:
            total = total + term.score(z_t, t)
        return value * weight, total * (expand(weight, z_t) if isinstance(weight, Tensor) else weight)

    def _weight(self, t: Tensor) -> float | Tensor:
        if not callable(self.weight):
            return self.weight
        weight = self.weight(t)
        refuse_negative(weight, "weight")
        return weight

    def _bounded(self, guidance: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The guidance, shortened row by row to the trust region."""
        if self.max_step is None:
            return guidance
        alpha, sigma = coefficients(self.schedule, t, z_t)
        shift = (guidance * sigma.square() / alpha).flatten(1).norm(dim=1)
        bound = self.max_step * math.sqrt(z_t[0].numel())
        return guidance * expand((bound / shift.clamp_min(torch.finfo(shift.dtype).tiny)).clamp_max(1.0), z_t)

"""How probable a latent is under a diffusion model: a lower bound by sampling, the exact value along the flow.

Both take any denoiser, hence a guided one too, whose model is that of the conditional p(z_0 | y).

**The bound.** Ancestral sampling (`DDIM` with eta = 1) is the chain t_start = t_N > ... > t_1 = t_end with

    p(z_{t_N}) = N(0, I),  p(z_s | z_t) = q(z_s | z_t, z_0 = z_0_hat),  p(z_0 | z_{t_1}) = N(z_0_hat, sigma_{t_1}^2 I),

where the last, which samplers leave out, spreads z_0_hat by the posterior variance that N(0, I) latents have. Jensen's
inequality gives (Ho et al. 2020, arXiv:2006.11239, section 3; Kingma et al. 2021, arXiv:2107.00630, section 4)

    log p(z_0) >= -KL(q(z_{t_N} | z_0) || N(0, I)) - sum_i 1/2 expm1(2 h_i) E|eps - eps_hat(z_{t_i})|^2
                  + E log p(z_0 | z_{t_1}),                        h_i = lambda_{t_{i-1}} - lambda_{t_i},

and ever finer steps turn the sum into the integral of E|eps - eps_hat|^2 over lambda.

**What is a theorem.** Let q be a law of clean latents: the prior, or a conditional p(z_0 | y), which is noised to
p(z_t | y) since the noise knows nothing of y. Whatever the denoiser, and so whatever the classifier and its weight:

    1. bound(z_0) <= log p(z_0) of the chain, for every z_0 (Jensen); so E_q bound <= E_q log p <= E_q log q (Gibbs).
    2. E_q|eps - eps_hat|^2 = E_q|eps - E_q[eps | z_t]|^2 + E_q|E_q[eps | z_t] - eps_hat|^2: E_q bound is greatest for
       eps_hat = E_q[eps | z_t], and falls by the integral of sigma_t^2 E_q|error of the score|^2 dlambda otherwise.
    3. For q = p(z_0 | y) that is Bayes' rule, eps_hat = eps_theta - sigma_t grad log p(y | z_t): weight 1 and the exact
       noisy posterior, which is where the cross-entropy of a classifier of noised latents is least.

This is the sense in which latent classifier guidance maximises a lower bound of the conditional log-probability (Shi
et al. 2023, arXiv:2304.12536): on average over p(z_0 | y). For a single z_0 and finitely many steps the bound may lie
above log q(z_0), as the chain's own density may. In continuous time, with the exact denoiser, it is log q(z_0) for
every z_0 but for what is lost at the two ends: path by path the reverse process is then q's own.

**The exact value.** In the angle phi with alpha = cos phi, sigma = sin phi, the probability-flow ODE of any
variance-preserving schedule (Song et al. 2021, arXiv:2011.13456, equation 13, and equation 39 for the density) is

    dz / dphi = v_hat = (eps_hat - sigma z) / alpha,        log p(z_0) = log N(z; 0, I) + int div v_hat dphi,

from t_end to t_start; v_hat is bounded at both ends, and in phi the solver needs about half the steps that it needs in
lambda. Unless the denoiser is exact, chain and flow are two models, and the bound is one of the chain only.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lcg.diffusion.noise import Randomness, randn
from lcg.diffusion.process import Denoiser, coefficients, diffuse, v_from_eps
from lcg.diffusion.samplers.base import Progress, Spacing, time_grid
from lcg.diffusion.schedule import Schedule

Differentiation = Literal["auto", "autograd", "differences"]

Solver = Literal["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"]
"""The adaptive Runge-Kutta methods of torchdiffeq."""

MAX_STEPS = 2000  # of the ODE solver: a smooth flow takes some dozens


@dataclass(frozen=True)
class LowerBound:
    """A lower bound of log p(z_0) and what it is lost to, in nats; every tensor is (B,).

    Attributes:
        prior: KL(q(z_{t_start} | z_0) || N(0, I)) >= 0, exact.
        diffusion: the steps' sum, or the integral over lambda; an estimate.
        reconstruction: -E log p(z_0 | z_{t_end}); an estimate. A density's logarithm, so of either sign.
        stderr: standard error of `log_prob` over the draws; NaN for a single draw.
    """

    prior: Float[Tensor, " batch"]
    diffusion: Float[Tensor, " batch"]
    reconstruction: Float[Tensor, " batch"]
    stderr: Float[Tensor, " batch"]

    @property
    def log_prob(self) -> Float[Tensor, " batch"]:
        """The bound, -(prior + diffusion + reconstruction), (B,)."""
        return -(self.prior + self.diffusion + self.reconstruction)


@torch.no_grad()
def evidence_lower_bound(
    denoiser: Denoiser,
    z_0: Float[Tensor, "batch *latent"],
    schedule: Schedule,
    steps: int = 50,
    continuous: bool = True,
    draws: int = 1,
    t_start: float = 0.995,
    t_end: float = 0.001,
    spacing: Spacing = "log_snr",
    generator: Randomness = None,
    progress: Progress | None = None,
) -> LowerBound:
    """An unbiased estimate of a lower bound of log p(z_0) for every row.

    Its variance is kept low in two ways. Times are stratified: in continuous time one is drawn in each interval of the
    grid, by every row for itself. And what the standard normal's denoiser sigma_t z_t would lose is known exactly, so
    that only the difference to it is estimated, which vanishes at both ends.

    Args:
        denoiser: eps_hat of z_t; plain or guided.
        z_0: clean latents (B, *latent), float32 or float64.
        schedule: of the noise.
        steps: denoiser evaluations for each draw, the last of them at t_end.
        continuous: bound the limit of infinitely many steps, which is what to compare models by; if not, the chain that
            `DDIM(schedule, steps, t_start, t_end, spacing, eta=1.0)` samples.
        draws: independent estimates that are averaged.
        t_start: where the path ends in N(0, I), below 1 where the schedule ends in pure noise.
        t_end: where z_0_hat becomes z_0, in (0, t_start).
        spacing: of the times; see `time_grid`.
        generator: none, one, or one per row.
        progress: called as progress(evaluation, evaluations).

    Raises:
        TypeError: z_0 has another precision than float32 or float64.
        ValueError: steps < 2, draws < 1, times out of range, or the number of generators is not the number of rows.
    """
    _refuse_precision(z_0)
    for name, value, least in (("steps", steps, 2), ("draws", draws, 1)):
        if value < least:
            raise ValueError(f"`{name}` of a lower bound must be at least {least}, got {value}; 50 steps are usual")
    times, size = time_grid(schedule, steps - 1, t_start, t_end, spacing).to(z_0.device), z_0[0].numel()
    log_snr, square = schedule.log_snr(times), z_0.double().flatten(1).square().sum(1)
    h = log_snr.diff()
    width, weight = (h, h) if continuous else (0 * h, torch.expm1(2 * h) / 2)
    excess = z_0.new_zeros(draws, steps, len(z_0), dtype=torch.float64)  # over the reference, at each evaluation
    for draw in range(draws):
        for i in range(steps):
            numbers = randn((len(z_0), 1 + size), generator, dtype=z_0.dtype, device=z_0.device)
            place, eps = torch.special.ndtr(numbers[:, 0].double()), numbers[:, 1:].reshape(z_0.shape)
            at = log_snr[i] + (width[i] * place if i + 1 < steps else 0 * place)
            excess[draw, i] = _excess(denoiser, schedule, z_0, at, eps)
            if progress is not None:
                progress(draw * steps + i + 1, draws * steps)

    alpha2, sigma2 = schedule.alpha(times).square()[:, None], schedule.sigma(times).square()[:, None]
    reference = alpha2 * (alpha2 * size + sigma2 * square)  # (steps, B), and its integral over lambda:
    integral = (alpha2[-1] - alpha2[0]) * (square - size) / 2 - size * (sigma2[-1] / sigma2[0]).log() / 2
    prior = (alpha2[0] * square - size * (alpha2[0] + torch.log1p(-alpha2[0]))) / 2
    diffusion = (integral if continuous else weight @ reference[:-1]) + torch.einsum(
        "i,dib->db", weight, excess[:, :-1]
    )
    reconstruction = (size * (2 * math.pi * sigma2[-1]).log() + (reference[-1] + excess[:, -1]) / alpha2[-1]) / 2
    lost = diffusion + reconstruction
    stderr = lost.std(0) / math.sqrt(draws) if draws > 1 else torch.full_like(prior, math.nan)
    return LowerBound(*(part.to(z_0.dtype) for part in (prior, diffusion.mean(0), reconstruction.mean(0), stderr)))


def _excess(
    denoiser: Denoiser, schedule: Schedule, z_0: Tensor, log_snr: Tensor, eps: Tensor
) -> Float64[Tensor, " batch"]:
    """|eps - eps_hat|^2 - |eps - eps_ref|^2 at lambda_t = log_snr (B,), with the reference eps_ref = sigma_t z_t.

    eps - eps_ref = alpha_t (alpha_t eps - sigma_t z_0), of mean square alpha_t^2 (alpha_t^2 d + sigma_t^2 |z_0|^2).
    """
    t = schedule.time(log_snr).to(z_0.dtype)
    z_t = diffuse(schedule, z_0, t, eps)
    error = eps.double() - denoiser(z_t, t).double()
    alpha, sigma = coefficients(schedule, t, error)
    reference = alpha * (alpha * eps - sigma * z_0)
    return (error.square() - reference.square()).flatten(1).sum(1)


@dataclass(frozen=True)
class FlowLogProb:
    """The log-density that the probability flow gives latents.

    Attributes:
        log_prob: log p(z_0), (B,), in nats.
        stderr: its standard error over Hutchinson's probes (B,): 0 for the exact divergence, NaN for a single probe.
        z: where the flow ends at t_start, (B, *latent): the noise from which deterministic sampling makes z_0.
        evaluations: how often the denoiser was asked.
    """

    log_prob: Float[Tensor, " batch"]
    stderr: Float[Tensor, " batch"]
    z: Float[Tensor, "batch *latent"]
    evaluations: int


@torch.no_grad()
def flow_log_prob(
    denoiser: Denoiser,
    z_0: Float[Tensor, "batch *latent"],
    schedule: Schedule,
    probes: int = 0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_start: float = 0.995,
    t_end: float = 0.001,
    differentiation: Differentiation = "auto",
    method: Solver = "dopri5",
    generator: Randomness = None,
) -> FlowLogProb:
    """log p(z_0) by the probability-flow ODE, integrated in float64 by an adaptive solver of torchdiffeq.

    The model is what deterministic sampling makes of N(0, I) at t_start; z_0 is taken for z at t_end, where its density
    differs from that at 0 by terms of order sigma_{t_end}^2. Rows share the solver's steps, each of which keeps every
    single row within the tolerances; so a row's result depends on its batch within them.

    Args:
        denoiser: eps_hat of z_t; plain or guided.
        z_0: clean latents (B, *latent), float32 or float64, the precision in which the denoiser is asked.
        schedule: of the noise.
        probes: 0 for the exact divergence, one derivative for each of the d numbers of a latent; else Hutchinson's
            unbiased estimate v^T J v from so many random signs v per row, the same along the path (Grathwohl et al.
            2019, arXiv:1810.01367). Each probe is one derivative.
        rtol: relative tolerance of the solver.
        atol: absolute tolerance.
        t_start: where the flow ends, below 1 where the schedule ends in pure noise. That q(z_{t_start}) is not quite
            N(0, I) costs alpha_{t_start} E[z_0].z at first order, 0 for standardised latents.
        t_end: where it begins, in [0, t_start).
        differentiation: how derivatives of eps_hat are taken: by "autograd", one backward pass each; by central
            "differences", two evaluations each, with steps of eps^(1/3), 6e-6 in float64; or "auto", by autograd if
            eps_hat has a graph back to z_t. A guided denoiser's eps_hat is a gradient itself and detached, so
            differences it is; they need no third derivatives of the classifier, and float64 where more than about three
            digits are wanted.
        method: of Dormand & Prince of order 5, or another; see `Solver`.
        generator: of the probes: none, one, or one per row.

    Raises:
        TypeError: z_0 has another precision than float32 or float64.
        ValueError: probes < 0, a tolerance that is not positive, times out of range, an unknown method or
            differentiation, an eps_hat that is not finite, or the number of generators is not the number of rows.
        RuntimeError: autograd was asked for where eps_hat is detached, or under torch.inference_mode; or the solver
            cannot keep the tolerances.

    Example:
        >>> from lcg.diffusion import CosineSchedule, GaussianDenoiser
        >>> denoiser = GaussianDenoiser(torch.zeros(1), torch.eye(1), CosineSchedule())
        >>> found = flow_log_prob(denoiser, torch.zeros(1, 1, dtype=torch.float64), CosineSchedule())
        >>> round(float(found.log_prob), 3)  # -0.5 log(2 pi)
        -0.919
    """
    from torchdiffeq import odeint  # it imports SciPy's integrators, which would double the package's start-up

    _refuse_precision(z_0)
    if probes < 0:
        raise ValueError(f"`probes` must be at least 0, got {probes}; 0 is the exact divergence")
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"`rtol` and `atol` must be positive, got {rtol} and {atol}; 1e-5 is usual")
    if method not in get_args(Solver):
        raise ValueError(f"`method` must be one of {', '.join(get_args(Solver))}, got {method!r}")
    angles = _angles(schedule, t_end, t_start).to(z_0.device)
    flow = _Flow(denoiser, schedule, z_0, probes, differentiation, generator)
    size, channels = z_0[0].numel(), max(probes, 1)
    start = torch.cat([z_0.double().flatten(1), z_0.new_zeros(len(z_0), channels, dtype=torch.float64)], dim=1)

    def norm(error: Tensor) -> Tensor:  # torchdiffeq's own is a mean over rows: one hard row would drown in easy ones
        z, density = error[:, :size], error[:, size:]
        return torch.maximum(z.square().mean(1).sqrt(), density.abs().amax(1)).max()

    # The solver must not step past t_start to interpolate back: there may be no time beyond it.
    options = {"norm": norm, "step_t": angles[1:], "max_num_steps": MAX_STEPS}
    try:
        end = odeint(flow, start, angles, rtol=rtol, atol=atol, method=method, options=options)[-1]
    except AssertionError as error:
        raise RuntimeError(
            f"the solver cannot keep rtol={rtol:g} and atol={atol:g} after {flow.evaluations} evaluations ({error}); "
            "allow more, or ask in float64"
        ) from error
    z = end[:, :size]
    base = -(z.square().sum(1) + size * math.log(2 * math.pi)) / 2
    log_prob = base[:, None] + end[:, size:]
    stderr = log_prob.std(1) / math.sqrt(channels) if channels > 1 else torch.full_like(base, math.nan)
    return FlowLogProb(
        log_prob.mean(1).to(z_0.dtype),
        (stderr if probes else torch.zeros_like(base)).to(z_0.dtype),
        z.reshape(z_0.shape).to(z_0.dtype),
        flow.evaluations,
    )


class _Flow:
    """d/dphi of (z, int div v_hat dphi), rows (B, d + channels), one channel for each of Hutchinson's probes."""

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        z_0: Tensor,
        probes: int,
        differentiation: Differentiation,
        generator: Randomness,
    ) -> None:
        self.denoiser, self.schedule, self.like, self.evaluations = denoiser, schedule, z_0, 0
        self.shift = torch.finfo(z_0.dtype).eps ** (1 / 3)
        self.signs = None
        if probes:
            numbers = randn((len(z_0), probes, *z_0.shape[1:]), generator, dtype=z_0.dtype, device=z_0.device)
            self.signs = torch.where(numbers < 0, -1.0, 1.0).to(z_0.dtype)
        self.autograd = self._choose(differentiation)

    def __call__(self, phi: Tensor, state: Tensor) -> Tensor:
        size = self.like[0].numel()
        z = state[:, :size].reshape(self.like.shape)
        t = self.schedule.time(-torch.log(torch.tan(phi))).clamp(0.0, 1.0).expand(len(z))
        differentiate = self._by_autograd if self.autograd else self._by_differences
        eps_hat, trace = differentiate(z.to(self.like.dtype), t.to(self.like.dtype))
        v_hat = v_from_eps(self.schedule, z, t, eps_hat.double())
        divergence = (trace - phi.sin() * size) / phi.cos()
        change = torch.cat([v_hat.flatten(1), divergence], dim=1)
        if not torch.isfinite(change).all():
            row = int(torch.nonzero(~torch.isfinite(change).all(1))[0])
            raise ValueError(
                f"eps_hat and its derivatives must be finite, got otherwise in row {row} at t = {float(t[row]):.4g}; "
                "check the denoiser at this latent, and that the latents are standardised"
            )
        return change

    def _choose(self, differentiation: Differentiation) -> bool:
        """Whether derivatives are taken by autograd."""
        if differentiation not in get_args(Differentiation):
            raise ValueError(
                f"`differentiation` must be one of {', '.join(get_args(Differentiation))}, got {differentiation!r}"
            )
        if differentiation == "differences":
            return False
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "the divergence needs gradients, and torch.inference_mode() forbids them; use torch.no_grad() instead, "
                "or differentiation='differences'"
            )
        with torch.enable_grad():
            z = self.like.detach().clone().requires_grad_()
            eps_hat = self._ask(z, self.like.new_full((len(z),), 0.5))
            grad = torch.autograd.grad(eps_hat.sum(), z, allow_unused=True)[0] if eps_hat.requires_grad else None
        if differentiation == "autograd" and grad is None:
            raise RuntimeError(
                "the denoiser's eps_hat is detached from z_t, as a guided one is; use differentiation='differences'"
            )
        return grad is not None

    def _by_autograd(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The noise eps_hat and the traces (B, channels) of its Jacobian, by one backward pass for each direction."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            eps_hat = self._ask(z, t)
        products = (torch.autograd.grad(eps_hat, z, v, retain_graph=True)[0] for v in self._directions())
        return eps_hat.detach(), self._traces(products)

    def _by_differences(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same by central differences; always with all B rows, which terms may have something of their own for."""
        h = self.shift
        products = ((self._ask(z + h * v, t) - self._ask(z - h * v, t)) / (2 * h) for v in self._directions())
        return self._ask(z, t), self._traces(products)

    def _directions(self) -> Iterator[Tensor]:
        """Directions v (B, *latent): the axes, whose v^T J v add up to the trace, or each probe, which estimates it."""
        if self.signs is not None:
            yield from self.signs.unbind(1)
            return
        for i in range(self.like[0].numel()):
            v = torch.zeros_like(self.like).flatten(1)
            v[:, i] = 1
            yield v.view_as(self.like)

    def _traces(self, products: Iterable[Tensor]) -> Tensor:
        """Traces (B, channels) from J v or v^T J, in the order of the directions."""
        forms = [(v * jv).double().flatten(1).sum(1) for v, jv in zip(self._directions(), products, strict=True)]
        stacked = torch.stack(forms, dim=1)
        return stacked if self.signs is not None else stacked.sum(1, keepdim=True)

    def _ask(self, z: Tensor, t: Tensor) -> Tensor:
        self.evaluations += 1
        return self.denoiser(z, t).to(z.dtype)


def _angles(schedule: Schedule, t_end: float, t_start: float) -> Float64[Tensor, "2"]:
    """The angles phi = atan(sigma / alpha) at both times, checked."""
    if not 0 <= t_end < t_start <= 1:
        raise ValueError(
            f"`t_start` and `t_end` must satisfy 0 <= t_end < t_start <= 1, got t_start={t_start}, t_end={t_end}; "
            "the usual values are 0.995 and 0.001"
        )
    times = torch.tensor([t_end, t_start], dtype=torch.float64)
    if schedule.alpha(times[1]) < 1e-6:
        raise ValueError(f"`t_start`={t_start} is pure noise under this schedule (alpha < 1e-6); use 0.995 or less")
    return torch.atan2(schedule.sigma(times), schedule.alpha(times))


def _refuse_precision(z_0: Tensor) -> None:
    if z_0.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`z_0` must be float32 or float64, got {z_0.dtype}; use z_0.float()")

"""The source of an edit as an observation of the latent that is sampled: z_src ~ N(z_0, tau^2 I).

The posterior p(z_0 | y, z_src) ~ p(z_0) prod p(y_i | z_0)^{w_i} N(z_src; z_0, tau^2 I) stays near the source where y
leaves it free. Approximating p(z_0 | z_t) by its first two moments, N(z_0_hat, C_t), the noisy likelihood N(z_src;
z_0_hat, tau^2 I + C_t) adds to the score

    observation   J^T (tau^2 I + C_t)^-1 (z_src - z_0_hat),     J = d z_0_hat / d z_t,     C_t = (sigma_t^2 / alpha_t) J
    tweedie       alpha_t (z_src - z_0_hat) / (tau^2 + c_t),    c_t = sigma_t^2 / (alpha_t^2 + sigma_t^2)
    paper         grad log q(z_t | z_src) = -(z_t - alpha_t z_src) / sigma_t^2

`observation` is exact for every Gaussian prior; C_t is the posterior's covariance by Tweedie's second-order formula
(Boys et al. 2023, arXiv:2310.06721). `tweedie` puts the J = alpha_t I and C_t = sigma_t^2 I of a N(0, I) prior for the
Jacobian, exact for such a prior, and costs nothing. `paper` is the kernel taken literally (Shi et al. 2023,
arXiv:2304.12536); it contains the prior a second time and collapses the variance, and is kept for comparison.

Attributes and source together. The sum of the source's score and an attribute's score G is not the score of both, not
even for a Gaussian prior and a linear log-probability g.z_0: given z_t alone the attribute may move z_0 freely, given
z_src too it may not. There G = J^T g, and the posterior given both is that of the source moved by tau^2 g,

    J^T (tau^2 I + C_t)^-1 (z_src + tau^2 g - z_0_hat) = (tau^2 I + C_t)^-1 (J^T (z_src - z_0_hat) + tau^2 G),

which is latent arithmetic. `joint=True` uses the right-hand side for any G; it costs nothing more. `joint=False` adds
the scores.

Free directions. An edit has to move the latent somewhere, and a source that holds it back there too is in its own way.
With P the projection onto some directions and Q = I - P, the observation may be of Q z_0 only: precision Q / tau^2
instead of I / tau^2. The score of both together is then

    G + J^T (tau^2 I + Q C_t Q)^-1 Q (z_src - z_0_hat - (sigma_t^2 / alpha_t) G),

the source's residual to the *guided* prediction, outside the free directions; for Q = I it is the formula above.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lcg.diffusion.process import Denoiser, coefficients
from lcg.diffusion.schedule import Schedule, expand
from lcg.guidance.terms import PriorTerm, leaf, refuse_inference_mode
from lcg.schema import unknown_name

SourceMode = Literal["observation", "tweedie", "paper"]
"""How the source of an edit is kept: exactly in the Gaussian case, cheaply, or as in the paper (see `SourceTerm`)."""


class SourceTerm(PriorTerm):
    """Keeps samples near the latents that they were made from.

    Args:
        z_src: the source's standardised latents (B, *latent), or (1, *latent) for all rows.
        denoiser: the prior's; give the guided denoiser the same object and it is evaluated once for both.
        schedule: of the noise.
        tau: standard deviation of the source about the edited latent, > 0, in units of the standardised latents; a
            number or one per row (B,). Small keeps much; it is not used by the mode "paper".
        mode: see the module.
        free: orthonormal directions (B, k, *latent), or (1, k, *latent) for all rows, in which the source says nothing;
            not for the mode "paper".
        weight: of the mode "paper" only, a number or one per row (B,); the others are weighted by tau.
        joint: combine with the other terms as in the linear-Gaussian posterior instead of adding scores (see the
            module); not for the mode "paper".
        iterations: at most so many conjugate-gradient steps solve for (tau^2 I + C_t)^-1, at the price of one Jacobian
            product each, and one more. Exact from as many as C_t has distinct eigenvalues.
        tolerance: the steps end early where the residual is this small relative to the right-hand side.

    Raises:
        ValueError: an unknown mode, or tau, weight, iterations or tolerance out of range, or `joint`, `free` or a
            weight with a mode that has none; while sampling, z_src or `free` of another shape than z_t.
    """

    def __init__(
        self,
        z_src: Float[Tensor, "rows *latent"],
        denoiser: Denoiser,
        schedule: Schedule,
        tau: float | Tensor = 0.5,
        mode: SourceMode = "observation",
        *,
        free: Tensor | None = None,
        weight: float | Tensor = 1.0,
        joint: bool = False,
        iterations: int = 4,
        tolerance: float = 1e-3,
    ) -> None:
        if mode not in get_args(SourceMode):
            raise unknown_name("mode", mode, get_args(SourceMode), "the source term")
        if not bool(torch.as_tensor(tau > 0).all()):
            raise ValueError(f"`tau` must be > 0, got {tau}; a small tau such as 0.1 keeps nearly everything")
        if iterations < 1:
            raise ValueError(f"`iterations` must be at least 1, got {iterations}; use the mode 'tweedie' to do without")
        if not tolerance >= 0:
            raise ValueError(f"`tolerance` must be >= 0, got {tolerance}; 1e-3 is the default")
        weights = torch.as_tensor(weight)
        if not bool((weights >= 0).all()) or (mode != "paper" and bool((weights != 1).any())):
            raise ValueError(
                f"`weight` must be >= 0, and 1 except in the mode 'paper', got {weight} in {mode!r}; "
                "set the strength by tau"
            )
        for name, given in (("joint", joint), ("free", free is not None)):
            if given and mode == "paper":
                raise ValueError(
                    f"`{name}` must be {'None' if name == 'free' else False} in the mode 'paper', which has no "
                    "likelihood; use 'observation'"
                )
        super().__init__(denoiser, needs_jacobian=mode == "observation")
        self.z_src, self.schedule, self.tau, self.mode, self.free = z_src, schedule, tau, mode, free
        self.weight, self.joint, self.iterations, self.tolerance = weight, joint, iterations, tolerance

    def condition(
        self,
        z_t: Float[Tensor, "batch *latent"],
        alpha: float | Tensor,
        sigma: float | Tensor,
        eps_hat: Float[Tensor, "batch *latent"],
        guidance: Float[Tensor, "batch *latent"],
    ) -> Float[Tensor, "batch *latent"]:
        z_src = self._source(z_t)
        if self.mode == "paper":
            weight = expand(self.weight, z_t) if isinstance(self.weight, Tensor) else self.weight
            return guidance - weight * (z_t.detach() - alpha * z_src) / sigma**2

        tau2 = (expand(self.tau, z_t) if isinstance(self.tau, Tensor) else self.tau) ** 2
        with torch.set_grad_enabled(self.needs_jacobian):  # samplers call under no_grad
            z_0_hat = (z_t - sigma * eps_hat.to(z_t.dtype)) / alpha
        residual = z_src - z_0_hat.detach()
        inside = guidance if self.joint else torch.zeros_like(guidance)
        rest = guidance - inside

        unmet = self._outside(residual - sigma**2 / alpha * inside)  # by the guided prediction
        white = inside + alpha * unmet / (tau2 + sigma**2 / (alpha**2 + sigma**2))
        if self.mode == "tweedie":
            return rest + white

        def jacobian(v: Tensor) -> Tensor:
            # J^T v, one backward pass. J = alpha_t^-1 (I + sigma_t^2 Hessian of log q) of an exact denoiser is
            # symmetric, so that this is J v too and nothing is ever differentiated twice; for a learnt one it is J v
            # up to its error.
            return torch.autograd.grad(z_0_hat, z_t, v, retain_graph=True)[0]

        def covariance(v: Tensor) -> Tensor:
            return sigma**2 / alpha * self._outside(jacobian(v))

        if self.free is None:  # J and C_t commute: (tau^2 I + C_t)^-1 (J^T (z_src - z_0_hat) + tau^2 G)
            right = jacobian(residual) + tau2 * inside
            score, solved = conjugate_gradients(covariance, tau2, right, self.iterations, self.tolerance)
            fixed = torch.zeros_like(inside)
        else:
            pull, solved = conjugate_gradients(covariance, tau2, unmet, self.iterations, self.tolerance)
            score, fixed = jacobian(pull), inside
        # C_t is positive semi-definite, so sigma_t^2 |score| <= alpha_t |residual| + sigma_t^2 |G|. A learnt Jacobian,
        # poor where alpha_t is small, need not obey; the bound keeps its errors from exploding and is inactive for
        # exact ones.
        most = alpha * _norm(residual) + sigma**2 * _norm(inside)
        excess = sigma**2 * _norm(score) / most.clamp_min(torch.finfo(most.dtype).tiny)
        score = fixed + score / excess.clamp_min(1.0)
        return rest + torch.where(_per_row(solved, score), score, white)

    def score(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch *latent"]:
        """What this term alone adds to the prior's score, (B, *latent).

        Raises:
            RuntimeError: called under torch.inference_mode.
        """
        refuse_inference_mode()
        with torch.set_grad_enabled(self.needs_jacobian):
            z = leaf(z_t)
            eps_hat = self.denoiser(z, t)
        return self.condition(z, *coefficients(self.schedule, t, z), eps_hat, torch.zeros_like(z_t))

    def _outside(self, v: Tensor) -> Tensor:
        """Q v, the part of v outside the free directions."""
        if self.free is None:
            return v
        free = self.free.to(v).flatten(2).expand(len(v), -1, -1)
        along = torch.einsum("bkd,bd->bk", free, v.flatten(1))
        return v - torch.einsum("bk,bkd->bd", along, free).view_as(v)

    def _source(self, z_t: Tensor) -> Tensor:
        if self.z_src.shape[1:] != z_t.shape[1:] or len(self.z_src) not in (1, len(z_t)):
            raise ValueError(
                f"`z_src` must have one row or the shape of z_t, {tuple(z_t.shape)}, got {tuple(self.z_src.shape)}; "
                "give one source per latent"
            )
        if self.free is not None and (
            self.free.shape[2:] != z_t.shape[1:] or len(self.free) not in (1, len(z_t)) or self.free.ndim < 3
        ):
            raise ValueError(
                f"`free` must be (B, k, *latent), k directions per latent of shape {tuple(z_t.shape[1:])}, "
                f"got {tuple(self.free.shape)}"
            )
        return self.z_src.to(z_t)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    shift: float | Float[Tensor, "batch *one"],
    right: Float[Tensor, "batch *latent"],
    iterations: int,
    tolerance: float,
) -> tuple[Float[Tensor, "batch *latent"], Bool[Tensor, " batch"]]:
    """Solves (shift I + C) x = right by conjugate gradients, each row for itself and all rows in one product.

    Hestenes & Stiefel 1952. A row stops when its residual is small, or when a direction p shows that C is not positive
    semi-definite, p.(shift I + C)p < shift |p|^2 / 2, which exact denoisers never do: it then keeps what it has.

    Args:
        product: v -> C v, both (B, *latent).
        shift: > 0, a number or (B, 1, ...).
        right: the right-hand side.
        iterations: how many products at most.
        tolerance: residual at which a row stops, relative to its right-hand side.

    Returns:
        x, and whether a row took at least one step or needed none, (B,); where not, x is 0 and C is useless.
    """
    x, residual, direction = torch.zeros_like(right), right, right
    rho = _dot(residual, residual)
    goal = tolerance**2 * rho
    active = rho > 0
    solved = ~active
    for _ in range(iterations):
        image = shift * direction + product(direction)
        curvature = _dot(direction, image)
        active = active & (curvature >= 0.5 * shift * _dot(direction, direction))
        solved = solved | active
        step = torch.where(active, rho / curvature, 0.0)
        x, residual = x + step * direction, residual - step * image
        rho, before = _dot(residual, residual), rho
        active = active & (rho > goal)
        if not active.any():
            break
        direction = residual + torch.where(active, rho / before, 0.0) * direction
    return x, solved.flatten()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (B, 1, ...)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *(1,) * (a.ndim - 1))


def _norm(a: Tensor) -> Tensor:
    return _dot(a, a).sqrt()


def _per_row(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *(1,) * (like.ndim - 1))

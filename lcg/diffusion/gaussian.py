"""Denoisers that are exactly right: latents that are Gaussian, or a mixture of Gaussians.

For p(z_0) = sum_k pi_k N(mu_k, S_k) everything a diffusion model approximates is known in closed form,

    q(z_t)            = sum_k pi_k N(alpha_t mu_k, alpha_t^2 S_k + sigma_t^2 I),
    r_k(z_t)          = P(k | z_t), the noisy posterior of the component, hence the perfect noisy classifier,
    p(z_0 | z_t, k)   = N(m_k, V_k),   V_k = (S_k^-1 + alpha_t^2 / sigma_t^2 I)^-1,
    eps_hat           = sigma_t sum_k r_k (alpha_t^2 S_k + sigma_t^2 I)^-1 (z_t - alpha_t mu_k),

so that samplers, guidance and correctors can be tested against the truth. With S_k = Q_k diag(L_k) Q_k^T every inverse
is a division in the eigenbasis, at any noise level and, for t > 0, also for singular S_k. Computed in float64, returned
in z_t's precision; differentiable in z_t.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Randomness, randn
from lcg.diffusion.schedule import Schedule


class MixtureDenoiser:
    """The exact denoiser of a mixture of Gaussians.

    Args:
        log_weights: logarithms of the components' weights (K,), up to a common constant.
        means: mu_k (K, D).
        covariances: S_k (K, D, D), symmetric, positive semi-definite.
        schedule: of the noise.

    Raises:
        ValueError: shapes disagree, or a covariance is not symmetric or has a negative eigenvalue.

    Example:
        >>> from lcg.diffusion import CosineSchedule
        >>> means, covariances = torch.tensor([[-2.0], [2.0]]), 0.1 * torch.eye(1).expand(2, 1, 1)
        >>> denoiser = MixtureDenoiser(torch.zeros(2), means, covariances, CosineSchedule())
        >>> denoiser.responsibilities(torch.tensor([[0.2]]), torch.tensor([0.5])).exp().round(decimals=3)
        tensor([[0.2630, 0.7370]])
    """

    def __init__(self, log_weights: Tensor, means: Tensor, covariances: Tensor, schedule: Schedule) -> None:
        shapes = log_weights.shape, means.shape, covariances.shape
        if means.ndim != 2 or shapes != (means.shape[:1], means.shape, (*means.shape, means.shape[1])):
            raise ValueError(
                "`log_weights`, `means`, `covariances` must have shapes (K,), (K, D), (K, D, D), got "
                f"{', '.join(str(tuple(shape)) for shape in shapes)}; give one entry per component"
            )
        covariances = covariances.double()
        if not torch.allclose(covariances, covariances.mT):
            raise ValueError("`covariances` must be symmetric, got a matrix that is not; use (S + S.mT) / 2")
        self.schedule = schedule
        self.log_weights, self.means = log_weights.double().log_softmax(0), means.double()
        eigenvalues, self.bases = torch.linalg.eigh(covariances)  # L (K, D), Q (K, D, D) with eigenvectors in columns
        if eigenvalues.min() < -1e-9 * eigenvalues.abs().max():
            raise ValueError(
                f"`covariances` must be positive semi-definite, got the eigenvalue {eigenvalues.min():.3g}; "
                "add a multiple of the identity"
            )
        self.variances = eigenvalues.clamp(min=0)

    def __call__(self, z_t: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """eps_hat (B, D), the exact expectation of eps given z_t."""
        _, sigma, u, var = self._diffused(z_t, t)
        whitened = torch.einsum("kde,bke->bkd", self.bases, u / var)
        return (sigma * torch.einsum("bk,bkd->bd", self._log_joint(u, var).softmax(1), whitened)).to(z_t.dtype)

    def log_prob(self, z_t: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The log-density log q(z_t) of the noised latents (B,)."""
        _, _, u, var = self._diffused(z_t, t)
        return self._log_joint(u, var).logsumexp(1).to(z_t.dtype)

    def responsibilities(
        self, z_t: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch components"]:
        """The log-probabilities log r_k = log P(k | z_t) (B, K) of the components; rows are normalised."""
        _, _, u, var = self._diffused(z_t, t)
        return self._log_joint(u, var).log_softmax(1).to(z_t.dtype)

    def component_moments(
        self, z_t: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components dim dim"]]:
        """(m_k, V_k), mean (B, K, D) and covariance (B, K, D, D) of z_0 given z_t and the component k."""
        alpha, sigma, u, var = self._diffused(z_t, t)
        gain = alpha[..., None] * self.variances / var
        means = self.means + torch.einsum("kde,bke->bkd", self.bases, gain * u)
        spread = sigma[..., None].square() * self.variances / var
        covariances = torch.einsum("kde,bke,kfe->bkdf", self.bases, spread, self.bases)
        return means.to(z_t.dtype), covariances.to(z_t.dtype)

    def moments(
        self, z_t: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim dim"]]:
        """E[z_0 | z_t] (B, D), which is z_0_hat, and Cov[z_0 | z_t] (B, D, D), by the law of total covariance."""
        means, covariances = self.component_moments(z_t.double(), t)
        r = self.responsibilities(z_t.double(), t).exp()
        mean = torch.einsum("bk,bkd->bd", r, means)
        centred = means - mean[:, None]
        covariance = torch.einsum("bk,bkde->bde", r, covariances + centred[..., :, None] * centred[..., None, :])
        return mean.to(z_t.dtype), covariance.to(z_t.dtype)

    def sample(
        self, n: int, generator: Randomness = None, *, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n dim"]:
        """Draws n independent clean latents z_0 (n, D); `generator`: none, one, or one per row."""
        draws = randn((n, 1 + self.means.shape[1]), generator, dtype=torch.float64, device=self.means.device)
        uniform = torch.special.ndtr(draws[:, :1])  # the first number chooses the component, the others the point
        k = (uniform > self.log_weights.exp().cumsum(0)[:-1]).sum(1)
        offset = torch.einsum("bde,be->bd", self.bases[k], self.variances[k].sqrt() * draws[:, 1:])
        return (self.means[k] + offset).to(dtype)

    def _diffused(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gives alpha, sigma (B, 1), u = Q_k^T (z_t - alpha mu_k) and its variances, both (B, K, D), in float64."""
        alpha, sigma = self.schedule.alpha(t)[:, None], self.schedule.sigma(t)[:, None]
        u = torch.einsum("kde,bkd->bke", self.bases, z_t.double()[:, None] - alpha[..., None] * self.means)
        return alpha, sigma, u, (alpha[..., None] ** 2) * self.variances + sigma[..., None] ** 2

    def _log_joint(self, u: Tensor, var: Tensor) -> Tensor:
        """The joint log pi_k + log N(z_t; alpha mu_k, alpha^2 S_k + sigma^2 I), (B, K)."""
        return self.log_weights - 0.5 * (u.square() / var + var.log() + math.log(2 * math.pi)).sum(2)


class GaussianDenoiser(MixtureDenoiser):
    """The exact denoiser of z_0 ~ N(mean, covariance): a mixture of one, whose probability flow is known too.

    Args:
        mean: mu (D,).
        covariance: S (D, D), symmetric, positive semi-definite.
        schedule: of the noise.

    Raises:
        ValueError: shapes disagree, or the covariance is not symmetric or has a negative eigenvalue.

    Example:
        >>> from lcg.diffusion import CosineSchedule, DPMSolverPP2M
        >>> schedule, rng = CosineSchedule(), torch.Generator().manual_seed(0)
        >>> denoiser = GaussianDenoiser(torch.tensor([3.0]), torch.tensor([[0.25]]), schedule)
        >>> z_0 = DPMSolverPP2M(schedule, steps=20).sample(denoiser, torch.randn(4000, 1, generator=rng))
        >>> abs(float(z_0.mean()) - 3) < 0.05, abs(float(z_0.std()) - 0.5) < 0.02
        (True, True)
    """

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: Schedule) -> None:
        super().__init__(mean.new_zeros(1), mean[None], covariance[None], schedule)

    def flow(
        self, z_t: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], s: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"]:
        """The probability-flow ODE's exact map from time t to time s.

        Its marginals are Gaussians with common axes, so each axis is only stretched:
        Q^T (z_s - alpha_s mu) = sqrt((alpha_s^2 L + sigma_s^2) / (alpha_t^2 L + sigma_t^2)) Q^T (z_t - alpha_t mu).
        """
        _, _, u, var_t = self._diffused(z_t, t)
        alpha_s, _, _, var_s = self._diffused(z_t, s)
        stretched = torch.einsum("kde,bke->bd", self.bases, u * (var_s / var_t).sqrt())
        return (alpha_s * self.means + stretched).to(z_t.dtype)

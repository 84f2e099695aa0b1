"""UniPC: a multistep predictor, and a corrector that costs no evaluation because it uses the one made next anyway.

In lambda_t the probability-flow ODE is linear apart from z_0_hat. Over a step of h = lambda_s - lambda_t it is exactly

    z_s = (sigma_s / sigma_t) z_t - alpha_s expm1(-h) <z_0_hat>,
    <f> = int_0^1 f(lambda_t + u h) h exp(h (u - 1)) du / (1 - exp(-h))

(Lu et al. 2022, arXiv:2211.01095, proposition 4.1), so that a solver only has to say how it averages z_0_hat over the
step. UniPC (Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2, for data prediction) takes

    <z_0_hat> = z_0_hat_t + sum_m a_m (z_0_hat_m - z_0_hat_t),      sum_m a_m r_m^k = <u^k>,  k = 1, ..., number of m,

with r_m = (lambda_m - lambda_t) / h where the predictions are: the earlier ones (r_m < 0) for the predictor, and beside
them z_0_hat at the predicted z_s (r = 1) for the corrector, whose order is one higher. The corrected z_s is not
evaluated again. The paper's B(h) cancels from this system; it matters only where a single m leaves a choice. There
B_2(h) means a_1 r_1 = 1/2, the limit of <u> for small h, which makes the predictor of order 2 that of DPM-Solver++(2M).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Randomness
from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.base import Progress
from lcg.diffusion.samplers.multistep import Multistep
from lcg.diffusion.schedule import expand


class UniPC(Multistep):
    """UniPC-1 to -3 with B_2(h), deterministic. Arguments: see `Multistep`.

    `order` is the predictor's, the corrector's being one higher; order 1 is DDIM, without a corrector.

    With ten evaluations, use spacing="log_snr", t_start=0.99, t_end=0.04. So set, 2000 samples of a mixture in 16
    dimensions, guided with weight 1 by its exact noisy posterior, were as far from their target in sliced Wasserstein
    distance as those of the converged ODE: 1.00 times as far, the mean of five mixtures, and 1.04 at most. DDIM with
    100 evaluations and its defaults: 1.01 and 1.07. Latents with details finer than sigma(0.04) = 0.06 need a smaller
    t_end and more evaluations.
    """

    highest_order = 3

    def solve(
        self,
        denoiser: Denoiser,
        z: Float[Tensor, "batch *latent"],
        times: Float[Tensor, " steps"],
        generator: Randomness,
        progress: Progress | None,
    ) -> Float[Tensor, "batch *latent"]:
        log_snr = self.schedule.log_snr(times.cpu())  # the plan is a few numbers, solved for where that is quick
        sigma, h = self.schedule.sigma(times), log_snr.diff()
        keep, gain = sigma[1:] / sigma[:-1], -self.schedule.alpha(times[1:]) * torch.expm1(-h).to(times.device)
        z_0_hat = z_t = z  # z_t: where the step to z began, corrected
        known: list[Tensor] = []  # z_0_hat at times[i - 1], times[i - 2], ...
        for i, t in enumerate(times):
            z_0_hat, _ = self.predict(denoiser, z, t)
            if 0 < i < len(h) and self.order > 1:  # at t_end only z_0_hat is wanted
                used = [i - 1 - m for m in range(self.order_at(i - 1, len(h)))]
                mean = average([*known[: len(used)], z_0_hat], log_snr[[*used, i]], h[i - 1])
                z = expand(keep[i - 1], z) * z_t + expand(gain[i - 1], z) * mean
            known = [z_0_hat, *known[: self.order - 1]]
            if i < len(h):
                used = [i - m for m in range(self.order_at(i, len(h)))]
                mean = average(known[: len(used)], log_snr[used], h[i])
                z_t, z = z, expand(keep[i], z) * z + expand(gain[i], z) * mean
            if progress is not None:
                progress(i + 1, len(times))
        return z_0_hat


def average(
    predictions: list[Tensor], log_snr: Float[Tensor, " predictions"], h: Float[Tensor, ""]
) -> Float[Tensor, "..."]:
    """<z_0_hat> over a step of h, from z_0_hat at each log_snr, of which the first is where the step begins."""
    base, *others = predictions
    mean = base
    for a, z_0_hat in zip(weights((log_snr[1:] - log_snr[0]) / h, h), others, strict=True):
        mean = mean + expand(a, base) * (z_0_hat - base)
    return mean


def weights(r: Float[Tensor, " others"], h: Float[Tensor, ""]) -> Float[Tensor, " others"]:
    """The a_m with sum_m a_m r_m^k = <u^k>; by parts, <u^k> = 1 / (1 - e^-h) - (k / h) <u^(k-1)> and <1> = 1."""
    if len(r) < 2:
        return 0.5 / r
    moments, powers = [torch.ones_like(h)], torch.arange(1, len(r) + 1)
    for k in powers.tolist():
        moments.append(-1 / torch.expm1(-h) - k / h * moments[-1])
    return torch.linalg.solve(r ** powers[:, None], torch.stack(moments[1:]))

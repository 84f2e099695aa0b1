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
B_2(h) means a_1 r_1 = 1/2, the limit of `<u>` for small h, by which the predictor of order 2 is that of
DPM-Solver++(2M).
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lcg.diffusion.noise import Randomness
from lcg.diffusion.samplers.base import Progress
from lcg.diffusion.samplers.multistep import Multistep
from lcg.diffusion.samplers.path import Path


class UniPC(Multistep):
    """UniPC-1 to -3 with B_2(h), deterministic. Arguments: see `Multistep`.

    `order` is the predictor's, the corrector's being one higher; order 1 is DDIM, without a corrector.

    Under guidance, use spacing="asinh" with t_end=0.02 and 15 evaluations. On eight mixtures in 16 dimensions, guided
    with weight 8 by their exact noisy posteriors, samples were then 0.01 to 0.03 standard deviations of the data away
    from those of the converged ODE (root mean square, 2000 samples each; 0.01 the median sample), and 0.03 to 0.05 at
    the default t_end; with spacing="log_snr" 0.02 to 0.07, DDIM with 100 evaluations and its defaults 0.02 to 0.07.
    Latents with details finer than sigma(0.02) = 0.03 need a smaller t_end. `experiments/05_fast_core/solvers.md` has
    the other solvers, spacings and weights.

    For the distribution of samples alone, ten evaluations suffice at weight 1, with spacing="log_snr", t_start=0.99,
    t_end=0.04: 2000 samples of such mixtures were as far from their target in sliced Wasserstein distance as those of
    the converged ODE, 1.00 times as far, the mean of five mixtures, and 1.04 at most. DDIM with 100 evaluations and its
    defaults: 1.01 and 1.07.
    """

    highest_order = 3

    def solve(
        self, path: Path, z: Float[Tensor, "batch *latent"], generator: Randomness, progress: Progress | None
    ) -> Float[Tensor, "batch *latent"]:
        lambda_, last = torch.tensor(path.log_snr, dtype=torch.float64), len(path) - 1
        z_0_hat = z_t = z  # z_t: where the step to z began, corrected
        known: list[Tensor] = []  # z_0_hat at the last times, the latest first
        for i in path:
            z_0_hat, _ = path.predict(z, i)
            if 0 < i < last and self.order > 1:  # at t_end only z_0_hat is wanted
                used = [i - 1 - m for m in range(self.order_at(i - 1, last))]
                mean = average([*known[: len(used)], z_0_hat], lambda_[[*used, i]], path.step(i - 1))
                z = _step(path, i - 1, z_t, mean)
            known = [z_0_hat, *known[: self.order - 1]]
            if i < last:
                used = [i - m for m in range(self.order_at(i, last))]
                mean = average(known[: len(used)], lambda_[used], path.step(i))
                z_t, z = z, _step(path, i, z, mean)
            if progress is not None:
                progress(i + 1, len(path))
        return z_0_hat


def _step(path: Path, i: int, z_t: Tensor, mean: Tensor) -> Tensor:
    """From z_t at time i to the next, with `<z_0_hat>` over the step."""
    gain = -path.alpha[i + 1] * math.expm1(-path.step(i))
    return torch.add(path.sigma[i + 1] / path.sigma[i] * z_t, mean, alpha=gain)


def average(predictions: list[Tensor], log_snr: Float64[Tensor, " predictions"], h: float) -> Float[Tensor, "..."]:
    """`<z_0_hat>` over a step of h, from z_0_hat at each log_snr, of which the first is where the step begins."""
    base, *others = predictions
    mean = base
    for a, z_0_hat in zip(weights((log_snr[1:] - log_snr[0]) / h, h).tolist(), others, strict=True):
        mean = torch.add(mean, z_0_hat - base, alpha=a)
    return mean


def weights(r: Float64[Tensor, " others"], h: float) -> Float64[Tensor, " others"]:
    """The a_m with `sum_m a_m r_m^k = <u^k>`; by parts, `<u^k> = 1 / (1 - e^-h) - (k / h) <u^(k-1)>`, `<1> = 1`."""
    if len(r) < 2:
        return 0.5 / r
    moments, powers = [1.0], torch.arange(1, len(r) + 1)
    for k in powers.tolist():
        moments.append(-1 / math.expm1(-h) - k / h * moments[-1])
    return torch.linalg.solve(r ** powers[:, None], torch.tensor(moments[1:], dtype=r.dtype))

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import (
    DDIM,
    CosineSchedule,
    GaussianDenoiser,
    LinearSchedule,
    MixtureDenoiser,
    Schedule,
    randn,
    v_from_eps,
    z0_from_eps,
)
from lcg.diffusion.samplers.heun import Heun


def noise(n: int, dim: int, seed: int = 0) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_standard_normal_latents_stay_where_they_are(schedule: Schedule) -> None:
    """There v_hat = 0, whatever the steps; z_0_hat at t_end is alpha z_t."""
    normal = GaussianDenoiser(torch.zeros(3), torch.eye(3), schedule)
    z_0 = Heun(schedule, steps=5).sample(normal, noise(8, 3))
    assert_close(z_0, schedule.alpha(torch.tensor(0.001).double()) * noise(8, 3), rtol=0, atol=1e-10)


def test_a_step_averages_the_slopes_at_its_ends(mixture: MixtureDenoiser) -> None:
    """Cosine steps of Heun for dz/dtheta = v_hat, written out for 5 evaluations, and for 4: the last step is DDIM's."""
    schedule, z = mixture.schedule, noise(16, 2)
    t = Heun(schedule, steps=5).times()
    theta = torch.atan(torch.exp(-schedule.log_snr(t)))
    assert t[1] == t[2] and t[3] == t[4]

    def v_hat(z: Tensor, i: int) -> Tensor:
        return v_from_eps(schedule, z, t[i].expand(16), mixture(z, t[i].expand(16)))

    def z_0_hat(z: Tensor, i: int) -> Tensor:
        return z0_from_eps(schedule, z, t[i].expand(16), mixture(z, t[i].expand(16)))

    d = theta.diff()
    v_0 = v_hat(z, 0)
    z_1 = z + d[0] * (v_0 + v_hat(z + d[0] * v_0, 1)) / 2
    v_1 = v_hat(z_1, 2)
    z_2 = z_1 + d[2] * (v_1 + v_hat(z_1 + d[2] * v_1, 3)) / 2
    assert_close(Heun(schedule, steps=5).sample(mixture, z), z_0_hat(z_2, 4), rtol=0, atol=1e-10)
    eps = mixture(z_1, t[2].expand(16))
    z_2 = schedule.alpha(t[4]) * z_0_hat(z_1, 2) + schedule.sigma(t[4]) * eps
    assert_close(Heun(schedule, steps=4).sample(mixture, z), z_0_hat(z_2, 4), rtol=0, atol=1e-10)


def test_two_evaluations_are_ddim(mixture: MixtureDenoiser) -> None:
    z = noise(16, 2)
    expected = DDIM(mixture.schedule, steps=2).sample(mixture, z)
    assert_close(Heun(mixture.schedule, steps=2).sample(mixture, z), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("odd", [0, 1])
def test_heun_is_of_second_order(gaussian: GaussianDenoiser, odd: int) -> None:
    z, end = noise(32, 4), torch.full((32,), 0.001).double()
    z_end = gaussian.flow(z, torch.full((32,), 0.995).double(), end)
    reference = z0_from_eps(gaussian.schedule, z_end, end, gaussian(z_end, end))
    errors = [
        (Heun(gaussian.schedule, steps=n + odd, spacing="log_snr").sample(gaussian, z) - reference).abs().max()
        for n in (50, 100, 200)
    ]
    assert (errors[0] / errors[1]).item() == pytest.approx(4, abs=0.4)
    assert (errors[1] / errors[2]).item() == pytest.approx(4, abs=0.4)


def test_times_come_twice_but_for_the_first() -> None:
    times = Heun(CosineSchedule(), steps=7, t_start=0.7, t_end=0.1).times()
    assert_close(times, torch.tensor([0.7, 0.5, 0.5, 0.3, 0.3, 0.1, 0.1]).double(), rtol=0, atol=1e-7)
    assert Heun(CosineSchedule(), steps=6, t_start=0.7, t_end=0.1).times().tolist() == times[:-1].tolist()
    assert Heun(CosineSchedule(), steps=7).times(t_start=0.4)[0].item() == 0.4


# --- churn ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("churn", "gamma"), [(0.3, 0.1), (100.0, math.sqrt(2) - 1)])
def test_churn_raises_the_noise_by_gamma(schedule: Schedule, churn: float, gamma: float) -> None:
    asked: list[Tensor] = []

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t[0])
        return schedule.sigma(t)[:, None] * z_t

    sampler = Heun(schedule, steps=7, t_start=0.9, t_end=0.01, churn=churn)
    sampler.sample(denoiser, noise(3, 2))
    times, found = sampler.times(), torch.stack(asked)
    factor = torch.ones(7, dtype=torch.float64)
    factor[[2, 4]] += gamma  # where the second and the third step begin; t_start and t_end are left as they are
    expected = schedule.time(schedule.log_snr(times) - factor.log())
    assert_close(found, expected.clamp(max=0.9), rtol=1e-9, atol=0)


def test_churn_never_leaves_the_known_times() -> None:
    asked: list[float] = []

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t[0].item())
        return z_t

    Heun(LinearSchedule(), steps=41, t_start=1.0, churn=100.0).sample(denoiser, noise(3, 2))
    assert max(asked) == 1.0


@pytest.mark.parametrize("churn", [1.0, 40.0])
def test_churned_samples_have_the_moments_of_a_gaussian(gaussian: GaussianDenoiser, churn: float) -> None:
    """Whitened by the truth, means are off by 1 / sqrt(n), covariances by sqrt(2 / n), both a little by the steps."""
    n = 10_000
    sampler = Heun(gaussian.schedule, steps=61, spacing="karras", churn=churn)
    z_0 = sampler.sample(gaussian, noise(n, 4), torch.Generator().manual_seed(1))
    white = (z_0 - gaussian.means) @ gaussian.bases[0] / gaussian.variances[0].sqrt()
    assert white.mean(0).abs().max() < 4 / math.sqrt(n) + 0.01
    assert (torch.cov(white.T) - torch.eye(4)).abs().max() < 4 * math.sqrt(2 / n) + 0.02


def test_churn_forgets_a_wrong_start(gaussian: GaussianDenoiser) -> None:
    """From a single point the deterministic solver can only make a single point; churn brings the spread back."""
    z = torch.zeros(2_000, 4, dtype=torch.float64)
    point = Heun(gaussian.schedule, steps=61, spacing="karras").sample(gaussian, z)
    spread = Heun(gaussian.schedule, steps=61, spacing="karras", churn=40.0).sample(
        gaussian, z, torch.Generator().manual_seed(0)
    )
    assert point.std(0).max() < 1e-6
    assert_close(
        spread.var(0),
        torch.diagonal(gaussian.bases[0] * gaussian.variances[0] @ gaussian.bases[0].T),
        rtol=0.15,
        atol=0,
    )


@pytest.mark.parametrize("churn", [-1.0, math.inf, math.nan])
def test_churn_must_be_an_amount(churn: float) -> None:
    with pytest.raises(ValueError, match=rf"`churn` must be >= 0 and finite, got {churn}; 0 is deterministic"):
        Heun(CosineSchedule(), churn=churn)

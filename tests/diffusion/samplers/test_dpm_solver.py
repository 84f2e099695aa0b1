import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import DDIM, DPMSolverPP2M, GaussianDenoiser, MixtureDenoiser, Schedule, randn, z0_from_eps


def noise(n: int, dim: int) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(0), dtype=torch.float64)


def test_dpm_solver_is_of_second_order(gaussian: GaussianDenoiser) -> None:
    z = noise(32, 4)
    end = torch.full((32,), 0.001).double()
    z_end = gaussian.flow(z, torch.full((32,), 0.995).double(), end)
    reference = z0_from_eps(gaussian.schedule, z_end, end, gaussian(z_end, end))
    errors = [
        (DPMSolverPP2M(gaussian.schedule, steps=n + 1, spacing="log_snr").sample(gaussian, z) - reference).abs().max()
        for n in (50, 100, 200)
    ]
    assert (errors[0] / errors[1]).item() == pytest.approx(4, abs=0.4)
    assert (errors[1] / errors[2]).item() == pytest.approx(4, abs=0.4)


def test_first_and_last_steps_are_ddim(mixture: MixtureDenoiser) -> None:
    for steps in (2, 3):  # no step is left for the extrapolation
        first_order = DDIM(mixture.schedule, steps=steps).sample(mixture, noise(16, 2))
        z_0 = DPMSolverPP2M(mixture.schedule, steps=steps).sample(mixture, noise(16, 2))
        assert_close(z_0, first_order, rtol=0, atol=1e-10)


def test_a_step_in_between_is_algorithm_2(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    """Four evaluations written out as in Lu et al. 2022, Algorithm 2, with r_i = h_{i-1} / h_i."""
    sampler, z = DPMSolverPP2M(schedule, steps=4), noise(16, 2)
    t = sampler.times()
    a, s, h = schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t).diff()

    def z_0_hat(z: Tensor, i: int) -> Tensor:
        return z0_from_eps(schedule, z, t[i].expand(16), mixture(z, t[i].expand(16)))

    x_0 = z_0_hat(z, 0)
    z_1 = s[1] / s[0] * z - a[1] * (torch.exp(-h[0]) - 1) * x_0
    x_1, r = z_0_hat(z_1, 1), h[0] / h[1]
    z_2 = s[2] / s[1] * z_1 - a[2] * (torch.exp(-h[1]) - 1) * ((1 + 1 / (2 * r)) * x_1 - 1 / (2 * r) * x_0)
    x_2 = z_0_hat(z_2, 2)
    z_3 = s[3] / s[2] * z_2 - a[3] * (torch.exp(-h[2]) - 1) * x_2
    assert_close(sampler.sample(mixture, z), z_0_hat(z_3, 3), rtol=0, atol=1e-10)


def test_forty_evaluations_beat_a_hundred_and_sixty_of_ddim(gaussian: GaussianDenoiser) -> None:
    z = noise(64, 4)
    exact = gaussian.flow(z, torch.full((64,), 0.995).double(), torch.zeros(64).double())
    second = DPMSolverPP2M(gaussian.schedule, steps=40, spacing="log_snr").sample(gaussian, z)
    first = DDIM(gaussian.schedule, steps=160).sample(gaussian, z)
    assert (second - exact).abs().max() < (first - exact).abs().max()

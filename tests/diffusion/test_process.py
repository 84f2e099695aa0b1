import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import (
    Denoiser,
    MixtureDenoiser,
    Schedule,
    diffuse,
    eps_from_score,
    eps_from_v,
    eps_from_z0,
    score_from_eps,
    v_from_eps,
    v_from_z0,
    velocity,
    z0_from_eps,
    z0_from_v,
)

EXACT = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture(params=[(5,), (3, 2)], ids=["vector", "matrix"])
def case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, Tensor]:
    """z_0, eps and t, for latents of one and of two axes."""
    generator = torch.Generator().manual_seed(0)
    z_0, eps = torch.randn(2, 64, *request.param, dtype=torch.float64, generator=generator)
    return z_0, eps, torch.linspace(0.02, 0.95, 64, dtype=torch.float64)


def test_all_parametrisations_agree(schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]) -> None:
    z_0, eps, t = case
    z_t, v = diffuse(schedule, z_0, t, eps), velocity(schedule, z_0, t, eps)
    assert_close(z0_from_eps(schedule, z_t, t, eps), z_0, **EXACT)
    assert_close(z0_from_v(schedule, z_t, t, v), z_0, **EXACT)
    assert_close(eps_from_z0(schedule, z_t, t, z_0), eps, **EXACT)
    assert_close(eps_from_v(schedule, z_t, t, v), eps, **EXACT)
    assert_close(v_from_eps(schedule, z_t, t, eps), v, **EXACT)
    assert_close(v_from_z0(schedule, z_t, t, z_0), v, **EXACT)


def test_z_and_v_are_a_rotation_of_z0_and_eps(schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]) -> None:
    z_0, eps, t = case
    z_t, v = diffuse(schedule, z_0, t, eps), velocity(schedule, z_0, t, eps)
    assert_close(z_t**2 + v**2, z_0**2 + eps**2, **EXACT)


def test_score_and_noise_differ_by_the_scale(schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]) -> None:
    z_0, eps, t = case
    z_t = diffuse(schedule, z_0, t, eps).requires_grad_()
    alpha, sigma = (c.reshape(-1, *(1,) * (z_0.ndim - 1)) for c in (schedule.alpha(t), schedule.sigma(t)))
    log_q = (-0.5 * ((z_t - alpha * z_0) / sigma) ** 2).sum()
    (score,) = torch.autograd.grad(log_q, z_t)
    assert_close(score_from_eps(schedule, z_t.detach(), t, eps), score, rtol=1e-11, atol=1e-11)
    assert_close(eps_from_score(schedule, z_t.detach(), t, score), eps, **EXACT)


def test_at_time_zero_nothing_is_noised(schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]) -> None:
    z_0, eps, t = case
    assert_close(diffuse(schedule, z_0, torch.zeros_like(t), eps), z_0, rtol=0, atol=0)


def test_latents_keep_their_precision_and_coefficients_theirs(schedule: Schedule) -> None:
    t = torch.full((4,), 1e-5)
    z_t = diffuse(schedule, torch.zeros(4, 3), t, torch.ones(4, 3))
    assert z_t.dtype == torch.float32
    assert_close(z_t.double(), schedule.sigma(t.double())[:, None].expand(4, 3), rtol=1e-6, atol=0)


def test_batch_equals_each_row_alone(schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]) -> None:
    z_0, eps, t = case
    rows = [diffuse(schedule, *(x[i : i + 1] for x in (z_0, t, eps))) for i in range(len(t))]
    assert_close(diffuse(schedule, z_0, t, eps), torch.cat(rows), rtol=1e-15, atol=0)


def test_exact_denoisers_keep_the_contract(mixture: MixtureDenoiser) -> None:
    assert isinstance(mixture, Denoiser)

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import (
    DDIM,
    Denoiser,
    MixtureDenoiser,
    Schedule,
    diffuse,
    eps_from_score,
    eps_from_v,
    eps_from_z0,
    randn,
    score_from_eps,
    v_from_eps,
    v_from_z0,
    velocity,
    z0_from_eps,
    z0_from_v,
)
from lcg.diffusion.process import eps_from_flow, flow_from_eps, flow_point, renoise
from lcg.diffusion.samplers.heun import Heun

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


# --- adding noise -----------------------------------------------------------------------------------------------------


def test_renoised_latents_have_the_noise_of_their_new_time(
    schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]
) -> None:
    """z_s = alpha_s z_0 + (two independent parts of noise), whose variances add up to sigma_s^2."""
    z_0, eps, t = case
    s = (t + 1) / 2
    z_t, none = diffuse(schedule, z_0, t, eps), torch.zeros_like(eps)
    old = renoise(schedule, z_t, t, s, none) - diffuse(schedule, z_0, s, none)
    new = renoise(schedule, z_t, t, s, eps) - renoise(schedule, z_t, t, s, none)
    sigma = schedule.sigma(s).reshape(-1, *(1,) * (z_0.ndim - 1))
    assert_close(old**2 + new**2, (sigma * eps) ** 2, **EXACT)


def test_renoising_to_the_same_time_changes_nothing(schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]) -> None:
    z_t, eps, t = case
    assert_close(renoise(schedule, z_t, t, t, eps), z_t, rtol=0, atol=0)


def test_a_little_noise_is_added_precisely(schedule: Schedule) -> None:
    """beta_t dt for a small dt: sigma_s^2 - (alpha_s / alpha_t)^2 sigma_t^2 would lose most of its digits."""
    t, dt = torch.tensor([0.1, 0.5, 0.8]).double(), 1e-9
    zero, one = torch.zeros(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    beta = -2 * (schedule.log_alpha(t + 1e-4) - schedule.log_alpha(t - 1e-4)) / 2e-4
    assert_close(renoise(schedule, zero, t, t + dt, one)[:, 0] ** 2, beta * dt, rtol=1e-5, atol=0)


def test_noise_cannot_be_removed_by_adding_some(schedule: Schedule) -> None:
    z, t = torch.zeros(2, 3), torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match=r"`s` must not be below `t`: noise can be added, not removed; use a sampler"):
        renoise(schedule, z, t, torch.tensor([0.6, 0.4]), z)


# --- flow matching ----------------------------------------------------------------------------------------------------


def test_flow_paths_are_straight(schedule: Schedule, case: tuple[Tensor, Tensor, Tensor]) -> None:
    z_0, eps, t = case
    z_t = diffuse(schedule, z_0, t, eps)
    x, tau = flow_point(schedule, z_t, t)
    rows = tau.reshape(-1, *(1,) * (z_0.ndim - 1))
    assert_close(x, (1 - rows) * z_0 + rows * eps, **EXACT)
    assert_close(tau, torch.sigmoid(-schedule.log_snr(t)), **EXACT)
    assert_close(flow_from_eps(schedule, z_t, t, eps), eps - z_0, rtol=0, atol=1e-11)
    assert_close(eps_from_flow(schedule, z_t, t, eps - z_0), eps, **EXACT)


def test_flow_time_keeps_the_precision_of_time(schedule: Schedule) -> None:
    x, tau = flow_point(schedule, torch.ones(2, 3, dtype=torch.float64), torch.tensor([0.2, 0.4]))
    assert (x.dtype, tau.dtype) == (torch.float64, torch.float32)


def test_a_ddim_step_is_eulers_on_the_flow(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    """x_s = x_t + (tau_s - tau_t) u_hat for every step, so the two families have one ODE and one first-order solver."""
    sampler, z = DDIM(schedule, steps=6), noise(8, 2)
    times = sampler.times()
    x, tau = flow_point(schedule, z, times[0].expand(8))
    for i, t in enumerate(times):
        rows = t.expand(8)
        z_t = x * (schedule.alpha(t) + schedule.sigma(t))
        u_hat = flow_from_eps(schedule, z_t, rows, mixture(z_t, rows))
        following = flow_point(schedule, z_t, times[i + 1].expand(8))[1] if i + 1 < len(times) else torch.zeros(8)
        x, tau = x + (following - tau)[:, None] * u_hat, following
    assert_close(sampler.sample(mixture, z), x, rtol=0, atol=1e-11)


# --- guidance, the same in every parametrisation ----------------------------------------------------------------------


def noise(n: int, dim: int) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(0), dtype=torch.float64)


def gradient(prior: MixtureDenoiser, z_t: Tensor, t: Tensor) -> Tensor:
    """G of the event that z_0 comes from the first component."""
    with torch.enable_grad():
        z = z_t.detach().requires_grad_()
        return torch.autograd.grad(prior.responsibilities(z, t)[:, 0].sum(), z)[0]


def predictions(prior: MixtureDenoiser, z_t: Tensor, t: Tensor, weight: float) -> dict[str, Tensor]:
    """The guided prediction in each parametrisation, from the unguided one in the same."""
    schedule, eps, G = prior.schedule, prior(z_t, t), weight * gradient(prior, z_t, t)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    return {
        "eps": eps - sigma * G,
        "z_0": z0_from_eps(schedule, z_t, t, eps) + sigma**2 / alpha * G,
        "v": v_from_eps(schedule, z_t, t, eps) - sigma / alpha * G,
        "flow": flow_from_eps(schedule, z_t, t, eps) - sigma / alpha * (alpha + sigma) * G,
        "score": score_from_eps(schedule, z_t, t, eps) + G,
    }


TO_EPS = {
    "eps": lambda schedule, z_t, t, eps: eps,
    "z_0": eps_from_z0,
    "v": eps_from_v,
    "flow": eps_from_flow,
    "score": eps_from_score,
}


def test_guidance_of_weight_one_is_the_exact_conditional(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    """The conditional is the first component, a Gaussian, whose prediction is known in every parametrisation."""
    z_t, t = noise(32, 2), torch.linspace(0.05, 0.99, 32).double()
    bases, variances = mixture.bases[:1], mixture.variances[:1]
    covariance = bases * variances[:, None] @ bases.mT
    first = MixtureDenoiser(mixture.log_weights[:1], mixture.means[:1], covariance, schedule)
    eps = first(z_t, t)
    exact = {
        "eps": eps,
        "z_0": first.moments(z_t, t)[0],
        "v": v_from_eps(schedule, z_t, t, eps),
        "flow": flow_from_eps(schedule, z_t, t, eps),
        "score": score_from_eps(schedule, z_t, t, eps),
    }
    for name, guided in predictions(mixture, z_t, t, 1.0).items():
        assert_close(guided, exact[name], rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", list(TO_EPS))
@pytest.mark.parametrize("method", [DDIM, Heun])
def test_samples_do_not_depend_on_the_parametrisation(
    method: type[DDIM] | type[Heun], name: str, mixture: MixtureDenoiser, schedule: Schedule
) -> None:
    def guided(z_t: Tensor, t: Tensor) -> Tensor:
        return TO_EPS[name](schedule, z_t, t, predictions(mixture, z_t, t, 4.0)[name])

    def plain(z_t: Tensor, t: Tensor) -> Tensor:
        return mixture(z_t, t) - 4.0 * schedule.sigma(t)[:, None] * gradient(mixture, z_t, t)

    sampler, z = method(schedule, steps=21), noise(8, 2)
    assert_close(sampler.sample(guided, z), sampler.sample(plain, z), rtol=0, atol=1e-9)


def test_guidance_by_the_gradient_on_the_flow_path(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    """With respect to x the gradient is (alpha + sigma) G, so that u_hat = u - tau / (1 - tau) times it."""
    z_t, t = noise(16, 2), torch.linspace(0.05, 0.95, 16).double()
    x, tau = flow_point(schedule, z_t, t)
    x.requires_grad_()
    scale = (schedule.alpha(t) + schedule.sigma(t))[:, None]
    (gradient_x,) = torch.autograd.grad(mixture.responsibilities(x * scale, t)[:, 0].sum(), x)
    u_hat = flow_from_eps(schedule, z_t, t, mixture(z_t, t)) - (tau / (1 - tau))[:, None] * gradient_x
    assert_close(u_hat, predictions(mixture, z_t, t, 1.0)["flow"], rtol=1e-11, atol=1e-11)

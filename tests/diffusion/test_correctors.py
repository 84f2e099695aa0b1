import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.testing import assert_close

from lcg.diffusion import CosineSchedule, GaussianDenoiser, MixtureDenoiser, Schedule, diffuse, generators, randn
from lcg.diffusion.correctors import MALA, Correction, Corrector, Langevin

LEVEL = 0.3
every_corrector = pytest.mark.parametrize("kind", [Langevin, MALA])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return randn(shape, seeded(seed), dtype=torch.float64)


def level(z: Tensor, t: float = LEVEL) -> Tensor:
    return torch.full((len(z),), t, dtype=z.dtype)


def exact(mixture: MixtureDenoiser, n: int, seed: int) -> Tensor:
    """Samples of q_t, the noised mixture."""
    z_0 = mixture.sample(n, seeded(seed))
    return diffuse(mixture.schedule, z_0, level(z_0), noise(n, 2, seed=seed + 1))


def moments(mixture: MixtureDenoiser) -> tuple[Tensor, Tensor]:
    """Mean and covariance of q_t."""
    alpha, sigma = (f(torch.tensor(LEVEL)) for f in (mixture.schedule.alpha, mixture.schedule.sigma))
    mean = mixture.log_weights.exp() @ mixture.means
    centred = mixture.means - mean
    spread = mixture.bases * mixture.variances[:, None] @ mixture.bases.mT + centred[:, :, None] * centred[:, None, :]
    covariance = torch.einsum("k,kde->de", mixture.log_weights.exp(), spread)
    return alpha * mean, alpha**2 * covariance + sigma**2 * torch.eye(2).double()


def sliced_wasserstein(a: Tensor, b: Tensor) -> float:
    directions = torch.nn.functional.normalize(noise(a.shape[1], 16, seed=7), dim=0)
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).abs().mean())


def make(kind: type[Corrector], model: MixtureDenoiser, steps: int = 3, step_size: float = 0.4) -> Corrector:
    return Langevin(steps, step_size) if kind is Langevin else MALA(model.log_prob, None, steps, step_size)


# --- Langevin ---------------------------------------------------------------------------------------------------------


def test_a_langevin_step_is_drift_and_noise(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    z_t = noise(8, 2)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    z = z_t.clone().requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_prob(z, t).sum(), z)
    h = 0.3 * 2 * schedule.sigma(t)[:, None] ** 2
    expected = z_t + h * score + (2 * h).sqrt() * noise(8, 2, seed=5)
    scale = torch.full((8,), 2.0, dtype=torch.float64)
    correction = Langevin(1, 0.3).correct(schedule, mixture, z_t, t, seeded(5), scale)
    assert_close(correction.z_t, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(correction.acceptance, torch.ones(8, dtype=torch.float64))


def test_langevin_leaves_the_variance_that_its_error_says(schedule: Schedule) -> None:
    """Where z_t is all noise: sigma_t^2 / (1 - step_size / 2), here 4/3 of what is right."""
    n, point = 100_000, GaussianDenoiser(torch.zeros(1), torch.zeros(1, 1), schedule)
    stationary = (schedule.sigma(level(torch.zeros(1).double())) ** 2 / 0.75).item()
    z = Langevin(4, 0.5).correct(schedule, point, noise(n, 1) * stationary**0.5, level(noise(n, 1)), seeded(1)).z_t
    assert z.var().item() == pytest.approx(stationary, rel=5 * math.sqrt(2 / n))


# --- MALA -------------------------------------------------------------------------------------------------------------


def wrong_mala(mixture: MixtureDenoiser, z: Tensor, step_size: float, exponent: Callable[[Tensor], Tensor]) -> Tensor:
    """MALA with another variance in the exponent of q(z' | z): right for 4 h, published with 2 h^2."""
    t = level(z)
    h = step_size * mixture.schedule.sigma(t)[:, None] ** 2

    def drift(z: Tensor) -> Tensor:
        return z - h * mixture(z, t) / mixture.schedule.sigma(t)[:, None]

    for i in range(8):
        new = drift(z) + (2 * h).sqrt() * noise(*z.shape, seed=50 + i)
        forth, back = ((a - drift(b)).square().sum(1) / exponent(h)[:, 0] for a, b in ((new, z), (z, new)))
        log_ratio = mixture.log_prob(new, t) - mixture.log_prob(z, t) + forth - back
        uniform = torch.rand(len(z), generator=seeded(90 + i), dtype=torch.float64)
        z = torch.where((uniform.log() < log_ratio)[:, None], new, z)
    return z


@pytest.mark.parametrize("step_size", [1.2, 1.6])
def test_mala_leaves_the_target_invariant_where_others_do_not(mixture: MixtureDenoiser, step_size: float) -> None:
    """From exact samples of the noised mixture; sliced Wasserstein distance and moments against other exact samples."""
    n = 20_000
    start, other, third = exact(mixture, n, 0), exact(mixture, n, 10), exact(mixture, n, 20)
    floor = sliced_wasserstein(other, third)
    schedule, t = mixture.schedule, level(start)
    correction = MALA(mixture.log_prob, None, 8, step_size).correct(schedule, mixture, start, t, seeded(3))
    assert 0.2 < correction.acceptance.mean() < 0.95
    assert (correction.z_t - start).norm(dim=1).mean() > 0.5  # it moved
    assert sliced_wasserstein(correction.z_t, other) < 1.7 * floor
    mean, covariance = moments(mixture)
    assert_close(correction.z_t.mean(0), mean, rtol=0, atol=0.025)
    assert_close(torch.cov(correction.z_t.T), covariance, rtol=0, atol=0.03)
    ula = Langevin(8, step_size).correct(schedule, mixture, start, t, seeded(3)).z_t
    assert sliced_wasserstein(ula, other) > 3 * floor
    assert sliced_wasserstein(wrong_mala(mixture, start, step_size, lambda h: 4 * h), other) < 1.7 * floor
    assert sliced_wasserstein(wrong_mala(mixture, start, step_size, lambda h: 2 * h**2), other) > 3 * floor


def test_mala_reaches_the_target_from_elsewhere(gaussian: GaussianDenoiser) -> None:
    """At a high noise level, where one step of size h moves as far as the target is wide."""
    n = 4_000
    t = torch.full((n,), 0.8, dtype=torch.float64)
    z = MALA(gaussian.log_prob, None, 40, 0.7).correct(gaussian.schedule, gaussian, noise(n, 4) + 2, t, seeded(1)).z_t
    alpha, sigma = gaussian.schedule.alpha(t[0]), gaussian.schedule.sigma(t[0])
    covariance = gaussian.bases[0] * gaussian.variances[0] @ gaussian.bases[0].T
    assert_close(z.mean(0), alpha * gaussian.means[0], rtol=0, atol=0.07)
    assert_close(torch.cov(z.T), alpha**2 * covariance + sigma**2 * torch.eye(4).double(), rtol=0, atol=0.09)


def test_acceptance_is_the_metropolis_hastings_ratio_of_each_row(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    z_t = noise(64, 2)
    t = torch.linspace(0.1, 0.9, 64, dtype=torch.float64)
    sigma = schedule.sigma(t)[:, None]
    h, g = 1.2 * sigma**2, seeded(4)
    proposal = z_t - h * mixture(z_t, t) / sigma + (2 * h).sqrt() * randn((64, 2), g, dtype=torch.float64)
    uniform = torch.special.ndtr(randn((64, 1), g, dtype=torch.float64))[:, 0]

    def log_q(to: Tensor, start: Tensor) -> Tensor:
        return Normal(start - h * mixture(start, t) / sigma, (2 * h).sqrt()).log_prob(to).sum(1)

    log_p = mixture.log_prob(proposal, t) - mixture.log_prob(z_t, t)
    expected = (log_p + log_q(z_t, proposal) - log_q(proposal, z_t)).exp().clamp(max=1)
    correction = MALA(mixture.log_prob, None, 1, 1.2).correct(schedule, mixture, z_t, t, seeded(4))
    assert_close(correction.acceptance, expected, rtol=1e-9, atol=1e-9)
    accepted = uniform < expected
    assert 10 < accepted.sum() < 54  # both happen, row by row
    assert_close(correction.z_t, torch.where(accepted[:, None], proposal, z_t), rtol=1e-9, atol=1e-9)


def test_any_drift_is_valid(mixture: MixtureDenoiser) -> None:
    """Without drift it is the random-walk Metropolis algorithm; the density need not have a gradient then."""
    start, other, third = (exact(mixture, 20_000, seed) for seed in (0, 10, 20))

    def log_density(z_t: Tensor, t: Tensor) -> Tensor:
        return mixture.log_prob(z_t, t).detach()

    walk = MALA(log_density, lambda z, t: torch.zeros_like(z), 8, 0.8)
    correction = walk.correct(mixture.schedule, mixture, start, level(start), seeded(3))
    assert (correction.z_t - start).norm(dim=1).mean() > 0.4
    assert sliced_wasserstein(correction.z_t, other) < 1.6 * sliced_wasserstein(other, third)


def test_a_given_score_is_what_differentiating_gives(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    z_t = noise(16, 2)

    def score(z: Tensor, t: Tensor) -> Tensor:
        return -mixture(z, t) / schedule.sigma(t)[:, None]

    given = MALA(mixture.log_prob, score, 4).correct(schedule, mixture, z_t, level(z_t), seeded(2))
    derived = MALA(mixture.log_prob, None, 4).correct(schedule, mixture, z_t, level(z_t), seeded(2))
    assert_close(given.z_t, derived.z_t, rtol=0, atol=1e-9)
    assert_close(given.acceptance, derived.acceptance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("outside", [-math.inf, math.nan])
def test_where_the_density_is_zero_or_unknown_nothing_is_accepted(schedule: Schedule, outside: float) -> None:
    def half_line(z_t: Tensor, t: Tensor) -> Tensor:
        return torch.where(z_t[:, 0] > 0, -0.5 * z_t[:, 0] ** 2, outside)

    z_t = noise(2_000, 1).abs()
    walk = MALA(half_line, lambda z, t: torch.zeros_like(z), 20, 1.0)
    correction = walk.correct(schedule, lambda z, t: z, z_t, level(z_t, 0.9), seeded(1))
    assert (correction.z_t > 0).all()
    assert correction.acceptance.isfinite().all()
    assert correction.z_t.square().mean().item() == pytest.approx(1, abs=0.15)


def test_step_sizes_follow_the_acceptance_of_the_level_before() -> None:
    scale, acceptance = torch.tensor([1.0, 2.0]), torch.tensor([0.9, 0.1])
    mala = MALA(lambda z, t: z[:, 0], target_acceptance=0.5)
    assert_close(mala.rescale(scale, acceptance), scale * torch.tensor([0.4, -0.4]).exp())
    assert torch.equal(MALA(lambda z, t: z[:, 0]).rescale(scale, acceptance), scale)
    assert torch.equal(Langevin().rescale(scale, acceptance), scale)


# --- what every corrector does ----------------------------------------------------------------------------------------


@every_corrector
def test_a_row_does_not_depend_on_its_batch(kind: type[Corrector], mixture: MixtureDenoiser) -> None:
    z_t, t = noise(5, 2), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    corrector, schedule = make(kind, mixture), mixture.schedule
    batch = corrector.correct(schedule, mixture, z_t, t, generators(range(5)))
    alone = corrector.correct(schedule, mixture, z_t[3:4], t[3:4], generators([3]))
    assert_close(batch.z_t[3:4], alone.z_t, rtol=0, atol=1e-12)
    assert_close(batch.acceptance[3:4], alone.acceptance, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="one generator per row: expected 5, got 2"):
        corrector.correct(schedule, mixture, z_t, t, generators([0, 1]))


@every_corrector
def test_precision_and_shape_are_kept(kind: type[Corrector]) -> None:
    schedule = CosineSchedule()

    def log_density(z_t: Tensor, t: Tensor) -> Tensor:
        return -0.5 * z_t.square().flatten(1).sum(1)

    corrector = Langevin(2) if kind is Langevin else MALA(log_density, None, 2)
    z_t = noise(3, 2, 4).float()
    correction = corrector.correct(schedule, lambda z, t: z.bfloat16(), z_t, level(z_t), seeded())
    assert (correction.z_t.shape, correction.z_t.dtype) == ((3, 2, 4), torch.float32)
    assert correction.acceptance.shape == (3,)


def test_evaluations_are_counted_as_documented(mixture: MixtureDenoiser) -> None:
    calls = {"denoiser": 0, "density": 0}

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        calls["denoiser"] += 1
        return mixture(z_t, t)

    def log_density(z_t: Tensor, t: Tensor) -> Tensor:
        calls["density"] += 1
        return mixture.log_prob(z_t, t)

    z_t = noise(2, 2)
    Langevin(3).correct(mixture.schedule, denoiser, z_t, level(z_t))
    MALA(log_density, None, 3).correct(mixture.schedule, denoiser, z_t, level(z_t))
    assert calls == {"denoiser": 3, "density": 4}


@every_corrector
def test_what_makes_no_sense_is_refused(kind: type[Corrector], mixture: MixtureDenoiser) -> None:
    with pytest.raises(ValueError, match=r"`steps` of a corrector must be at least 1, got 0; leave the corrector out"):
        make(kind, mixture, steps=0)
    for step_size in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"`step_size` must be positive and finite, got .* relative to sigma_t\^2"):
            make(kind, mixture, step_size=step_size)


def test_langevin_steps_that_diverge_are_refused(mixture: MixtureDenoiser) -> None:
    with pytest.raises(ValueError, match=r"`step_size` of Langevin steps must be below 2, got 2.0: they diverge"):
        Langevin(1, 2.0)
    assert MALA(mixture.log_prob, None, 1, 2.0).step_size == 2.0  # which rejects what goes too far


def test_mala_refuses_targets_and_densities_that_do_not_work(mixture: MixtureDenoiser) -> None:
    for target in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"`target_acceptance` must be in \(0, 1\), got .* 0.574 is a good value"):
            MALA(mixture.log_prob, target_acceptance=target)
    z_t = noise(2, 2)
    with pytest.raises(RuntimeError, match="`log_density` has no gradient; give its `score`"):
        MALA(lambda z, t: mixture.log_prob(z, t).detach()).correct(mixture.schedule, mixture, z_t, level(z_t))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"inference_mode\(\) forbids; give its `score`"):
        MALA(mixture.log_prob).correct(mixture.schedule, mixture, z_t, level(z_t))


def test_a_correction_holds_one_acceptance_per_row() -> None:
    assert Correction(torch.zeros(2, 3), torch.ones(2)).acceptance.shape == (2,)

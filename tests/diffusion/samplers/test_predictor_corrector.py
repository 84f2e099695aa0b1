import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import (
    DDIM,
    CosineSchedule,
    Denoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    Randomness,
    Schedule,
    generators,
    randn,
)
from lcg.diffusion.correctors import BEST_ACCEPTANCE, MALA, Correction, Corrector, Langevin
from lcg.diffusion.samplers.predictor_corrector import PredictorCorrector


class Nothing(Corrector):
    """Leaves everything as it is."""

    def correct(
        self,
        schedule: Schedule,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        generator: Randomness = None,
        scale: Tensor | float = 1.0,
    ) -> Correction:
        return Correction(z_t, torch.ones_like(t))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, dim: int, seed: int = 0) -> Tensor:
    return randn((n, dim), seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_without_correction_it_is_ddim(mixture: MixtureDenoiser, eta: float) -> None:
    z, options = noise(16, 2), {"steps": 12, "eta": eta, "clip": 1.5, "spacing": "quadratic"}
    corrected = PredictorCorrector(mixture.schedule, corrector=Nothing(), **options)
    plain = DDIM(mixture.schedule, **options)
    assert torch.equal(corrected.sample(mixture, z, seeded(3)), plain.sample(mixture, z, seeded(3)))
    half_way = corrected.sample(mixture, z, seeded(3), t_start=0.5)
    assert torch.equal(half_way, plain.sample(mixture, z, seeded(3), t_start=0.5))


def test_corrections_are_made_at_every_new_level(gaussian: GaussianDenoiser) -> None:
    asked: list[float] = []
    steps: list[tuple[int, int]] = []
    levels: list[tuple[float, Tensor]] = []

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (3,)
        assert not torch.is_grad_enabled()
        asked.append(t[0].item())
        return gaussian(z_t, t)

    sampler = PredictorCorrector(
        gaussian.schedule, steps=5, corrector=Langevin(2), monitor=lambda t, acceptance: levels.append((t, acceptance))
    )
    sampler.sample(denoiser, noise(3, 4), seeded(), progress=lambda step, steps_: steps.append((step, steps_)))
    times = sampler.times().tolist()
    assert asked == [times[0], *(time for time in times[1:] for _ in range(3))]
    assert [t for t, _ in levels] == times[1:]
    assert all(torch.equal(acceptance, torch.ones(3, dtype=torch.float64)) for _, acceptance in levels)
    assert steps == [(i, 5) for i in range(1, 6)]


def test_the_prior_is_sampled_as_by_the_predictor_or_better(gaussian: GaussianDenoiser) -> None:
    """Both chains target the same densities: the variance that ancestral sampling loses in 15 steps comes back."""
    n, schedule = 6_000, gaussian.schedule
    covariance = gaussian.bases[0] * gaussian.variances[0] @ gaussian.bases[0].T
    plain = DDIM(schedule, steps=15, eta=1.0).sample(gaussian, noise(n, 4), seeded(1))
    mala = MALA(gaussian.log_prob, None, 3, 0.8)
    corrected = PredictorCorrector(schedule, steps=15, eta=1.0, corrector=mala).sample(gaussian, noise(n, 4), seeded(1))
    before, after = ((torch.cov(z.T) - covariance).abs().max() for z in (plain, corrected))
    assert before > 0.25
    assert after < 0.6 * before


def test_acceptance_is_steered_towards_its_target(mixture: MixtureDenoiser) -> None:
    rates: dict[str, list[float]] = {"fixed": [], "fitted": []}
    for name, target in (("fixed", None), ("fitted", BEST_ACCEPTANCE)):
        mala = MALA(mixture.log_prob, None, 4, 3.0, target)
        monitor = lambda t, acceptance, name=name: rates[name].append(acceptance.mean().item())  # noqa: E731
        sampler = PredictorCorrector(mixture.schedule, steps=30, eta=1.0, corrector=mala, monitor=monitor)
        sampler.sample(mixture, noise(500, 2), seeded())
    fixed, fitted = (torch.tensor(rates[name][5:-5]) - BEST_ACCEPTANCE for name in ("fixed", "fitted"))
    assert fixed.abs().max() > 0.3
    assert fitted.abs().max() < 0.1


@pytest.mark.parametrize("kind", ["langevin", "mala", "fitted"])
def test_a_sample_does_not_depend_on_its_batch(mixture: MixtureDenoiser, kind: str) -> None:
    corrector = (
        Langevin(2) if kind == "langevin" else MALA(mixture.log_prob, None, 2, 0.5, 0.5 if kind == "fitted" else None)
    )
    sampler, z = PredictorCorrector(mixture.schedule, steps=8, eta=1.0, corrector=corrector), noise(4, 2)
    batch = sampler.sample(mixture, z, generators(range(4)))
    alone = sampler.sample(mixture, z[2:3], generators([2]))
    assert_close(batch[2:3], alone, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="one generator per row: expected 4, got 2"):
        sampler.sample(mixture, z, generators([0, 1]))


def test_precision_is_kept(mixture: MixtureDenoiser) -> None:
    sampler = PredictorCorrector(mixture.schedule, steps=6)
    assert isinstance(sampler.corrector, Langevin)
    assert sampler.sample(lambda z, t: mixture(z, t).bfloat16(), noise(4, 2).float(), seeded()).dtype == torch.float32


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`eta` must be in \[0, 1\], got 2.0"):
        PredictorCorrector(CosineSchedule(), eta=2.0)
    with pytest.raises(ValueError, match=r"`steps` must be at least 2"):
        PredictorCorrector(CosineSchedule(), steps=1)

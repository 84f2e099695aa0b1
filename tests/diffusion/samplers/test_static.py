"""Static memory changes nothing: padded batches, noise drawn beforehand, no look at a value on the way."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lcg.diffusion import DDIM, DDPM, UniPC, generators, randn
from lcg.diffusion.gaussian import MixtureDenoiser
from lcg.diffusion.noise import Drawn
from lcg.diffusion.samplers import DPMSolverPP2M, Heun, PredictorCorrector, Sampler, StaticSampling
from lcg.diffusion.samplers.consistency import Consistency
from lcg.diffusion.samplers.static import Recorded

METHODS: list[Callable[..., Sampler]] = [
    DDIM,
    DDPM,
    DPMSolverPP2M,
    UniPC,
    Heun,
    lambda schedule, steps: Heun(schedule, steps, churn=5.0),
    lambda schedule, steps: Consistency(schedule, steps),
]
NAMES = ["ddim", "ddpm", "dpm++2m", "unipc", "heun", "heun with churn", "consistency"]


def noise(rows: int, seed: int = 0) -> Tensor:
    return randn((rows, 2), generators(range(seed, seed + rows)), dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
@pytest.mark.parametrize("steps", [8, 9])
def test_samples_are_those_of_the_sampler(method: Callable[..., Sampler], steps: int, mixture: MixtureDenoiser) -> None:
    """For batches that fill their bucket and such that do not, one after another, with the noise of their own rows."""
    sampler = method(mixture.schedule, steps)
    static = StaticSampling(sampler, mixture)
    for rows, seed in ((4, 0), (3, 10), (1, 20), (7, 30), (3, 10)):
        exact = sampler.sample(mixture, noise(rows, seed), generators(range(100 + seed, 100 + seed + rows)))
        found = static.sample(noise(rows, seed), generators(range(100 + seed, 100 + seed + rows)))
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    assert {key[0] for key in static._recorded} == {1, 4, 8}


def test_results_are_not_overwritten_by_the_next_batch(mixture: MixtureDenoiser) -> None:
    static = StaticSampling(DDIM(mixture.schedule, 5), mixture)
    first = static.sample(noise(4))
    kept = first.clone()
    static.sample(noise(4, 50))
    assert torch.equal(first, kept)


def test_more_rows_than_the_largest_bucket_are_a_bucket(mixture: MixtureDenoiser) -> None:
    static = StaticSampling(DDIM(mixture.schedule, 3), mixture)
    assert static.sample(torch.zeros(5000, 2, dtype=torch.float64)).shape == (5000, 2)


class Looks(TorchDispatchMode):
    """Notes every operation for which a GPU's host would have to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select"):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", METHODS[:5] + METHODS[6:], ids=NAMES[:5] + NAMES[6:])
def test_a_path_never_looks_at_a_value(method: Callable[..., Sampler], mixture: MixtureDenoiser) -> None:
    recorded = Recorded(method(mixture.schedule, 6), mixture, noise(4), 5)
    recorded._solve()  # whatever is computed on first use
    with Looks() as looks:
        recorded.run(noise(3), [noise(3)] * 5)
    assert looks.seen == []


def test_latents_that_are_not_finite_are_refused(mixture: MixtureDenoiser) -> None:
    def broken(z_t: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(len(z_t))[:, None] == 2, torch.inf, mixture(z_t, t))

    with pytest.raises(ValueError, match="sampled latents must be finite, got others in row 2"):
        StaticSampling(DDIM(mixture.schedule, 4), broken).sample(noise(4))


def test_samplers_that_draw_as_they_go_are_refused(mixture: MixtureDenoiser) -> None:
    with pytest.raises(ValueError, match="how often it draws noise, got PredictorCorrector; use its own `sample`"):
        StaticSampling(PredictorCorrector(mixture.schedule, 4), mixture)


def test_drawn_noise_is_handed_out_in_turn() -> None:
    a, b = torch.zeros(2), torch.ones(2)
    drawn = Drawn([a, b])
    assert randn((2,), drawn) is a and randn((2,), drawn) is b


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS[:5], ids=NAMES[:5])
def test_a_graph_gives_the_same_samples(method: Callable[..., Sampler], mixture: MixtureDenoiser) -> None:
    on_gpu, sampler = copy.copy(mixture), method(mixture.schedule, 8)
    for name in ("log_weights", "means", "bases", "variances"):
        setattr(on_gpu, name, getattr(mixture, name).cuda())
    static = StaticSampling(sampler, on_gpu)
    for rows, seed in ((4, 0), (3, 10), (4, 20)):
        rows_of = range(100 + seed, 100 + seed + rows)
        exact = sampler.sample(on_gpu, noise(rows, seed).cuda(), generators(rows_of))
        torch.testing.assert_close(
            static.sample(noise(rows, seed).cuda(), generators(rows_of)), exact, rtol=0, atol=1e-10
        )
    assert all(recorded.graph is not None for recorded in static._recorded.values())

"""The peers' loops."""

from __future__ import annotations

from functools import partial

from lcg.benchmarks.speed.candidate import Candidate
from lcg.benchmarks.speed.diffusers_loops import FLOAT32, diffusers_2m, diffusers_ddim
from lcg.benchmarks.speed.guided_diffusion import guided_diffusion_loop
from lcg.benchmarks.speed.ours import FEW, SecondOrderToTheEnd, sampled


def peers() -> tuple[Candidate, ...]:
    """All of them; the first is what speeds are relative to."""
    return (
        Candidate("guided-diffusion, DDIM", guided_diffusion_loop, sampled),
        Candidate("diffusers, DDIM", diffusers_ddim, sampled),
        Candidate(
            "diffusers, DPM-Solver++(2M)",
            diffusers_2m,
            partial(sampled, sampler=SecondOrderToTheEnd),
            FLOAT32,
            batches=FEW,
        ),
    )

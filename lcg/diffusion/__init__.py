"""The diffusion prior's mathematics: schedules, the forward process, exact denoisers and samplers. No networks."""

from lcg.diffusion.gaussian import GaussianDenoiser, MixtureDenoiser
from lcg.diffusion.noise import Randomness, generators, randn
from lcg.diffusion.process import (
    Denoiser,
    coefficients,
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
from lcg.diffusion.samplers import DDIM, DPMSolverPP2M, Progress, Sampler, Spacing, time_grid
from lcg.diffusion.schedule import CosineSchedule, LinearSchedule, Schedule, expand

__all__ = [
    "DDIM",
    "CosineSchedule",
    "DPMSolverPP2M",
    "Denoiser",
    "GaussianDenoiser",
    "LinearSchedule",
    "MixtureDenoiser",
    "Progress",
    "Randomness",
    "Sampler",
    "Schedule",
    "Spacing",
    "coefficients",
    "diffuse",
    "eps_from_score",
    "eps_from_v",
    "eps_from_z0",
    "expand",
    "generators",
    "randn",
    "score_from_eps",
    "time_grid",
    "v_from_eps",
    "v_from_z0",
    "velocity",
    "z0_from_eps",
    "z0_from_v",
]

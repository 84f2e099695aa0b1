"""Samplers: one method a file, all with the contract of `Sampler`."""

from lcg.diffusion.samplers.base import Progress, Sampler, Spacing, time_grid
from lcg.diffusion.samplers.consistency import Consistency
from lcg.diffusion.samplers.ddim import DDIM
from lcg.diffusion.samplers.ddpm import DDPM
from lcg.diffusion.samplers.dpm_solver import DPMSolverPP2M
from lcg.diffusion.samplers.heun import Heun
from lcg.diffusion.samplers.multistep import Multistep, recommended_order
from lcg.diffusion.samplers.path import Path
from lcg.diffusion.samplers.predictor_corrector import PredictorCorrector
from lcg.diffusion.samplers.static import StaticSampling
from lcg.diffusion.samplers.unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "Consistency",
    "DPMSolverPP2M",
    "Heun",
    "Multistep",
    "Path",
    "PredictorCorrector",
    "Progress",
    "Sampler",
    "Spacing",
    "StaticSampling",
    "UniPC",
    "recommended_order",
    "time_grid",
]

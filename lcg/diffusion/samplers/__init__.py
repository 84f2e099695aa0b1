"""Samplers: one method a file, all with the contract of `Sampler`."""

from lcg.diffusion.samplers.base import Progress, Sampler, Spacing, time_grid
from lcg.diffusion.samplers.ddim import DDIM
from lcg.diffusion.samplers.dpm_solver import DPMSolverPP2M

__all__ = ["DDIM", "DPMSolverPP2M", "Progress", "Sampler", "Spacing", "time_grid"]

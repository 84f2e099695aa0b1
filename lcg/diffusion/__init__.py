"""The diffusion prior's mathematics: schedules, the forward process, exact denoisers and samplers. No networks.

Symbols are those of the papers, in code as in text:

    x                   a generator's image
    z_0                 its latent, standardised by the store
    t                   time, 0 for data and 1 for noise
    alpha_t, sigma_t    variance preserving: alpha_t^2 + sigma_t^2 = 1
    eps                 the noise, N(0, I)
    z_t                 the noised latent, alpha_t z_0 + sigma_t eps
    eps_hat             a denoiser's estimate of E[eps | z_t]
    z_0_hat             of E[z_0 | z_t], (z_t - sigma_t eps_hat) / alpha_t
    score               grad log q(z_t) = -eps_hat / sigma_t
    y                   labels, NaN where unknown
    p(y | z_t)          a classifier of noised latents
    w                   weight of guidance; 1 is Bayes' rule
    tau                 how far an edit may go from its source, in standard deviations

B is the size of a batch, D the dimension of a flat latent, A the number of attributes; (B, *latent) is a batch of
latents of any shape.
"""

from lcg.diffusion.correctors import MALA, Correction, Corrector, Langevin
from lcg.diffusion.gaussian import GaussianDenoiser, MixtureDenoiser
from lcg.diffusion.likelihood import FlowLogProb, LowerBound, evidence_lower_bound, flow_log_prob
from lcg.diffusion.noise import Drawn, Randomness, generators, randn
from lcg.diffusion.process import (
    Denoiser,
    coefficients,
    diffuse,
    eps_from_flow,
    eps_from_score,
    eps_from_v,
    eps_from_z0,
    flow_from_eps,
    flow_point,
    prepare,
    renoise,
    score_from_eps,
    v_from_eps,
    v_from_z0,
    velocity,
    z0_from_eps,
    z0_from_v,
)
from lcg.diffusion.samplers import (
    DDIM,
    DDPM,
    Consistency,
    DPMSolverPP2M,
    Heun,
    Path,
    PredictorCorrector,
    Progress,
    Sampler,
    Spacing,
    StaticSampling,
    UniPC,
    recommended_order,
    time_grid,
)
from lcg.diffusion.schedule import ConstantSchedule, CosineSchedule, LinearSchedule, Schedule, expand

__all__ = [
    "DDIM",
    "DDPM",
    "MALA",
    "Consistency",
    "ConstantSchedule",
    "Correction",
    "Corrector",
    "CosineSchedule",
    "DPMSolverPP2M",
    "Denoiser",
    "Drawn",
    "FlowLogProb",
    "GaussianDenoiser",
    "Heun",
    "Langevin",
    "LinearSchedule",
    "LowerBound",
    "MixtureDenoiser",
    "Path",
    "PredictorCorrector",
    "Progress",
    "Randomness",
    "Sampler",
    "Schedule",
    "Spacing",
    "StaticSampling",
    "UniPC",
    "coefficients",
    "diffuse",
    "eps_from_flow",
    "eps_from_score",
    "eps_from_v",
    "eps_from_z0",
    "evidence_lower_bound",
    "expand",
    "flow_from_eps",
    "flow_log_prob",
    "flow_point",
    "generators",
    "prepare",
    "randn",
    "recommended_order",
    "renoise",
    "score_from_eps",
    "time_grid",
    "v_from_eps",
    "v_from_z0",
    "velocity",
    "z0_from_eps",
    "z0_from_v",
]

"""How many evaluations follow the guided probability-flow ODE: python experiments/05_fast_core/solvers.py [--weight 8]

Eight Gaussians in 16 dimensions, standardised, three of them chosen; guidance by the exact noisy posterior,

    eps_hat = (1 - w) eps + w eps_chosen        since grad log P(chosen | z_t) = grad log q_chosen - grad log q,

in float64. What a solver makes of a noise z is compared with what the converged ODE makes of the same z, between the
solver's own ends and between the widest, t from 0.995 to 0.001. Errors are in standard deviations of the data.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.conformance.catalogue import modes
from lcg.diffusion import DDIM, DPMSolverPP2M, Heun, MixtureDenoiser, Sampler, Schedule, Spacing, UniPC
from lcg.diffusion.process import Denoiser

FEW, MANY = (10, 15, 20, 25), (10, 15, 20, 25, 50, 100)
WIDEST = (0.995, 0.001)
ENDS = {WIDEST: MANY, (0.995, 0.02): FEW, (0.99, 0.04): FEW}
"""(t_start, t_end), and with how many evaluations."""

SPACINGS: tuple[Spacing, ...] = ("uniform", "log_snr", "quadratic", "karras", "asinh")
FLIPPED = 0.5
"""A sample that ends so far from where it should took the other side of a border between modes."""

SOLVERS: dict[str, Callable[[Schedule, int, tuple[float, float], Spacing], Sampler]] = {
    "DDIM": lambda schedule, n, ends, spacing: DDIM(schedule, n, *ends, spacing),
    "DPM-Solver++(2M)": lambda schedule, n, ends, spacing: DPMSolverPP2M(schedule, n, *ends, spacing),
    "UniPC-2": lambda schedule, n, ends, spacing: UniPC(schedule, n, *ends, spacing),
    "UniPC-3": lambda schedule, n, ends, spacing: UniPC(schedule, n, *ends, spacing, order=3),
    "Heun": lambda schedule, n, ends, spacing: Heun(schedule, n - 1 + n % 2, *ends, spacing),  # odd: whole steps
}


@dataclass(frozen=True)
class Errors:
    """Of one solver on one mixture.

    Attributes:
        rms: root mean square over samples and coordinates, to the ODE between the solver's own ends.
        median: the median sample's.
        flipped: share of samples that are off by more than `FLIPPED`.
        whole: like rms, to the ODE between the widest ends.
    """

    rms: float
    median: float
    flipped: float
    whole: float


class Case:
    """A mixture under guidance, noise, and where the converged ODE takes it from each pair of ends.

    Raises:
        RuntimeError: UniPC and Heun do not agree on what the ODE converges to.
    """

    def __init__(self, seed: int, weight: float, samples: int) -> None:
        world = modes(seed=seed)
        prior, self.schedule = world.denoiser, world.schedule
        chosen = MixtureDenoiser(prior.log_weights[:3], prior.means[:3], world.covariances[:3], self.schedule)
        self.guided: Denoiser = lambda z_t, t: (1 - weight) * prior(z_t, t) + weight * chosen(z_t, t)
        generator = torch.Generator().manual_seed(1000 + seed)
        self.z = torch.randn(samples, world.dim, generator=generator, dtype=torch.float64)
        self.ode = {ends: self.solve("UniPC-3", 400, ends, "log_snr") for ends in ENDS}
        self.disagreement = rms(self.solve("Heun", 801, WIDEST, "log_snr") - self.ode[WIDEST])
        if self.disagreement > 1e-3:
            raise RuntimeError(
                f"UniPC and Heun disagree on the converged ODE by {self.disagreement:.1e}; use more steps"
            )

    def solve(self, solver: str, n: int, ends: tuple[float, float], spacing: Spacing) -> Tensor:
        """The samples (N, D) of a solver with n evaluations."""
        return SOLVERS[solver](self.schedule, n, ends, spacing).sample(self.guided, self.z)

    def errors(self, solver: str, n: int, ends: tuple[float, float], spacing: Spacing) -> Errors:
        """How far a solver's samples are from the converged ODE's."""
        z_0 = self.solve(solver, n, ends, spacing)
        each = (z_0 - self.ode[ends]).square().mean(1).sqrt()
        flipped = float((each > FLIPPED).double().mean())
        return Errors(rms(each), float(each.median()), flipped, rms(z_0 - self.ode[WIDEST]))


def rms(x: Tensor) -> float:
    """The root mean square."""
    return float(x.square().mean().sqrt())


def cell(errors: list[Errors]) -> str:
    """Rms (between own ends) / worst mixture's / median / flipped in per cent; all but the worst are means."""
    root, median, flipped, whole = (
        statistics.mean(getattr(e, name) for e in errors) for name in ("rms", "median", "flipped", "whole")
    )
    worst = max(e.whole for e in errors)
    bold = "**" if whole <= 0.05 else ""
    other = f" ({root:.3f})" if abs(root - whole) >= 0.002 else ""
    return f"{bold}{whole:.3f}{bold}{other} / {worst:.3f} / {median:.3f} / {100 * flipped:.1f}"


def table(cases: list[Case], ends: tuple[float, float]) -> Iterator[str]:
    """A row for each solver and number of evaluations, a column for each spacing."""
    yield "| solver | evaluations | " + " | ".join(SPACINGS) + " |"
    yield "|---|---|" + "---|" * len(SPACINGS)
    for solver in SOLVERS:
        for n in ENDS[ends]:
            row = [cell([case.errors(solver, n, ends, spacing) for case in cases]) for spacing in SPACINGS]
            yield f"| {solver} | {n} | " + " | ".join(row) + " |"


def main() -> None:
    """Prints a table for each pair of ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight", type=float, default=8.0)
    parser.add_argument("--mixtures", type=int, default=4)
    parser.add_argument("--samples", type=int, default=500, help="of each mixture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [Case(seed, options.weight, options.samples) for seed in range(options.mixtures)]
    print(f"Weight {options.weight:g}. UniPC-3 with 400 evaluations and Heun with 801 agree to ", end="")
    print(f"{max(case.disagreement for case in cases):.0e}.")
    for ends in ENDS:
        print(f"\n### Weight {options.weight:g}, t from {ends[0]} to {ends[1]}\n")
        for line in table(cases, ends):
            print(line, flush=True)


if __name__ == "__main__":
    main()

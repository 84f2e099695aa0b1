"""lcg's own loops. To add one, add a line to `ours`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from lcg.benchmarks.speed.candidate import Candidate, Loop
from lcg.benchmarks.speed.diffusers_loops import FLOAT32, diffusers_2m
from lcg.benchmarks.speed.grid import START
from lcg.benchmarks.speed.guided_diffusion import guided_diffusion_loop
from lcg.benchmarks.speed.nets import Nets
from lcg.diffusion import DDIM, DPMSolverPP2M, Sampler
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser, parse


def ours() -> tuple[Candidate, ...]:
    """All of them."""
    return (
        Candidate("lcg, DDIM", sampled, guided_diffusion_loop),
        Candidate("lcg, DPM-Solver++(2M)", partial(sampled, sampler=SecondOrderToTheEnd), diffusers_2m, FLOAT32),
    )


def sampled(nets: Nets, steps: int, sampler: Callable[..., Sampler] = DDIM) -> Loop:
    """`sampler.sample` of the denoiser guided by a term per classifier."""
    return partial(sampler(nets.schedule, steps, START).sample, guided(nets, nets.weight))


def guided(nets: Nets, weight: float | Callable[[Tensor], Tensor]) -> GuidedDenoiser:
    """The denoiser guided by every classifier's attribute, with a weight."""
    terms = []
    for classifier, label in zip(nets.classifiers, nets.labels, strict=True):
        (name,) = classifier.schema.names
        formula = parse(name if label else f"~{name}", classifier.schema)
        terms.append(ClassifierTerm(classifier, [(FormulaReadout(formula), 1.0)]))
    return GuidedDenoiser(nets.prior, terms, nets.schedule, weight)


class SecondOrderToTheEnd(DPMSolverPP2M):
    """As diffusers has it: lcg's step to t_end is of order 1, where diffusers' still is of order 2.

    So that both do the same work and give the same numbers; it is an addition in one step of all.
    """

    def order_at(self, i: int, intervals: int) -> int:
        return min(self.order, i + 1)

"""lcg's own loops. To add one, add a line to `ours`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lcg.benchmarks.speed.candidate import Candidate, Loop
from lcg.benchmarks.speed.diffusers_loops import FLOAT32, diffusers_2m
from lcg.benchmarks.speed.flops import shared_trunk_step
from lcg.benchmarks.speed.grid import START
from lcg.benchmarks.speed.guided_diffusion import guided_diffusion_loop
from lcg.benchmarks.speed.nets import Nets, on_one_trunk, side_by_side
from lcg.diffusion import DDIM, DPMSolverPP2M, Sampler, StaticSampling
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser, parse
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.execution import Execution

FEW = (1, 64)
"""Batches at which candidates are measured that tell the parts apart."""


def ours(device: torch.device, compiled: bool) -> tuple[Candidate, ...]:
    """All of them."""
    way = partial(Candidate, reference=guided_diffusion_loop)
    candidates = [
        way("lcg, DDIM", sampled),
        way("lcg, a term per classifier", partial(sampled, apart=True), batches=FEW),
        way("lcg, autograd", partial(sampled, how=Execution("autograd"))),
        way("lcg, eager", partial(sampled, how=Execution("eager")), batches=FEW),
        Candidate(
            "lcg, DPM-Solver++(2M)", partial(sampled, sampler=SecondOrderToTheEnd), diffusers_2m, FLOAT32, batches=FEW
        ),
        Candidate(
            "lcg, shared trunk",
            partial(sampled, merge=on_one_trunk),
            partial(sampled, merge=on_one_trunk, how=Execution("reference")),
            work=shared_trunk_step,
        ),
    ]
    if compiled:
        candidates.append(
            way("lcg, compiled", partial(sampled, how=Execution("compiled", patience=0)), batches=(64, 1 << 20))
        )
    if device.type == "cuda":
        half = Execution(precision="bfloat16")
        candidates.append(way("lcg, graph", partial(sampled, static=True)))
        candidates.append(way("lcg, graph, bfloat16", partial(sampled, how=half, static=True), tolerance=0.1))
    return tuple(candidates)


def sampled(
    nets: Nets,
    steps: int,
    sampler: Callable[..., Sampler] = DDIM,
    how: Execution | None = None,
    merge: Callable[[Nets], TimeConditionedClassifier] = side_by_side,
    apart: bool = False,
    static: bool = False,
) -> Loop:
    """Sampling of the guided denoiser.

    Args:
        nets: what is sampled.
        steps: of the sampler.
        sampler: lcg's.
        how: the networks run; None for what is fastest.
        merge: the classifiers into one.
        apart: leaves them as they are, with a term for each.
        static: with static memory, on a GPU as one CUDA graph.
    """
    classifiers = list(nets.classifiers) if apart else [merge(nets)]
    prior = copy.copy(nets.prior)
    prior.execution = how or Execution()
    for classifier in classifiers:
        classifier.execution = prior.execution
    denoiser, method = guided(nets, nets.weight, prior, classifiers), sampler(nets.schedule, steps, START)
    return StaticSampling(method, denoiser).sample if static else partial(method.sample, denoiser)


def guided(
    nets: Nets,
    weight: float | Callable[[Tensor], Tensor],
    prior: LatentDenoiser | None = None,
    classifiers: Sequence[TimeConditionedClassifier] | None = None,
) -> GuidedDenoiser:
    """The denoiser guided by all attributes, with a weight; by all classifiers as one when none are given."""
    wanted = {c.schema.names[0]: label for c, label in zip(nets.classifiers, nets.labels, strict=True)}
    terms = []
    for classifier in classifiers or [side_by_side(nets)]:
        formula = " & ".join(name if wanted[name] else f"~{name}" for name in classifier.schema.names)
        terms.append(ClassifierTerm(classifier, [(FormulaReadout(parse(formula, classifier.schema)), 1.0)]))
    return GuidedDenoiser(prior or nets.prior, terms, nets.schedule, weight)


class SecondOrderToTheEnd(DPMSolverPP2M):
    """As diffusers has it: lcg's step to t_end is of order 1, where diffusers' still is of order 2.

    So that both do the same work and give the same numbers; it is an addition in one step of all.
    """

    def order_at(self, i: int, intervals: int) -> int:
        return min(self.order, i + 1)

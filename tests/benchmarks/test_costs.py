"""Evaluations are counted one by one, and memory is what was taken."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcg.benchmarks.costs import Cost, measured
from lcg.diffusion import DDIM, generators, randn
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser, parse
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.conditional import ConditionalDenoiser
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Attribute, Schema

CPU = torch.device("cpu")
SCHEMA = Schema((Attribute("hat"), Attribute("glasses")))


@pytest.fixture
def denoiser() -> LatentDenoiser:
    return LatentDenoiser((4,), width=8, depth=1).eval()


def noise(n: int) -> Tensor:
    return randn((n, 4), generators(range(n)))


def test_a_sampler_takes_an_evaluation_per_step_and_sample(denoiser: LatentDenoiser) -> None:
    with measured(CPU) as cost, torch.no_grad():
        DDIM(denoiser.schedule, 10).sample(denoiser, noise(7))
    assert cost.evaluations == 10 * 7


def test_guidance_takes_one_of_the_classifier_beside_each_of_the_denoiser(denoiser: LatentDenoiser) -> None:
    classifier = TimeConditionedClassifier((4,), SCHEMA, width=8, depth=1).eval()
    nn.init.normal_(classifier.net.output.weight)
    term = ClassifierTerm(classifier, [(FormulaReadout(parse("hat & ~glasses", SCHEMA)), 1.0)])
    guided = GuidedDenoiser(denoiser, [term], denoiser.schedule)
    with measured(CPU) as cost, torch.no_grad():
        DDIM(denoiser.schedule, 10).sample(guided, noise(7))
    assert cost.evaluations == 2 * 10 * 7


def test_networks_within_modules_count_once(denoiser: LatentDenoiser) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = denoiser

        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            return self.inner(z_t, t)

    conditional = ConditionalDenoiser((4,), SCHEMA, width=8, depth=1).eval()
    z_t, t = noise(5), torch.full((5,), 0.5)
    with measured(CPU) as cost, torch.no_grad():
        Wrapped()(z_t, t)
        nn.Linear(4, 4)(z_t)
        conditional(z_t, t)
    assert cost.evaluations == 5 + 0 + 5


def test_what_is_done_outside_does_not_count(denoiser: LatentDenoiser) -> None:
    z_t, t = noise(3), torch.full((3,), 0.5)
    denoiser(z_t, t)
    with measured(CPU) as cost:
        denoiser(z_t, t)
    denoiser(z_t, t)
    assert cost.evaluations == 3


def test_seconds_are_those_of_a_clock() -> None:
    with measured(CPU) as cost:
        time.sleep(0.05)
    assert 0.05 <= cost.seconds < 5


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets earlier peaks")
def test_the_peak_of_memory_is_what_was_taken_and_not_what_was_taken_before() -> None:
    size = 96 * 2**20
    torch.ones(2 * size, dtype=torch.uint8)  # an earlier, higher peak
    with measured(CPU) as cost:
        torch.ones(size, dtype=torch.uint8)  # freed at once
    assert 0.98 * size <= cost.memory < 1.5 * size  # Linux counts pages in batches
    with measured(CPU) as little:
        torch.ones(4)
    assert little.memory < size / 4


def test_a_failure_is_measured_and_counts_no_further(denoiser: LatentDenoiser) -> None:
    z_t, t = noise(3), torch.full((3,), 0.5)
    with pytest.raises(OSError, match="full"), measured(CPU) as cost:
        denoiser(z_t, t)
        raise OSError("the disk is full")
    denoiser(z_t, t)
    assert cost.evaluations == 3 and cost.seconds > 0


def test_costs_add_up_but_for_the_memory_which_is_used_again() -> None:
    assert Cost(1.0, 10, 500) + Cost(0.5, 5, 700) == Cost(1.5, 15, 700)

"""What a joint head and particles cost, beside separate classifiers: python experiments/02_composition/cost.py

Networks of the demonstration's sizes, untrained; runs alternate, and medians are compared, since machines differ.
"""

import statistics
import time
from collections.abc import Callable

import torch

from lcg.data.avatars import SCHEMA
from lcg.diffusion import DPMSolverPP2M
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser, TwistedSMC, parse
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser

ROWS, STEPS, REPEATS = 256, 20, 9


def main() -> None:
    """Prints seconds per sample and step, and ratios to separate classifiers."""
    torch.manual_seed(0)
    denoiser = LatentDenoiser((64,)).eval().requires_grad_(False)
    formula = parse("glasses & smile & ~hat", SCHEMA)
    guided, terms = {}, {}
    for name, components in (("separate classifiers", 1), ("joint head", 16)):
        classifier = TimeConditionedClassifier((64,), SCHEMA, components=components).eval().requires_grad_(False)
        torch.nn.init.normal_(classifier.net.output.weight, std=0.1)
        classifier = classifier.restricted(formula.attributes)  # as lcg.load().term does
        terms[name] = ClassifierTerm(classifier, [(FormulaReadout(formula), 1.0)])
        guided[name] = GuidedDenoiser(denoiser, [terms[name]], denoiser.schedule)
    sampler, noise = DPMSolverPP2M(denoiser.schedule, STEPS), torch.randn(ROWS, 64)
    smc = TwistedSMC(denoiser, [terms["joint head"]], denoiser.schedule, particles=32, steps=STEPS)
    runs: dict[str, Callable[[], object]] = {
        "separate classifiers": lambda: sampler.sample(guided["separate classifiers"], noise),
        "joint head": lambda: sampler.sample(guided["joint head"], noise),
        "joint head, 32 particles": lambda: smc.sample(ROWS // 32, (64,)),
    }
    samples = {name: ROWS // 32 if "particles" in name else ROWS for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - started) / samples[name] / STEPS)
    base = statistics.median(seconds["separate classifiers"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<26}{1e6 * median:9.1f} us per sample and step {median / base:7.2f} x")


if __name__ == "__main__":
    main()

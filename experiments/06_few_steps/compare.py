"""Few evaluations: a distilled prior against solvers of the prior itself: python experiments/06_few_steps/compare.py

Judge, references and nearest real latents are those of `lcg bench`; writes results.csv.
"""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.references import References
from lcg.benchmarks.setting import Setting
from lcg.checkpoint import load_network
from lcg.diffusion import Consistency, Sampler
from lcg.guidance import GuidedConsistency, parse
from lcg.metrics.frechet import frechet_distance, moments
from lcg.nets.denoiser import LatentDenoiser
from lcg.pipeline import Pipeline
from lcg.results.samples import Plan
from lcg.settings import Guidance, Sampling, Weight

OUT, CACHE = Path(__file__).parent / "results.csv", "runs/cache"
DEMO, DISTILLED = Path("runs/demo"), "runs/distilled/prior/prior.ckpt"
FORMULAS = (None, "smile", "hat & ~beard", "glasses & beard & smile & hat")
COUNT, SEEDS = 1024, (0, 1, 2)
FIRST = 0.95
"""The first of several evaluations, above this time, samples the prior: a classifier can see nothing there yet."""

SEVERAL, SINGLE = {1: 2.0, 2: 3.0, 3: 2.0, 4: 2.0}, {1: 1.0, 2: 2.0, 3: 1.5, 4: 1.0}
"""Weights of the guidance of the distilled prior, by evaluations; of formulas over several attributes, and over one."""
SOLVERS = (  # with spacing "uniform"; the best settings found for each number of evaluations, see README.md
    Sampling("ddim", 2, 0.98, 0.1),
    Sampling("unipc", 3, 0.98, 0.1),
    Sampling("unipc", 4, 0.98, 0.1),
    Sampling("unipc", 6, 0.98, 0.1),
    Sampling("unipc", 10, 0.98, 0.1),
    Sampling("unipc", 20),
    Sampling("dpm++2m", 50),
)
GENTLE = Guidance(attempts=1, several=2.0, beyond=2.0, rise=2.0)
"""Guidance that suits solvers with few evaluations better than lcg's own, found likewise."""


@dataclass(frozen=True)
class FewSteps(Sampling):
    """Consistency sampling in a pipeline's place for a solver."""

    def build(self, denoiser: LatentDenoiser, weight: float = 1.0) -> Sampler:
        return Consistency(denoiser.schedule, self.steps, clip=self.clip)


class FewStepPipeline(Pipeline):
    """A pipeline whose prior is a consistency function."""

    moves = 2

    def guided(self, plan: Plan) -> GuidedConsistency:
        term = self.term(plan.formula, plan.dependence)
        return GuidedConsistency(self.denoiser, term, self.denoiser.schedule, plan.weight, self.moves)


class OneMove(FewStepPipeline):
    """The same with the whole way in one move."""

    moves = 1


def main() -> None:
    """Measures every method on every formula; a line each, and results.csv."""
    torch.set_num_threads(1)
    networks = (f"{DEMO}/prior/prior.ckpt", f"{DEMO}/classifier/classifier.ckpt")
    setting = Setting.load(f"{DEMO}/store", *networks, None, None, None, CACHE, torch.device("cpu"), {})
    pipeline = setting.pipeline
    evaluator = Evaluator(pipeline, setting.judge, setting.world, setting.marginals, 4096, 16384, setting.cache)
    student = load_network(DISTILLED, "denoiser").network
    distilled = vars(pipeline) | {"denoiser": student}
    rows: list[tuple[str, str, str, float, float | str, int, int]] = []
    for formula in FORMULAS:
        task = "unconditional" if formula is None else f"generate/{formula}"
        for method, make in methods(pipeline, distilled, evaluator, formula):
            for seed in SEEDS:
                started = time.process_time()
                z_0, drawn = make(range(seed * COUNT, (seed + 1) * COUNT))
                seconds = (time.process_time() - started) / COUNT
                found = {**figures(evaluator, z_0, formula), "draws": drawn / COUNT, "seconds_per_sample": seconds}
                for metric, value in found.items():
                    share = metric in ("joint_accuracy", "sharp")
                    stderr = math.sqrt(value * (1 - value) / COUNT) if share else ""
                    rows.append((method, task, metric, value, stderr, COUNT, seed))
            own = [row for row in rows if row[:2] == (method, task)]
            means = {metric: sum(row[3] for row in own if row[2] == metric) / len(SEEDS) for metric in found}
            print(f"{method:24}{task:40}" + "  ".join(f"{k} {v:.4g}" for k, v in means.items()), flush=True)
            with OUT.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(
                    [("method", "task", "metric", "value", "stderr", "n", "seed"), *rows]
                )


Make = Callable[[Sequence[int]], tuple[Tensor, int]]
"""Seeds to standardised latents, and how many were drawn for them."""


def methods(
    pipeline: Pipeline, distilled: dict[str, Any], evaluator: Evaluator, formula: str | None
) -> list[tuple[str, Make]]:
    """All that is compared: NAME-EVALUATIONS, and how it differs from the default."""
    found: list[tuple[str, Make]] = [("real", real(evaluator, formula))]
    plan = None if formula is None else pipeline.plan(parse(formula, pipeline.schema))
    once, again = Guidance(attempts=1), Guidance()
    for steps, several in SEVERAL.items():
        guided = None
        if plan is not None:
            weight = SINGLE[steps] if len(plan.formula.attributes) == 1 else several
            guided = replace(plan, weight=Weight(0.0 if steps > 1 else weight, weight, FIRST))
        kinds: list[tuple[str, type[Pipeline], Guidance]] = [("", FewStepPipeline, once)]
        if plan is not None:
            kinds.append(("-redrawn", FewStepPipeline, again))
        if plan is not None and steps == 4:
            kinds += [("-one-move", OneMove, once), ("-after", Pipeline, once)]
        for name, kind, guidance in kinds:
            own = kind(**{**distilled, "sampling": FewSteps(steps=steps), "guidance": guidance})
            found.append((f"distilled-{steps}{name}", sampled(own, guided)))
    for sampling in SOLVERS:
        for name, guidance in (("", once), ("-redrawn", again), ("-gentle", GENTLE)):
            if name and (plan is None or sampling.steps not in {"-redrawn": (4, 10, 50), "-gentle": (3, 4, 6)}[name]):
                continue
            own = replace(pipeline, sampling=sampling, guidance=guidance)
            guided = None if plan is None else replace(plan, weight=guidance.weight(plan.formula, plan.extrapolate))
            found.append((f"{sampling.sampler}-{sampling.steps}{name}", sampled(own, guided)))
    return found


def sampled(pipeline: Pipeline, plan: Plan | None) -> Make:
    """Samples of the prior, or of a plan."""

    def make(seeds: Sequence[int]) -> tuple[Tensor, int]:
        if plan is None:
            return pipeline.sample(seeds), len(seeds)
        draw = pipeline.draw_each([plan], seeds)[0]
        return draw.z_0, draw.drawn

    return make


def real(evaluator: Evaluator, formula: str | None) -> Make:
    """Other real images: the floor of the distance."""
    references = References(evaluator)

    def make(seeds: Sequence[int]) -> tuple[Tensor, int]:
        seed, count = seeds[0] // COUNT, len(seeds)
        if formula is None:
            return evaluator.pipeline.encode(references.floor(seed, count).images), count
        return references._make_satisfying(formula, seed, count, range(count)).z_0[0], count

    return make


def figures(evaluator: Evaluator, z_0: Tensor, formula: str | None) -> dict[str, float]:
    """What the judge says of samples."""
    pipeline = evaluator.pipeline
    seen, near = evaluator.see(pipeline.decode(z_0)), evaluator.nearest.near(z_0)
    if formula is None:
        reference, holds = evaluator.biased()[0], torch.ones(len(z_0), dtype=torch.bool)
    else:
        asked = parse(formula, pipeline.schema)
        reference, holds = evaluator.satisfying(asked), asked.holds(seen.labels)
    distance = frechet_distance(*moments(seen.features), reference.mean, reference.covariance)
    accuracy = {} if formula is None else {"joint_accuracy": float(holds.float().mean())}
    return {**accuracy, "sharp": float((holds & near).float().mean()), "frechet_distance": distance}


if __name__ == "__main__":
    main()

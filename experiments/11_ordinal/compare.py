"""A cumulative link against a softmax on few labels: python experiments/11_ordinal/compare.py

Gaussian latents and five ascending values cut from a.z_0 + xi, of which the noisy posterior is known. Two networks that
differ in nothing but the head are trained on the same labelled latents, noised anew at every step as in `lcg fit`, and
taken at the step at which the likelihood of a quarter of the labels, held out, is best. Writes results.csv and prints
a table.
"""

import copy
import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lcg.conformance.worlds import Ordinal, World
from lcg.diffusion.schedule import CosineSchedule
from lcg.guidance import parse
from lcg.guidance.probability import CompiledFormula
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import HeadOutputs, mean_negative_log_likelihood
from lcg.schema import Schema

OUT = Path(__file__).parent / "results.csv"
DIM, STEEPNESS, CUTS = 16, 3.0, (-3.0, -1.0, 1.5, 4.0)
VALUES = ("baby", "child", "young", "adult", "old")
LABELS, SEEDS, STEPS, EVERY, BATCH, LATENTS = (50, 200, 1000, 5000), range(5), 400, 20, 256, 4096
Row = tuple[str, str, str, float, int]


def make_world(seed: int) -> World:
    """Standard normal latents; the direction is random, its length the steepness."""
    direction = torch.randn(DIM, generator=torch.Generator().manual_seed(seed))
    direction = (STEEPNESS * direction / direction.norm()).tolist()
    one = torch.zeros(1, dtype=torch.float64)
    attribute = Ordinal("age", tuple(direction), CUTS, VALUES)
    return World(one, one.expand(1, DIM), torch.eye(DIM).double()[None], [attribute], CosineSchedule())


def fit(schema: Schema, world: World, z_0: Tensor, labels: Tensor, seed: int) -> TimeConditionedClassifier:
    """A small network, at the step at which held-out labels are most likely."""
    torch.manual_seed(seed)
    net = TimeConditionedClassifier((DIM,), schema, width=64, depth=2, dropout=0.1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    held = len(z_0) // 4
    levels = torch.arange(8 * held) % 20 / 20 + 0.025  # every noise level, of every latent eight times
    seen = noised(world, z_0[:held].repeat(8, 1), levels)
    best, chosen = float("inf"), copy.deepcopy(net)
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                loss = float(mean_negative_log_likelihood(schema, net.eval()(seen, levels), labels[:held].repeat(8, 1)))
            if loss < best:
                best, chosen = loss, copy.deepcopy(net)
        rows = torch.randint(held, len(z_0), (BATCH,))
        t = torch.rand(BATCH)
        loss = mean_negative_log_likelihood(schema, net.train()(noised(world, z_0[rows], t), t), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return chosen.eval().requires_grad_(False)


def noised(world: World, z_0: Tensor, t: Tensor) -> Tensor:
    """z_t."""
    alpha, sigma = world.schedule.alpha(t)[:, None], world.schedule.sigma(t)[:, None]
    return (alpha * z_0 + sigma * torch.randn_like(z_0)).float()


def errors(world: World, net: TimeConditionedClassifier, schema: Schema) -> Iterator[tuple[str, float]]:
    """How far from the exact posterior, and how far its gradient from the exact one, which guidance needs."""
    torch.manual_seed(1)
    t = torch.rand(LATENTS)
    z_t = noised(world, world.sample(LATENTS, torch.Generator().manual_seed(2)).float(), t)
    exact, found = (outputs(z_t, t)["age"].log_softmax(1) for outputs in (world.classifier, net))
    yield "kl", float((exact.exp() * (exact - found)).sum(1).mean())
    for name, formula in (("adult_or_older", "age in {adult, old}"), ("young", "age=young")):
        compiled = CompiledFormula(parse(formula, schema))
        truth, learnt = (gradient(compiled, of, z_t, t) for of in (world.classifier, net))
        yield f"gradient/{name}", float((truth - learnt).square().sum() / truth.square().sum())


def gradient(compiled: CompiledFormula, of: Callable[[Tensor, Tensor], HeadOutputs], z_t: Tensor, t: Tensor) -> Tensor:
    """Of the formula's log-probability, (B, D)."""
    z_t = z_t.clone().requires_grad_()
    return torch.autograd.grad(compiled(of(z_t, t)).sum(), z_t)[0]


def main() -> None:
    """Measures everything."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    for seed in SEEDS:
        world = make_world(seed)
        plain = Schema(tuple(replace(a, ordered=False) for a in world.schema))
        for n in LABELS:
            z_0 = world.sample(n, torch.Generator().manual_seed(100 + seed))
            labels = world.labels(z_0, torch.Generator().manual_seed(200 + seed)).float()
            for method, schema in (("cumulative", world.schema), ("softmax", plain)):
                net = fit(schema, world, z_0.float(), labels, seed)
                rows += [(method, str(n), metric, value, seed) for metric, value in errors(world, net, schema)]
    with OUT.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("method", "labels", "metric", "value", "seed"), *rows])
    print(table(rows))


def table(rows: list[Row]) -> str:
    """Means over seeds with their standard errors, and the paired ratio."""
    lines = ["| labels | | softmax | cumulative | softmax / cumulative |", "|---|---|---|---|---|"]
    for n in LABELS:
        for metric in dict.fromkeys(row[2] for row in rows):
            a, b = (
                torch.tensor([v for m, count, name, v, _ in rows if (m, count, name) == (method, str(n), metric)])
                for method in ("softmax", "cumulative")
            )
            means = (f"{x.mean():.4f} ± {x.std() / len(x) ** 0.5:.4f}" for x in (a, b))
            lines.append(f"| {n} | {metric} | {' | '.join(means)} | {(a.log() - b.log()).mean().exp():.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

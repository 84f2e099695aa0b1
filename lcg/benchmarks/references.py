"""What stands beside the methods: real images, Gaussian latents, reconstructions; and what needs no samples at all.

The row `real` is the floor of every distance and the ceiling of every accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import torch
from torch import Tensor

from lcg.benchmarks.calibrated import calibration_figures
from lcg.benchmarks.cells import Cell, Direct, Made
from lcg.benchmarks.evaluator import Evaluator, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.latents import disentanglement_figures
from lcg.benchmarks.tasks import Generate, Single
from lcg.benchmarks.worlds.world import RealSet
from lcg.guidance import parse


class References:
    """Cells that belong to no method.

    Args:
        evaluator: has the real images.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator, self.pipeline = evaluator, evaluator.pipeline
        # Chunks of one cell come one after another, and each asks for the whole set.
        self.floor = lru_cache(maxsize=1)(self._floor)
        self.satisfying = lru_cache(maxsize=1)(self._satisfying)

    def beside(self, task: Generate, seed: int, count: int) -> Cell:
        """Other real images that satisfy a formula, drawn with the reference's weights."""
        make = partial(self._make_satisfying, str(task.formula), seed, count)
        return Cell("real", task, seed, count, ("world", "compared with"), make)

    def single(self, task: Single, seed: int, count: int) -> Iterator[Cell | Direct]:
        """What is measured of real images for a task without a formula."""
        if task.name == "unconditional":
            make = partial(self._make_gaussian, seed, count)
            yield Cell("gaussian", task, seed, count, ("world", "compared with"), make)
            yield Cell("real", task, seed, count, ("world",), partial(self._make_floor, seed, count))
        elif task.name == "reconstruction":
            originals = partial(self.originals, seed, count)
            for name in ("generator", "real"):
                make = partial(self._make_reconstructions, seed, count, name == "real")
                yield Cell(name, task, seed, count, ("world",), make, sources=originals)
        elif task.name == "calibration":
            yield Direct("classifier", task, seed, count, partial(self._calibration, seed, count))
        else:
            yield Direct("latents", task, seed, count, partial(self._disentanglement, seed, count))

    # --- samples ---

    def _satisfying(self, formula: str) -> tuple[RealSet, Tensor]:
        parsed = parse(formula, self.pipeline.schema)
        real = self.evaluator.real(parsed, "floor")
        return real, self.evaluator.weights(real.labels, parsed)

    def _make_satisfying(self, formula: str, seed: int, count: int, rows: range) -> Made:
        real, weights = self.satisfying(formula)
        drawn = torch.multinomial(weights, count, True, generator=torch.Generator().manual_seed(seed))
        return self._made(real[drawn[rows.start : rows.stop].numpy()])

    def _floor(self, seed: int, count: int) -> RealSet:
        return self.evaluator.world.real("biased", count, f"biased-floor-{seed}")

    def _make_floor(self, seed: int, count: int, rows: range) -> Made:
        return Made(self.evaluator.encode(self.floor(seed, count)[rows.start : rows.stop])[None])

    def _make_gaussian(self, seed: int, count: int, rows: range) -> Made:
        """Latents drawn from a normal distribution fitted to real ones: what a prior must beat."""
        _, real = self.evaluator.biased()
        z = real.flatten(1)
        covariance = torch.cov(z.T).reshape(z.shape[1], z.shape[1]) + 1e-6 * torch.eye(z.shape[1])
        noise = torch.randn(count, z.shape[1], generator=torch.Generator().manual_seed(seed))
        drawn = z.mean(0) + noise @ torch.linalg.cholesky(covariance).T
        return Made(drawn[rows.start : rows.stop].reshape(-1, *real.shape[1:])[None])

    def originals(self, seed: int, count: int) -> Sources:
        """Unseen images, to be reconstructed."""
        return self.evaluator.originals(f"reconstruction-{seed}", count)

    def _make_reconstructions(self, seed: int, count: int, real: bool, rows: range) -> Made:
        part = self.originals(seed, count)[rows.start : rows.stop]
        return Made(part.z_0[None], part.images.numpy()[None] if real else None)

    def _made(self, real: RealSet) -> Made:
        return Made(self.evaluator.encode(real)[None], real.images[None])

    # --- figures ---

    def _calibration(self, seed: int, count: int) -> Iterator[Figure]:
        real = self.evaluator.world.real("biased", count, f"calibration-{seed}")
        pipeline, asked = self.pipeline, self.pipeline.guidance.dependence
        return calibration_figures(
            pipeline.classifier,
            pipeline.denoiser.schedule,
            self.evaluator.encode(real).to(pipeline.device),
            real.labels.to(pipeline.device),
            seed=seed,
            dependence=pipeline.calibrated if asked == "auto" else asked,
        )

    def _disentanglement(self, seed: int, count: int) -> Iterator[Figure]:
        real = self.evaluator.world.real("biased", count, f"disentanglement-{seed}")
        return disentanglement_figures(self.evaluator.encode(real), real.labels, self.pipeline.schema, seed=seed)

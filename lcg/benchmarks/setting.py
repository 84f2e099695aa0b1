"""Where a benchmark takes place: networks, store, judge and world, checked against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcg import __version__
from lcg.baselines.contract import Baseline, Training
from lcg.benchmarks.cache import Cache
from lcg.benchmarks.options import options_of
from lcg.benchmarks.worlds.discipline import check_judge, check_world
from lcg.benchmarks.worlds.world import World
from lcg.data.store import LatentStore
from lcg.generators.base import Generator, StochasticGenerator, weights_sha256
from lcg.metrics.judge import AvatarJudge, Judge
from lcg.metrics.reference import marginals
from lcg.pipeline import Pipeline, load


@dataclass(frozen=True)
class Setting:
    """What all that is measured has in common.

    Attributes:
        pipeline: networks; its settings are those of a benchmark.
        store: that the networks were fitted on.
        judge: says what is in an image.
        world: gives real images.
        cache: keeps what is computed of them.
        faults: why the judge or the world should not be trusted, in sentences.
        cells: folder of the pieces of all benchmarks that take place here, where they share them.
        fitted: baselines that have learnt, by their options.
    """

    pipeline: Pipeline
    store: LatentStore
    judge: Judge
    world: World
    cache: Cache
    faults: tuple[str, ...] = ()
    cells: Path | None = None
    fitted: dict[str, Baseline] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        store: str,
        prior: str,
        classifier: str,
        generator: Generator | None,
        judge: Judge | None,
        world: World | None,
        cache: str,
        device: torch.device,
        baselines: Mapping[str, Baseline],
        shared_judge: bool = False,
    ) -> Setting:
        """Loads everything.

        Raises:
            FileNotFoundError: a checkpoint or the store is missing.
            ValueError: they do not fit together; or the judge or the world shares data or weights with what guides,
                unless `shared_judge`.
        """
        pipeline, data = load(prior, classifier, generator, device), LatentStore.open(store)
        if world is None:
            from lcg.benchmarks.worlds.avatars import AvatarWorld

            world = AvatarWorld()
        judge = (AvatarJudge() if judge is None else judge).to(device).eval().requires_grad_(False)
        if pipeline.schema != world.schema:
            raise ValueError(
                f"the classifier's attributes must be the world's, {', '.join(world.schema.names)} with the same kinds "
                f"and values, got {', '.join(pipeline.schema.names)}; fit it on such, or give `world` such images"
            )
        if tuple(world.image_shape) != tuple(pipeline.generator.image_shape):
            raise ValueError(
                f"the world's images must be of the generator's shape {tuple(pipeline.generator.image_shape)}, got "
                f"{tuple(world.image_shape)}; crop and resize them"
            )
        if world.decoder not in ("", weights_sha256(pipeline.generator)):
            raise ValueError(
                "the world's images must be drawn by the generator that is controlled, got those of another one; give "
                "`generator` and that of `world` the same class and weights"
            )
        if data.fingerprint != pipeline.store:
            raise ValueError(f"{prior} was fitted on another store than {store}; fit it again, or name its own store")
        guides = {
            "the prior": weights_sha256(pipeline.denoiser),
            "the classifier": weights_sha256(pipeline.classifier),
            "the generator": weights_sha256(pipeline.generator),
        }
        networks = dict(guides)
        for name, baseline in baselines.items():
            guides[f"the baseline {name!r}"] = options_of(baseline).get("checkpoint_sha256", "")
        provenance = dict(data.provenance)
        faults = (
            *check_judge(judge, world, provenance, guides, shared_judge),
            *check_world(world, provenance, shared_judge),
        )
        own = {"store": pipeline.store, **networks, "judge": weights_sha256(judge), "world": world.identity()}
        kept = Cache(Path(cache), {**own, **path_of(pipeline.generator), "lcg": __version__})
        return cls(pipeline, data, judge, world, kept, faults)

    def with_settings(self, **settings: Any) -> Pipeline:
        """The pipeline with other `sampling`, `guidance` or `editing`."""
        return replace(self.pipeline, **settings)

    @cached_property
    def labels(self) -> Tensor:
        """(N, A) of the store."""
        return self.store.labels()

    @cached_property
    def marginals(self) -> dict[str, float]:
        """The share of each binary attribute in the store."""
        return marginals(self.labels, self.pipeline.schema)

    def fit(self, baseline: Baseline) -> Baseline:
        """The baseline, or one with the same options, after it has learnt."""
        key = json.dumps(options_of(baseline), sort_keys=True)
        if key not in self.fitted:
            self.fitted[key] = baseline.fit(self.training)
        return self.fitted[key]

    @cached_property
    def training(self) -> Training:
        """What baselines may learn from."""
        pipeline, device = self.pipeline, self.pipeline.device
        return Training(
            pipeline.statistics.standardise(self.store.latents()).to(device),
            self.labels.to(device),
            pipeline.schema,
            pipeline.generator,
            pipeline.statistics,
            pipeline.denoiser,
            pipeline.denoiser.schedule,
            pipeline.classifier,
            self.store.fingerprint,
        )

    @property
    def always(self) -> dict[str, Any]:
        """What every sample depends on, in JSON primitives."""
        pipeline = self.pipeline
        networks = [pipeline.store, weights_sha256(pipeline.denoiser), weights_sha256(pipeline.classifier)]
        generator = {"generator": weights_sha256(pipeline.generator), **path_of(pipeline.generator)}
        return {"networks": networks, **generator, "lcg": __version__}


def path_of(generator: Generator) -> dict[str, Any]:
    """What images and codes depend on beside the weights, where a generator has codes: its steps, for one."""
    return {"path": generator.identity()} if isinstance(generator, StochasticGenerator) else {}

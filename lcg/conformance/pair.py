"""A trained prior and classifier, the data to hold them against, and what both say, each computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from lcg.checkpoint import UNREADABLE, Kind, load_networks
from lcg.data.split import in_validation
from lcg.data.store import LatentStore
from lcg.data.store.checks import check_labels, check_latents
from lcg.diffusion.process import diffuse, z0_from_eps
from lcg.diffusion.samplers.dpm_solver import DPMSolverPP2M
from lcg.models.names import is_exported
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.heads import HeadOutputs, Outputs, independent
from lcg.schema import Schema

TIMES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98)
"""Noise levels at which a pair is looked at."""

STEPS = 50
MAX_ROWS = 8192
"""Validation latents that are looked at, at most."""


@dataclass(frozen=True)
class Data:
    """Latents that nothing was trained on.

    Attributes:
        z_0: standardised (N, *latent).
        labels: (N, A), NaN where missing.
    """

    z_0: Tensor
    labels: Tensor


class Pair:
    """A trained prior and a trained classifier.

    Args:
        denoiser: the prior's.
        classifier: of noised latents.
        data: validation latents of the store that they were fitted on; None for what can be seen without.
        samples: how many the prior draws.
        seed: of all noise.
    """

    def __init__(
        self,
        denoiser: LatentDenoiser,
        classifier: TimeConditionedClassifier,
        data: Data | None = None,
        samples: int = 2000,
        seed: int = 0,
    ) -> None:
        self.denoiser, self.classifier, self.data = denoiser, classifier, data
        self.count, self.seed = samples, seed
        self._said: dict[float, Outputs] = {}

    @property
    def schema(self) -> Schema:
        """The attributes."""
        return self.classifier.schema

    def noise(self, rows: int, purpose: int) -> Tensor:
        """Standard normal numbers (rows, *latent), others for each purpose."""
        rng = torch.Generator().manual_seed(1000 * self.seed + purpose)
        return torch.randn(rows, *self.denoiser.latent_shape, generator=rng)

    @torch.no_grad()
    def says_jointly(self, data: Data, t: float) -> Outputs:
        """The classifier's outputs for the data noised to time t."""
        if t not in self._said:
            self._said[t] = self.classifier(self.noised(data.z_0, t), _rows(data.z_0, t))
        return self._said[t]

    def says_of_data(self, data: Data, t: float) -> HeadOutputs:
        """The same of each attribute alone."""
        return independent(self.says_jointly(data, t))

    def noised(self, z_0: Tensor, t: float) -> Tensor:
        """A draw from q(z_t | z_0) for each row."""
        return diffuse(self.denoiser.schedule, z_0, _rows(z_0, t), self.noise(len(z_0), 1 + round(100 * t)))

    @torch.no_grad()
    def predicted(self, z_t: Tensor, t: float) -> Tensor:
        """z_0_hat (N, *latent)."""
        rows = _rows(z_t, t)
        return z0_from_eps(self.denoiser.schedule, z_t, rows, self.denoiser(z_t, rows))

    def sample(self, z: Tensor, t_start: float) -> Tensor:
        """Clean latents from latents at t_start, by the probability flow."""
        return self._sampler.sample(self.denoiser, z, t_start=t_start)

    @cached_property
    def path(self) -> list[tuple[float, Tensor]]:
        """The prior's samples on their way from noise: (t, z_t) at every tenth step and at the end."""
        watched: list[tuple[float, Tensor]] = []

        def watching(z_t: Tensor, t: Tensor) -> Tensor:
            watched.append((float(t[0]), z_t))
            return self.denoiser(z_t, t)

        self._sampler.sample(watching, self.noise(self.count, 0))
        return [*watched[: -STEPS // 10 : 10], watched[-1]]

    @cached_property
    @torch.no_grad()
    def said_along_path(self) -> list[HeadOutputs]:
        """What the classifier says of each attribute alone, on the way."""
        return [independent(self.classifier(z_t, _rows(z_t, t))) for t, z_t in self.path]

    @cached_property
    def samples(self) -> Tensor:
        """The prior's samples z_0 (count, *latent)."""
        return self.path[-1][1]

    @property
    def _sampler(self) -> DPMSolverPP2M:
        return DPMSolverPP2M(self.denoiser.schedule, STEPS)


def read_pair(checkpoints: Sequence[str], store: str | None, val_fraction: float, samples: int, seed: int) -> Pair:
    """A pair from two checkpoints, in any order, or from an exported model.

    Args:
        checkpoints: the files of a prior and of a classifier; or the folder of an exported model.
        store: folder of the latent store that both were fitted on; None to do without data.
        val_fraction: as in the fit; which samples are validation samples follows from it.
        samples: how many the prior draws.
        seed: of all noise.

    Raises:
        FileNotFoundError: a checkpoint or the store is missing.
        ValueError: not one prior and one classifier, or they do not fit together, or not the store.
    """
    if len(checkpoints) == 1 and is_exported(checkpoints[0]):
        prior = classifier = checkpoints[0]
    elif len(checkpoints) != 2:
        raise ValueError(
            f"`checkpoint` must name two files, of a prior and of a classifier, got {len(checkpoints)}; such as "
            "--checkpoint runs/demo/prior/prior.ckpt runs/demo/classifier/classifier.ckpt"
        )
    else:
        kinds = [kind_of(path) for path in checkpoints]
        if kinds[0] == kinds[1]:
            raise ValueError(
                f"`checkpoint` must name a prior and a classifier, got two of a {kinds[0]}; give one of each"
            )
        prior, classifier = checkpoints if kinds[0] == "denoiser" else reversed(checkpoints)
    p, c = load_networks(prior, classifier)
    data = None
    if store is not None:
        opened = LatentStore.open(store)
        if opened.fingerprint != p.store:
            raise ValueError(f"{prior} was fitted on another store than {store}; give its own store, or none")
        rows = torch.from_numpy(in_validation(opened.index(), val_fraction)).nonzero()[:MAX_ROWS, 0]
        if len(rows) < 2:
            raise ValueError(
                f"{store} must have at least 2 validation latents, got {len(rows)} with val_fraction={val_fraction}; "
                "raise `val_fraction` to that of the fit"
            )
        z, labels, index = opened.latents(rows), opened.labels(rows), opened.index(rows).numpy()
        check_latents(z.numpy(), index)
        check_labels(labels.numpy(), opened.schema, index)
        data = Data(p.statistics.standardise(z), labels)
    return Pair(p.network, c.network, data, samples, seed)


def kind_of(path: str) -> Kind:
    """What network a checkpoint holds; where it cannot be read a denoiser is said, and loading it gives the reason."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give the files of a prior and of a classifier")
    try:
        kind: Kind = torch.load(path, map_location="cpu", weights_only=True)["lcg"]["kind"]
    except UNREADABLE:
        return "denoiser"
    return kind


def _rows(z: Tensor, t: float) -> Tensor:
    return torch.tensor(t, dtype=z.dtype).expand(len(z))

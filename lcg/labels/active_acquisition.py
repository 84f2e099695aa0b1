"""Acquisition: which latents to label next, so that the labels tell as much as they can and not the same twice.

    random     the baseline
    coverage   k-centre: every next one is the farthest from all that are labelled or chosen (Gonzalez 1985; as a
               core-set, Sener & Savarese 2018, arXiv:1708.00489)
    entropy    H(y | z_0), then k-centre among the DIVERSE times as many most uncertain
    margin     1 - (p_1 - p_2) of the two most probable values, likewise
    bald       I(y; w | z_0), the last layer's weights w
    guidance   what the label takes from guidance's error in eps_hat, tr(S G)

The last two are greedy with the posterior brought up to date after each choice: S after a label at z does not depend on
which label it will be (`lcg.labels.active_posterior`),

    S' = S - S F^T (D + F S F^T)^-1 F S,      rows of F the features of z at s noise levels, D = diag(s / v),

so that a copy of what was chosen tells nothing any more, as in BatchBALD (Kirsch et al. 2019, arXiv:1906.08158), whose
greedy choice by the joint information this is for a normal posterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lcg.diffusion import Schedule
from lcg.labels.active_posterior import (
    Features,
    Sight,
    entropy,
    label_information,
    low_rank,
    posterior,
    stratified,
)
from lcg.nets.classifier import TimeConditionedClassifier

Acquisition = Literal["guidance", "bald", "entropy", "margin", "coverage", "random"]
ACQUISITIONS: tuple[Acquisition, ...] = get_args(Acquisition)
BLIND: tuple[Acquisition, ...] = ("random", "coverage")
"""Those that need no classifier."""

DRAWS = 4
"""Noise levels at which a latent is looked at."""
PROBES = 2048
"""Latents that guidance's error is averaged over."""
DIVERSE = 10
SHORTLIST = 40
"""Times as many as asked for, the best at first, are what the greedy choice is made among."""


class Learner:
    """The last layer of one attribute, and what the label of each candidate would teach it.

    Args:
        sight: the classifier for this attribute.
        z_0: candidates, standardised (N, *latent).
        missing: (N,) which of them have no label yet.
        labelled: standardised latents with a label.
        guided: whether guidance's error counts, or else information.
        band: of noise levels at which guidance acts.
        probes: latents (M, *latent) that guidance will be at, before noise.
        rng: of the noise.
    """

    def __init__(
        self,
        sight: Sight,
        z_0: Tensor,
        missing: Tensor,
        labelled: Tensor,
        guided: bool,
        band: tuple[float, float],
        probes: Tensor,
        rng: torch.Generator,
    ) -> None:
        times = stratified(DRAWS, rng)
        covariance = posterior(sight, sight.look(labelled, times, rng))
        self.attribute, self.missing, self.guided = sight.attribute, missing, guided
        seen = sight.look(z_0, times if guided else torch.zeros(1), rng, common=True)
        root = low_rank(sight.sensitivity(probes, band, rng)) if guided else covariance[:, :0]
        self._begin(seen, covariance, root)

    def _begin(self, seen: Features, covariance: Tensor, root: Tensor) -> None:
        self.seen, self.noise = seen, seen.h.shape[1] / seen.v.double().clamp(min=1e-12)
        self.h = seen.h.double()
        self.a = self.h @ covariance  # F S
        self.b = self.a @ root  # F S R, R R^T = G

    def keep(self, rows: Tensor) -> None:
        """Looks at some of the candidates only."""
        self.seen, self.noise, self.missing = self.seen[rows], self.noise[rows], self.missing[rows]
        self.h, self.a, self.b = self.h[rows], self.a[rows], self.b[rows]

    def gains(self) -> Tensor:
        """What the label of each candidate is worth (N,): nats, or mean squared error of eps_hat; 0 where it is known.

        tr(S G) - tr(S' G) = tr((D + F S F^T)^-1 F S G S F^T).
        """
        if self.guided:
            gained = torch.linalg.solve(self._kernel(), self.b @ self.b.mT).diagonal(dim1=1, dim2=2).sum(1)
        else:
            variance = (self.a * self.h).sum(-1)[:, 0]
            gained = label_information(self.attribute, self.seen.p[:, 0].double(), variance)
        return torch.where(self.missing, gained, 0.0)

    def take(self, row: int) -> None:
        """The posterior after the label of one candidate, whatever it will be; nothing when it is known already."""
        if not bool(self.missing[row]):
            return
        cross = self.a @ self.h[row].T  # F S f^T of every candidate, (N, S, S)
        weight = torch.linalg.solve(self._kernel()[row], torch.cat([self.a[row], self.b[row]], dim=1))
        change = cross @ weight
        self.a = self.a - change[..., : self.a.shape[-1]]
        self.b = self.b - change[..., self.a.shape[-1] :]

    def _kernel(self) -> Tensor:
        """D + F S F^T, (N, S, S)."""
        return self.a @ self.h.mT + torch.diag_embed(self.noise)


def greedy(learners: Sequence[Learner], num: int) -> Tensor:
    """Candidates (num,) in the order of choice: each time the one whose labels are worth most after all before."""
    gains = torch.stack([learner.gains() for learner in learners]).sum(0)
    rows = gains.topk(min(len(gains), SHORTLIST * num)).indices
    for learner in learners:
        learner.keep(rows)
    chosen: list[int] = []
    for _ in range(num):
        gains = torch.stack([learner.gains() for learner in learners]).sum(0)
        gains[chosen] = -torch.inf
        chosen.append(int(gains.argmax()))
        for learner in learners:
            learner.take(chosen[-1])
    return rows[chosen]


def k_centre(z: Tensor, num: int, centres: Tensor) -> Tensor:
    """Rows (num,) of z, each the farthest from the centres and the rows before it.

    Args:
        z: (N, *latent).
        num: at most N.
        centres: (M, *latent) that are there already; without any, the row farthest from the mean comes first.
    """
    flat = z.flatten(1)
    near = _distances(flat, centres.flatten(1) if len(centres) else flat.mean(0, keepdim=True))
    chosen: list[int] = []
    for _ in range(num):
        near[chosen] = -torch.inf
        chosen.append(int(near.argmax()))
        near = torch.minimum(near, (flat - flat[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen, dtype=torch.int64)


def _distances(z: Tensor, centres: Tensor) -> Tensor:
    """Squared distance (N,) of each row to the nearest centre."""
    parts = (torch.cdist(z, part).amin(1).square() for part in centres.split(4096))
    return torch.stack(list(parts)).amin(0)


def choose(
    acquisition: Acquisition,
    num: int,
    z_0: Tensor,
    missing: Tensor,
    known: Tensor,
    labelled: Tensor,
    names: Sequence[str],
    classifier: TimeConditionedClassifier | None = None,
    schedule: Schedule | None = None,
    band: tuple[float, float] = (0.1, 0.9),
    seed: int = 0,
) -> Tensor:
    """Which candidates to label next, for some attributes together.

    Args:
        acquisition: see the module.
        num: how many.
        z_0: candidates, standardised (N, *latent).
        missing: (N, A) which labels of theirs are missing; a row of nothing missing is never chosen.
        known: standardised latents (M, *latent) with labels.
        labelled: (M, A) which labels these have.
        names: of the A attributes.
        classifier: for all but `random` and `coverage`.
        schedule: of its noise.
        band: noise levels at which guidance acts.
        seed: of what is drawn.

    Returns:
        (num,) rows of the candidates, those worth most first.

    Raises:
        ValueError: there are not so many candidates, the band is none, or a classifier is needed.
    """
    if acquisition not in ACQUISITIONS:
        raise ValueError(f"`acquisition` must be one of {', '.join(ACQUISITIONS)}, got {acquisition!r}; choose one")
    low, high = band
    if not 0 <= low < high <= 1:
        raise ValueError(f"`band` must be noise levels 0 <= t < t' <= 1, got {low} and {high}; such as .1 and .9")
    rows = missing.any(1).nonzero()[:, 0]
    if not 1 <= num <= len(rows):
        raise ValueError(f"`num` must be 1 to {len(rows)}, the latents without a label, got {num}; ask for fewer")
    rng = torch.Generator().manual_seed(seed)
    z_0, missing = z_0[rows], missing[rows]
    if acquisition == "random":
        return rows[torch.randperm(len(rows), generator=rng)[:num]]
    if acquisition == "coverage":
        return rows[k_centre(z_0, num, known)]
    if classifier is None or schedule is None:
        raise ValueError(f"`acquisition` {acquisition} asks a classifier, got none; give one, or choose coverage")
    sights = [Sight(classifier, name, schedule) for name in names]
    with torch.no_grad():
        if acquisition in ("bald", "guidance"):
            probes = torch.cat([z_0, known])
            probes = probes[torch.randperm(len(probes), generator=rng)[:PROBES]]
            learners = [
                Learner(sight, z_0, missing[:, j], known[labelled[:, j]], acquisition == "guidance", band, probes, rng)
                for j, sight in enumerate(sights)
            ]
            return rows[greedy(learners, num)]
        scores = torch.zeros(len(rows))
        for j, sight in enumerate(sights):
            p = sight.look(z_0, torch.zeros(1), rng).p[:, 0]
            scores += torch.where(missing[:, j], uncertainty(acquisition, sight, p), 0.0)
    most = scores.topk(min(len(scores), DIVERSE * num)).indices
    return rows[most[k_centre(z_0[most], num, known)]]


def uncertainty(acquisition: Acquisition, sight: Sight, p: Tensor) -> Tensor:
    """Entropy in nats, or 1 - margin, (N,) of predictions (N, K); of continuous attributes the standard deviation."""
    if sight.attribute.kind == "continuous":
        return p[:, 1].sqrt()
    if acquisition == "entropy":
        return entropy(p)
    first, second = p.topk(2, dim=1).values.unbind(1)
    return 1 - (first - second)

"""A temperature per noise level, fitted on validation data, and whether attributes are better read jointly.

Every output of the classifier is divided by T(t), whose logarithm is linear in t between L levels (Guo et al. 2017,
arXiv:1706.04599, section 4.2, do so with one temperature). Over validation latents, each noised a few times,

    log T = argmin  1/N sum_rows -log p(y | u(z_t, t) / T(t))  +  (s + n/N) / 2  mean_l (log T_l)^2,

N the number of known labels; of a joint classifier the first term is the mean of two, for its mixture and for its heads
of single attributes, as in its training. The second term is there for levels at which the classifier makes no mistake:
on separable data the likelihood grows for ever as T -> 0 (Albert & Anderson 1984, Biometrika 71), though nothing is
known there about the probability of what is wrong, which is what guidance climbs. With it a temperature leaves 1 only
for what is worth it: to halve it must gain s (log 2)^2 / 2 = half a thousandth of a nat per label. As it is zero where
T = 1, the likelihood of the data that T is fitted on never falls.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.nets.classifier import LEVELS
from lcg.nets.heads import (
    JointOutputs,
    Outputs,
    between_levels,
    independent,
    joint_log_likelihood,
    of_each_tensor,
    tempered,
)
from lcg.nets.label_noise import LabelNoise
from lcg.schema import Attribute, Schema

STIFFNESS = 0.002
"""s: nats per label that a factor e in T must gain, twice."""

PSEUDO_LABELS = 10
"""n: how many labels the belief that T is about 1 is worth; felt by a few hundred labels or less."""

ROWS_AT_ONCE = 512
"""Rows whose likelihood is differentiated together: what a cache holds is twice as fast as what it does not."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What a classifier says of noised latents, before any temperature, and what is true of them.

    Args:
        schema: the attributes.
        outputs: raw outputs of M rows.
        t: (M,) times in [0, 1].
        labels: (M, A), NaN where missing.
        noise: what makes labels wrong; then they are compared with what is to be expected of wrong ones.
    """

    schema: Schema
    outputs: Outputs
    t: Tensor
    labels: Tensor
    noise: LabelNoise | None = None

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: slice | Tensor) -> "Observed":
        """Some of the rows."""
        outputs = of_each_tensor(self.outputs, lambda x: x[rows])
        return replace(self, outputs=outputs, t=self.t[rows], labels=self.labels[rows])

    def double(self) -> "Observed":
        """The same in float64."""
        outputs = of_each_tensor(self.outputs, Tensor.double)
        return replace(self, outputs=outputs, t=self.t.double(), labels=self.labels.double())

    def chunks(self, size: int = ROWS_AT_ONCE) -> Iterator["Observed"]:
        """The rows, some at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def known(self, attribute: Attribute) -> "Observed":
        """The rows in which this attribute is labelled."""
        return self[~self.labels[:, self.schema.index(attribute.name)].isnan()]

    def tempered(self, log_temperature: Float[Tensor, " levels"]) -> Outputs:
        """What the classifier gives for observed labels when its temperature is set to these levels."""
        return self._seen(tempered(self.schema, self.outputs, between_levels(log_temperature, self.t)))

    @property
    def untempered(self) -> Outputs:
        """What the classifier gives for observed labels without a temperature."""
        return self._seen(self.outputs)

    def _seen(self, outputs: Outputs) -> Outputs:
        return outputs if self.noise is None else self.noise(outputs)


def fit_log_temperature(observed: Observed, levels: int = LEVELS) -> Float[Tensor, " levels"]:
    """The module's equation, by L-BFGS in float64.

    Args:
        observed: validation data at all noise levels.
        levels: how many.

    Returns:
        (levels,) float64; zero when no label is known, or when no temperature makes the labels more likely.
    """
    observed = observed.double()
    pieces, count = list(observed.chunks()), int((~observed.labels.isnan()).sum())
    start = torch.zeros(levels, dtype=torch.float64)
    if count == 0:
        return start
    log_temperature = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [log_temperature], max_iter=60, tolerance_grad=3e-5, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        penalty = 0.5 * (STIFFNESS + PSEUDO_LABELS / count) * log_temperature.square().mean()
        penalty.backward()
        total = penalty.item()
        for piece in pieces:  # each with its own backward pass, so that memory holds one of them
            nll = torch.stack(_by_either_reading(piece, piece.tempered(log_temperature))).mean(0).sum() / count
            nll.backward()
            total += nll.item()
        return total

    with torch.enable_grad():
        before = loss()
        optimizer.step(loss)
        after = loss()
    return log_temperature.detach() if after <= before else start


def _by_either_reading(observed: Observed, outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of all known labels of a row, (M,), read jointly and as independent given z_t."""
    schema, labels = observed.schema, observed.labels
    alone = -joint_log_likelihood(schema, independent(outputs), labels)
    return -joint_log_likelihood(schema, outputs, labels) if isinstance(outputs, JointOutputs) else alone, alone


@dataclass(frozen=True)
class Readings:
    """Negative log-likelihood per known label, in nats, by noise band, read jointly and as independent given z_t.

    Attributes:
        count: known labels per band.
        joint_before: by the mixture, before temperature; as if independent where there is none; NaN without labels.
        joint_after: the same after temperature.
        independent_before: by the heads for single attributes, before temperature.
        independent_after: the same after temperature.
    """

    count: tuple[int, ...]
    joint_before: tuple[float, ...]
    joint_after: tuple[float, ...]
    independent_before: tuple[float, ...]
    independent_after: tuple[float, ...]

    def mean(self, values: tuple[float, ...]) -> float:
        """The average over all labels of one of these."""
        total = sum(n * value for n, value in zip(self.count, values, strict=True) if n)
        return total / sum(self.count) if any(self.count) else math.nan

    @property
    def dependence(self) -> Literal["joint", "independent"]:
        """The reading under which the labels are more likely; `independent` where both are one."""
        better = self.mean(self.joint_after) < self.mean(self.independent_after)
        return "joint" if better else "independent"

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives, for a checkpoint."""
        return {
            "dependence": self.dependence,
            "labels": list(self.count),
            "joint": {"before": list(self.joint_before), "after": list(self.joint_after)},
            "independent": {"before": list(self.independent_before), "after": list(self.independent_after)},
        }


def compare_readings(observed: Observed, log_temperature: Float[Tensor, " levels"], bands: int) -> Readings:
    """How likely the labels are by either reading, before and after temperature, in equal bands of t."""
    observed, log_temperature = observed.double(), log_temperature.double()
    count, sums = torch.zeros(bands, dtype=torch.float64), torch.zeros(4, bands, dtype=torch.float64)
    for piece in observed.chunks():
        band = band_of(piece.t, bands)
        count.index_add_(0, band, (~piece.labels.isnan()).sum(1).double())
        nll = []
        for outputs in (piece.untempered, piece.tempered(log_temperature)):
            for reading in (outputs, independent(outputs)):
                nll.append(-joint_log_likelihood(piece.schema, reading, piece.labels))
        sums.index_add_(1, band, torch.stack(nll))
    joint_before, independent_before, joint_after, independent_after = (tuple(row) for row in (sums / count).tolist())
    return Readings(tuple(int(n) for n in count), joint_before, joint_after, independent_before, independent_after)


def band_of(t: Float[Tensor, " batch"], bands: int) -> Tensor:
    """(B,) int64, in which of equal intervals of [0, 1] a time lies."""
    return (t * bands).long().clamp(0, bands - 1)

"""Ordinal attributes: values on a scale, with cumulative probabilities between cut points.

    P(y <= k | z_t) = sigmoid(L_k),     L_k = (theta_k - eta(z_t, t)) / exp(s(z_t, t)),     theta_1 < ... < theta_{C-1}

(McCullagh 1980, "Regression models for ordinal data", with a scale beside the location). The network says where on the
scale a latent lies, eta, and how surely, s; the cut points are parameters, the same for all latents, all times and all
components of a joint head. That is the form of the truth: where values are cut from a Gaussian score a.z_0 + noise,

    P(y <= k | z_t) = Phi((theta_k - E[a.z_0 | z_t]) / sqrt(1 + Var[a.z_0 | z_t])),

so that noise in z_t moves the location and widens the scale, and the cut points stay. C - 1 cut points and a scale
represent any marginal at t = 1, and a small scale is as sharp as t = 0 may need. With cut points of their own, the
components of a mixture would measure on scales of their own; with common ones each can still say any value for sure, so
that enough of them represent every dependence.

The probabilities are handed on as C log-probabilities, which are logits like any others. None is a difference of
probabilities: sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), whose logarithm is accurate far out.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.schema import Attribute

SHARPEST = 40.0
"""Bound on |s|, far beyond what float32 can tell from certainty, so that overflow never makes a gradient NaN."""
WIDEST_GAP = 6.5
"""Of log(L_k - L_{k-1}): exp(-exp(6.5)) is 0 next to 1 in any precision."""


def network_outputs(attribute: Attribute) -> int:
    """How many numbers a network gives for an attribute: location and scale if it is ordinal, else its outputs."""
    return 2 if attribute.ordered else attribute.outputs


class CumulativeLink(nn.Module):
    """The cut points of ordinal attributes, and what they make of locations and scales.

    A cut point is the one before it plus the exponential of a parameter. New ones make all values equally probable.

    Args:
        attributes: ordinal ones.
    """

    def __init__(self, attributes: Iterable[Attribute]) -> None:
        super().__init__()
        self.counts = {a.name: len(a.values) - 1 for a in attributes}
        self.cuts = nn.Parameter(torch.cat([_evenly_spread(count) for count in self.counts.values()]))

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by attribute with log-probabilities (..., C) in the place of locations and scales (..., 2)."""
        cuts = dict(zip(self.counts, self.cuts.split(list(self.counts.values())), strict=True))
        return {name: cumulative(out, cuts[name]) if name in cuts else out for name, out in outputs.items()}

    def rows(self, names: Sequence[str]) -> Tensor:
        """The parameters of some of the attributes, (sum of C - 1,)."""
        parts = dict(zip(self.counts, self.cuts.detach().split(list(self.counts.values())), strict=True))
        return torch.cat([parts[name] for name in names])


def _evenly_spread(count: int) -> Tensor:
    """The parameters of cut points at the logits of 1/C, ..., (C - 1)/C."""
    cuts = torch.logit(torch.arange(1, count + 1, dtype=torch.float64) / (count + 1))
    return torch.cat((cuts[:1], cuts.diff().log())).float()


def cumulative(output: Float[Tensor, "*batch two"], cuts: Float[Tensor, " cuts"]) -> Float[Tensor, "*batch values"]:
    """Log-probabilities of the values of an ordinal attribute.

    Args:
        output: location eta and log-scale s.
        cuts: the first cut point, and the logarithms of the distances to the others.

    Returns:
        (..., cuts + 1), normalised; float64 if the outputs are, else float32.
    """
    output = output if output.dtype == torch.float64 else output.float()
    cuts = cuts.to(output)
    location, log_scale = output[..., :1], output[..., 1:].clamp(-SHARPEST, SHARPEST)
    thetas = torch.cat((cuts[:1], cuts[:1] + cuts[1:].exp().cumsum(0)))
    return _log_probabilities((thetas - location) * torch.exp(-log_scale), cuts[1:] - log_scale)


def _log_probabilities(logits: Tensor, log_gaps: Tensor) -> Tensor:
    """log P(y = k) (..., C) from L_k (..., C - 1) and the logarithms of their distances (..., C - 2)."""
    below, above = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    middle = below[..., 1:] + above[..., :-1] + _log1mexp_of_exp(log_gaps)
    return torch.cat((below[..., :1], middle, above[..., -1:]), dim=-1)


def _log1mexp_of_exp(log_gap: Tensor) -> Tensor:
    """log(1 - exp(-exp(u))), accurate for gaps that underflow, where it is u, as for those that overflow."""
    gap = log_gap.clamp(max=WIDEST_GAP).exp()
    near = gap < math.log(2)
    small = torch.where(near, gap, 1.0).clamp(min=torch.finfo(gap.dtype).tiny)
    narrow = log_gap + torch.log(-torch.expm1(-small) / small)
    return torch.where(near, narrow, torch.log1p(-torch.exp(-torch.where(near, 1.0, gap))))


def cumulative_logits(log_p: Float[Tensor, "*batch values"]) -> Float[Tensor, "*batch cuts"]:
    """L_k = log P(y <= k) - log P(y > k), (..., C - 1), of probabilities given as logits."""
    below = log_p.logcumsumexp(-1)[..., :-1]
    above = log_p.flip(-1).logcumsumexp(-1).flip(-1)[..., 1:]
    return below - above


def tempered_ordinal(
    log_p: Float[Tensor, "*batch values"], log_temperature: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch values"]:
    """The same location on a scale T times as wide, L_k / T.

    As T grows, the scale becomes wider than all cut points lie apart: the two extreme values get one half each. With
    two values it is the binary u / T; as T -> 0 the value in whose interval the location lies becomes certain.
    """
    logits = cumulative_logits(log_p) * torch.exp(-log_temperature)[..., None]
    return _log_probabilities(logits, logits.diff(dim=-1).clamp(min=torch.finfo(logits.dtype).tiny).log())

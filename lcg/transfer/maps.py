"""A map between the latents of two generators, both ways, learnt from pairs: latents of one image in either space.

    z_B = mean_B + (z_A - mean_A) M_AB,        z_A = mean_A + (z_B - mean_B) M_BA

Each way is fitted by itself, for latents of A hold what those of B do not and the other way round. Strengths of
regularisation are chosen by cross-validation, and the fit is judged on pairs that it has not seen, by

    R^2 = 1 - sum |z_B - z_B_hat|^2 / sum |z_B - mean_B|^2,

of all elements together and along the directions that tell an attribute: an error there is an error in the attribute,
while an error elsewhere may be none at all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from lcg.transfer.solvers import HOW, SOLVERS, How, regularised
from lcg.weights import load_weights, save_weights

STRENGTHS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
MOST_ANCHORS = 4096
"""Pairs that `relative` takes as anchors, at most."""


class LatentMap(nn.Module):
    """An affine map from the latents of generator A to those of generator B, and one back.

    Args:
        source_shape: shape of a latent of A.
        target_shape: of a latent of B.
        provenance: JSON primitives; `source` and `target` say which generators, see `lcg.transfer.pairs`.
    """

    source_mean: Tensor
    target_mean: Tensor
    there: Tensor
    back: Tensor

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.source_shape, self.target_shape = tuple(source_shape), tuple(target_shape)
        self.provenance = dict(provenance or {})
        source, target = math.prod(source_shape), math.prod(target_shape)
        self.register_buffer("source_mean", torch.zeros(source))
        self.register_buffer("target_mean", torch.zeros(target))
        self.register_buffer("there", torch.zeros(source, target))
        self.register_buffer("back", torch.zeros(target, source))

    def forward(self, z: Tensor) -> Tensor:
        """Latents of B (N, *target_shape) for raw latents of A (N, *source_shape). Raises ValueError for others."""
        check_shape(z, self.source_shape, "the source")
        z_b = self.target_mean + (z.flatten(1) - self.source_mean) @ self.there
        return z_b.unflatten(1, self.target_shape)

    def inverse(self, z: Tensor) -> Tensor:
        """Latents of A (N, *source_shape) for raw latents of B (N, *target_shape). Raises ValueError for others."""
        check_shape(z, self.target_shape, "the target")
        z_a = self.source_mean + (z.flatten(1) - self.target_mean) @ self.back
        return z_a.unflatten(1, self.source_shape)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a safetensors file; in float64, as `save_weights` halves the precision of matrices in float32."""
        config = {"source_shape": list(self.source_shape), "target_shape": list(self.target_shape)}
        save_weights(path, copy.deepcopy(self).double(), config, self.provenance)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> LatentMap:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds something else.
        """
        state, config, provenance = load_weights(path)
        try:
            found = cls(config["source_shape"], config["target_shape"], provenance)
            found.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{path} does not hold a map between latents ({error}); make one with `lcg transfer`"
            ) from error
        return found.requires_grad_(False)


def check_shape(z: Tensor, shape: tuple[int, ...], whose: str) -> None:
    """Raises ValueError unless z is (N, *shape)."""
    if tuple(z.shape[1:]) != shape:
        raise ValueError(
            f"`z` must be latents of {whose} of the map, of shape {shape}, got {tuple(z.shape[1:])}; "
            "use the generators that the map was fitted for"
        )


def fit_map(
    z_a: Tensor,
    z_b: Tensor,
    how: How = "ridge",
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    provenance: Mapping[str, Any] | None = None,
) -> LatentMap:
    """The map between two generators' latents of the same images.

    Args:
        z_a: raw latents of A (N, *source_shape).
        z_b: raw latents of B (N, *target_shape), of the same images in the same order.
        how: see `lcg.transfer.solvers`.
        strengths: of regularisation, among which cross-validation chooses, each way for itself.
        folds: of cross-validation.
        provenance: kept with the map; what was chosen is added.

    Raises:
        ValueError: the numbers of latents differ, there are fewer than two for each fold, one is not finite, or an
            argument is out of range.
    """
    if how not in HOW:
        raise ValueError(f"`how` must be one of {', '.join(HOW)}, got {how!r}; choose one")
    if folds < 2 or not strengths or min(strengths) < 0:
        raise ValueError(f"`folds` must be >= 2 and `strengths` >= 0, got {folds} and {list(strengths)}; change them")
    if len(z_a) != len(z_b) or len(z_a) < 2 * folds:
        raise ValueError(
            f"a map is learnt from pairs, at least {2 * folds} of them for {folds} folds, got {len(z_a)} latents of "
            f"one generator and {len(z_b)} of the other; encode the same images with both"
        )
    for name, z in (("z_a", z_a), ("z_b", z_b)):
        if not bool(torch.isfinite(z).all()):
            raise ValueError(f"`{name}` must be finite, got NaN or infinity; leave those pairs out")
    if how == "procrustes":
        strengths = (0.0,)
    found = LatentMap(z_a.shape[1:], z_b.shape[1:])
    x, y = z_a.flatten(1).double(), z_b.flatten(1).double()
    there, forth = strongest(x, y, how, strengths, folds)
    back, forback = strongest(y, x, how, strengths, folds)
    fitted = {"how": how, "pairs": len(x), "folds": folds, "there": forth, "back": forback}
    found.provenance = {**(provenance or {}), "fit": fitted}
    state = {"source_mean": x.mean(0), "target_mean": y.mean(0), "there": there, "back": back}
    found.load_state_dict(state)
    return found.requires_grad_(False)


def strongest(x: Tensor, y: Tensor, how: How, strengths: Sequence[float], folds: int) -> tuple[Tensor, dict[str, Any]]:
    """M of all pairs with the strength whose R^2 on the folds left out is highest, and that choice."""
    fold = torch.arange(len(x)) % folds  # pairs come in no order; a caller whose pairs do has to shuffle them
    scores = [sum(_left_out(x, y, fold == k, how, strength) for k in range(folds)) / folds for strength in strengths]
    best = max(range(len(strengths)), key=scores.__getitem__)
    told = {"strength": strengths[best], "r2_left_out": scores[best]}
    return _solved(x, y, how, strengths[best]), told


def _left_out(x: Tensor, y: Tensor, out: Tensor, how: How, strength: float) -> float:
    kept_x, kept_y = x[~out], y[~out]
    predicted = kept_y.mean(0) + (x[out] - kept_x.mean(0)) @ _solved(kept_x, kept_y, how, strength)
    return r2(y[out], predicted, kept_y.mean(0))


def _solved(x: Tensor, y: Tensor, how: How, strength: float) -> Tensor:
    """M, of pairs not centred yet."""
    x, y = x - x.mean(0), y - y.mean(0)
    if how == "relative":
        x, y = x[:MOST_ANCHORS], y[:MOST_ANCHORS]
    return SOLVERS[how](x, y, strength)


def r2(true: Tensor, predicted: Tensor, mean: Tensor | None = None) -> float:
    """1 - sum |true - predicted|^2 / sum |true - mean|^2, in (-inf, 1]; of rows (N, ...)."""
    true, predicted = true.double(), predicted.double()
    mean = true.mean(0) if mean is None else mean
    return float(1 - (true - predicted).square().sum() / (true - mean).square().sum())


def r2_of_attributes(z: Tensor, predicted: Tensor, labels: Tensor, strength: float = 1e-3) -> Tensor:
    """R^2 along the direction that tells each attribute from the latents.

    The direction of label y is that of its least-squares fit, w = (Z^T Z + lambda I)^-1 Z^T (y - mean); for a binary
    label that of Fisher's linear discriminant.

    Args:
        z: true latents (N, D).
        predicted: of the same images, (N, D).
        labels: (N, K), binary or continuous, NaN where missing.
        strength: lambda as a share of the largest eigenvalue.

    Returns:
        (K,) in (-inf, 1]; NaN where fewer than ten labels are known, or all are alike.
    """
    z, predicted, found = z.double(), predicted.double(), []
    for y in labels.to(z).T:
        known = ~y.isnan()
        if int(known.sum()) < 10 or bool((y[known] == y[known][0]).all()):
            found.append(math.nan)
            continue
        rows = z[known] - z[known].mean(0)
        w = regularised(rows, strength) @ (y[known] - y[known].mean())
        found.append(r2(z @ w, predicted @ w))
    return torch.tensor(found)

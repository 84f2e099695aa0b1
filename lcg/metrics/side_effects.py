"""Side effects: which attributes an edit changes that it does not name, and whether the subject is still the same.

The matrix has a row per edited attribute e and a column per attribute a,

    S[e, a] = share of the sources whose a is not what it was after an edit of e,   NaN where the edit sets a free,

by the judge's labels and with the rules of `lcg.metrics.preservation.kept`: a row is 0 exactly where `kept` holds for
every source. Large entries tell which attributes a method entangles, which one share of kept sources cannot.

Disentangled edit strength subtracts what an edit breaks from what it brings about,

    DES_e = gain_e - max_a S[e, a],      gain_e = share with the wanted value after - share with it before,

or the mean over a in place of the maximum; DES is its mean over e. The name and the idea are of LACE (Nie, Vahdat &
Anandkumar 2021, arXiv:2110.10873, experiments on sequential editing), which computes the metric in no public code.
The formula above is this package's reading: its form was not checked against the paper's, and figures that are
published under this name need not be comparable.

Identity is the cosine of two embeddings of the image, before and after, by whatever network recognises the subject
(for faces one trained for recognition, such as Deng et al. 2019, arXiv:1801.07698; LACE reports 1 - cosine).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lcg.schema import Schema, unknown_name


@dataclass(frozen=True, eq=False)
class SideEffects:
    """What edits have changed beside what they name.

    Attributes:
        edited: E names, the rows.
        attributes: A names of binary and categorical attributes, the columns.
        share: (E, A) float64 in [0, 1], NaN where the edit sets the attribute free or no source counts.
        count: (E, A) int64, on how many sources a share rests; 0 where it is NaN.
    """

    edited: tuple[str, ...]
    attributes: tuple[str, ...]
    share: Tensor
    count: Tensor


def side_effects(
    schema: Schema, edits: Mapping[str, tuple[Float[Tensor, "n attributes"], Float[Tensor, "n attributes"]]]
) -> SideEffects:
    """The matrix S of a method that has edited one attribute at a time.

    A label that is missing on both sides has not changed; one that is missing on one side has. Of a detail that only
    applies to some images, those sources count to which it applies before and after.

    Args:
        schema: the columns of the labels.
        edits: for each edited attribute the labels (N, A) of the sources and of the results, on one device; each edit
            may have sources of its own. Continuous attributes may be edited, but are no columns: there change is a
            matter of degree.

    Returns:
        The matrix, with rows in the order of `edits`, on the CPU.

    Raises:
        ValueError: no edits, an unknown attribute, or labels whose shapes differ from each other or from the schema.
    """
    if not edits:
        raise ValueError("`edits` must name at least one edited attribute, got none; edit something first")
    changed, count = zip(*(changes(schema, name, *labels) for name, labels in edits.items()), strict=True)
    n = torch.stack(count).cpu()
    columns = tuple(attribute.name for attribute in schema.of_kind("binary", "categorical"))
    return SideEffects(tuple(edits), columns, torch.stack(changed).cpu().double() / n, n)


def changes(
    schema: Schema, edited: str, before: Float[Tensor, "n attributes"], after: Float[Tensor, "n attributes"]
) -> tuple[Int[Tensor, " columns"], Int[Tensor, " columns"]]:
    """How many sources each attribute has changed on, and on how many it counts: a row of S as sums.

    Args:
        schema: the columns of the labels.
        edited: the attribute that was edited.
        before: (N, A) labels of the sources.
        after: (N, A) labels of the results.

    Returns:
        Two (K,) int64 over the binary and categorical attributes, 0 for those that the edit sets free.

    Raises:
        ValueError: an unknown attribute, or labels whose shapes differ from each other or from the schema.
    """
    freed = schema.freed_by((edited,))
    if before.ndim != 2 or before.shape[1] != len(schema) or after.shape != before.shape:
        raise ValueError(
            f"`edits[{edited!r}]` must be labels of sources and results, both (N, {len(schema)}), a column per "
            f"attribute, got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    columns = schema.of_kind("binary", "categorical")
    changed = torch.zeros(len(columns), dtype=torch.int64, device=before.device)
    count = torch.zeros_like(changed)
    for column, attribute in enumerate(columns):
        if attribute.name in freed:
            continue
        old, new = before[:, schema.index(attribute.name)], after[:, schema.index(attribute.name)]
        differs = ~((old == new) | (old.isnan() & new.isnan()))
        counts = ~(old.isnan() | new.isnan()) if attribute.applies_if else torch.ones_like(differs)
        changed[column], count[column] = (differs & counts).sum(), counts.sum()
    return changed, count


def accuracy_gain(before: Float[Tensor, " n"], after: Float[Tensor, " n"], wanted: float) -> float:
    """How many more of the sources have the wanted value of the edited attribute after the edit than before.

    Args:
        before: (N,) labels of the edited attribute on the sources; a missing one (NaN) is not as wanted.
        after: (N,) labels on the results.
        wanted: the label that was asked for: 0 or 1, or the index of a categorical value.

    Returns:
        Difference of two shares, in [-1, 1].

    Raises:
        ValueError: labels that are empty or not both (N,), or a wanted label that is NaN.
    """
    if before.ndim != 1 or after.shape != before.shape or not len(before):
        raise ValueError(
            "`before` and `after` must both be (N,) with N >= 1, the column of the edited attribute, "
            f"got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    if wanted != wanted:
        raise ValueError("`wanted` must be the label that was asked for, got nan; leave out edits without a target")
    return (int((after == wanted).sum()) - int((before == wanted).sum())) / len(before)


def disentangled_edit_strength(
    effects: SideEffects, gains: Mapping[str, float], loss: Literal["max", "mean"] = "max"
) -> dict[str, float]:
    """DES_e of every edit: what it brings about less what it breaks; the method's DES is the mean of them.

    Args:
        effects: see `side_effects`.
        gains: for each edited attribute its gain in [-1, 1], see `accuracy_gain`.
        loss: what is subtracted: the largest or the mean share over the attributes that the edit does not set free; 0
            where it sets all free.

    Returns:
        Edited attribute to DES, in [-2, 1]; 1 for an edit that always works and never changes anything else.

    Raises:
        ValueError: gains of other edits than those of the matrix, a gain out of range, or an unknown `loss`.
    """
    if loss not in ("max", "mean"):
        raise unknown_name("loss", loss, ("max", "mean"), "`disentangled_edit_strength`")
    if set(gains) != set(effects.edited):
        raise ValueError(
            f"`gains` must be of the edits of the matrix, {', '.join(effects.edited)}, got {', '.join(gains) or 'none'}"
        )
    strength = {}
    for name, shares in zip(effects.edited, effects.share, strict=True):
        if not -1 <= gains[name] <= 1:
            raise ValueError(
                f"`gains[{name!r}]` must be a difference of shares in [-1, 1], got {gains[name]}; see `accuracy_gain`"
            )
        others = shares[~shares.isnan()]
        cost = 0.0 if not len(others) else float(others.max() if loss == "max" else others.mean())
        strength[name] = gains[name] - cost
    return strength


def cosine_similarity(before: Float[Tensor, "n dim"], after: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
    """Cosine of the angle between embeddings, row by row.

    Args:
        before: (N, D) embeddings of the sources, of any length but zero.
        after: (N, D) embeddings of the results.

    Returns:
        (N,) float64 in [-1, 1], 1 where the direction is the same.

    Raises:
        ValueError: shapes that differ or are not (N, D), or an embedding that is zero or not finite.
    """
    if before.ndim != 2 or after.shape != before.shape:
        raise ValueError(
            "`before` and `after` must both be embeddings (N, D), a row per image, "
            f"got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    directions = []
    for name, x in (("before", before), ("after", after)):
        x = x.detach().double()
        if not bool(x.isfinite().all()) or bool((x == 0).all(dim=1).any()):
            raise ValueError(
                f"`{name}` must be finite embeddings other than zero, got a row without a direction; "
                "check that the extractor finds the subject"
            )
        x = x / x.abs().amax(dim=1, keepdim=True)  # squares of tiny or huge entries would vanish or overflow
        directions.append(x / x.norm(dim=1, keepdim=True))
    return (directions[0] * directions[1]).sum(dim=1).clamp(-1, 1)


def identity_similarity(
    extract: Callable[[Tensor], Tensor],
    x_before: Float[Tensor, "n channels height width"],
    x_after: Float[Tensor, "n channels height width"],
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """How alike the subjects of two images are to a network that recognises them.

    Args:
        extract: maps images (B, C, H, W) in [-1, 1] to embeddings (B, D), without dependence between rows (a network in
            eval mode); whatever size or range it needs otherwise, it makes itself.
        x_before: (N, C, H, W) sources in [-1, 1], N >= 1.
        x_after: (N, C, H, W) results in [-1, 1].
        batch_size: images that are embedded at once, >= 1.

    Returns:
        (N,) float64 in [-1, 1].

    Raises:
        ValueError: images of different shapes or none, a batch size below 1, or embeddings that are not (B, D), zero,
            or not finite.
    """
    if x_before.ndim != 4 or x_after.shape != x_before.shape or not len(x_before):
        raise ValueError(
            "`x_before` and `x_after` must be (N, C, H, W) of one shape, N >= 1, "
            f"got {tuple(x_before.shape)} and {tuple(x_after.shape)}"
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
    with torch.no_grad():
        parts = zip(x_before.split(batch_size), x_after.split(batch_size), strict=True)
        return torch.cat([cosine_similarity(_embedded(extract, old), _embedded(extract, new)) for old, new in parts])


def _embedded(extract: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    embedding = extract(x)
    if embedding.ndim != 2 or len(embedding) != len(x):
        raise ValueError(
            f"`extract` must give embeddings ({len(x)}, D), a row per image, got {tuple(embedding.shape)}; flatten or "
            "pool them"
        )
    return embedding

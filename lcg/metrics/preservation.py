"""Preservation: what an edit must not change, seen by the judge and in the pixels.

    success = edit present and everything else kept and |x_after - x_before| <= 0.03 outside the edited region

An edit sets free the attributes that it names and their details (`Schema.freed_by`): who gets glasses cannot keep the
style of none. The pixel term catches what no attribute has a name for.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lcg.schema import Kind, Schema, unknown_name


def kept(
    schema: Schema,
    before: Float[Tensor, "n attributes"],
    after: Float[Tensor, "n attributes"],
    edited: Iterable[str],
    kinds: tuple[Kind, ...] = ("binary",),
) -> Bool[Tensor, " n"]:
    """Whether every attribute that an edit does not set free is as it was.

    A label that is missing on both sides agrees; one that is missing on one side does not. Of the details only those
    count that apply both before and after: when a hat appears that nobody asked for, the hat is the fault, not that its
    wearer has no hair colour any more.

    Args:
        schema: the columns.
        before: (N, A) labels of the sources.
        after: (N, A) labels of the results.
        edited: the attributes that the edits name.
        kinds: which attributes count, `("binary",)` for the metric kept, `("binary", "categorical")` for kept_fine.

    Returns:
        (N,), True where nothing counts.

    Raises:
        ValueError: shapes that differ from each other or from the schema, an unknown attribute, or a kind that is
            unknown or continuous, as there agreement is a matter of degree.
    """
    for name, labels in (("before", before), ("after", after)):
        if labels.shape != (len(before), len(schema)):
            raise ValueError(
                f"`{name}` must be ({len(before)}, {len(schema)}), a row per image and a column per attribute, "
                f"got {tuple(labels.shape)}"
            )
    for kind in kinds:
        if kind not in ("binary", "categorical"):
            raise unknown_name("kind", kind, ("binary", "categorical"), "what can be kept exactly")
    freed = schema.freed_by(edited)
    result = torch.ones(len(before), dtype=torch.bool, device=before.device)
    for attribute in schema.of_kind(*kinds):
        if attribute.name in freed:
            continue
        old, new = before[:, schema.index(attribute.name)], after[:, schema.index(attribute.name)]
        agrees = (old == new) | (old.isnan() & new.isnan())
        if attribute.applies_if:
            agrees |= old.isnan() | new.isnan()
        result &= agrees
    return result


def l1_outside(
    x_before: Float[Tensor, "n channels height width"],
    x_after: Float[Tensor, "n channels height width"],
    region: Bool[Tensor, "n height width"],
) -> Float[Tensor, " n"]:
    """Mean absolute difference over the pixels outside a region.

    Args:
        x_before: (N, C, H, W) sources in [-1, 1].
        x_after: (N, C, H, W) results in [-1, 1].
        region: (N, H, W) bool, where the edit may change the image.

    Returns:
        (N,) float64 in [0, 1], in units of the range from black to white (half of that in x); 0 where the region is the
        whole image, as nothing lies outside.

    Raises:
        ValueError: shapes that differ.
        TypeError: a region that is not bool.
    """
    if x_before.ndim != 4 or x_after.shape != x_before.shape:
        raise ValueError(
            "`x_before` and `x_after` must be (N, C, H, W) of one shape, "
            f"got {tuple(x_before.shape)} and {tuple(x_after.shape)}"
        )
    n, channels, *size = x_before.shape
    if tuple(region.shape) != (n, *size):
        raise ValueError(f"`region` must be {(n, *size)}, a map per image, got {tuple(region.shape)}")
    if region.dtype != torch.bool:
        raise TypeError(f"`region` must be bool, got {region.dtype}")
    difference = (x_after.double() - x_before.double()).abs() / 2
    outside = ~region[:, None]
    pixels = outside.sum(dim=(1, 2, 3))
    return torch.where(outside, difference, 0.0).sum(dim=(1, 2, 3)) / (channels * pixels).clamp(min=1)


def edit_success(
    present: Bool[Tensor, " n"], kept: Bool[Tensor, " n"], l1: Float[Tensor, " n"] | None, bound: float = 0.03
) -> Bool[Tensor, " n"]:
    """Whether edits succeeded: what was asked for is there, all else is kept, and the pixels outside hardly changed.

    Args:
        present: (N,) bool, all edits hold in the result by the judge.
        kept: (N,) bool, see `kept`.
        l1: (N,) see `l1_outside`; NaN is a failure. None where nobody knows which pixels an edit may change: success is
            then judged by the attributes alone.
        bound: the largest mean absolute difference that counts as unchanged, in [0, 1].

    Returns:
        (N,) bool.

    Raises:
        ValueError: shapes that differ, or a bound out of range.
        TypeError: truth values that are not bool.
    """
    for name, value in (("present", present), ("kept", kept)):
        if value.dtype != torch.bool:
            raise TypeError(f"`{name}` must be bool, got {value.dtype}")
    shapes = [tuple(value.shape) for value in (present, kept, l1) if value is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"`present`, `kept` and `l1` must have one shape (N,), got {', '.join(map(str, shapes))}")
    if not 0 <= bound <= 1:
        raise ValueError(f"`bound` must be in [0, 1], got {bound}")
    return present & kept if l1 is None else present & kept & (l1 <= bound)

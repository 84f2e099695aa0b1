"""Accuracy of attributes, and shares with their standard error.

Joint accuracy, the share of samples that satisfy a whole formula, is `proportion(formula.holds(judged_labels))`.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lcg.schema import Schema


def attribute_accuracy(
    schema: Schema, predicted: Float[Tensor, "n attributes"], wanted: Float[Tensor, "n attributes"]
) -> dict[str, tuple[float, int]]:
    """How often each binary and categorical attribute is as wanted.

    Args:
        schema: the columns.
        predicted: (N, A) labels of the samples; a missing one (NaN) is wrong where another is wanted.
        wanted: (N, A) labels asked for, NaN where anything will do: such rows are not counted.

    Returns:
        Name to (share in [0, 1], number of rows counted); the share is NaN where no row counts. Continuous attributes
        are passed over: for them equality means nothing.

    Raises:
        ValueError: shapes that differ from each other or from the schema.
    """
    for name, labels in (("predicted", predicted), ("wanted", wanted)):
        if labels.shape != (len(wanted), len(schema)):
            raise ValueError(
                f"`{name}` must be ({len(wanted)}, {len(schema)}), a row per sample and a column per attribute, "
                f"got {tuple(labels.shape)}"
            )
    accuracy = {}
    for attribute in schema.of_kind("binary", "categorical"):
        column = schema.index(attribute.name)
        counts = ~wanted[:, column].isnan()
        right = int((predicted[:, column] == wanted[:, column])[counts].sum())  # NaN equals nothing
        n = int(counts.sum())
        accuracy[attribute.name] = (right / n if n else math.nan, n)
    return accuracy


def proportion(hits: Bool[Tensor, " n"]) -> tuple[float, float]:
    """The share p of hits and its binomial standard error sqrt(p (1 - p) / N).

    The standard error of 0 or N hits is 0, though N hits do not prove certainty: with N = 300, p may still be 0.99.

    Args:
        hits: (N,) bool.

    Returns:
        (p, standard error).

    Raises:
        TypeError: hits that are not bool.
        ValueError: hits that are empty or not one-dimensional.
    """
    if hits.dtype != torch.bool:
        raise TypeError(f"`hits` must be bool, got {hits.dtype}; compare with a threshold first")
    if hits.ndim != 1 or not len(hits):
        raise ValueError(f"`hits` must be (N,) with N >= 1, got shape {tuple(hits.shape)}")
    n = len(hits)
    p = int(hits.sum()) / n
    return p, math.sqrt(p * (1 - p) / n)

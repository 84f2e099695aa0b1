"""Accuracy of attributes, and shares with their standard error.

Joint accuracy, the share of samples that satisfy a whole formula, is `proportion(formula.holds(judged_labels))`.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lcg.schema import Schema


def right_labels(
    schema: Schema, predicted: Float[Tensor, "n attributes"], wanted: Float[Tensor, "n attributes"]
) -> tuple[Bool[Tensor, "n columns"], Bool[Tensor, "n columns"]]:
    """Which labels are as wanted, and which count.

    Args:
        schema: the columns.
        predicted: (N, A) labels of the samples; a missing one (NaN) is wrong where another is wanted.
        wanted: (N, A) labels asked for, NaN where anything will do: such labels do not count.

    Returns:
        (right, counts), both (N, K + 1): a column for each of the K binary and categorical attributes, in schema order,
        and a last one for the binary attributes together, which are right when all that count are, and count when one
        does. Continuous attributes are passed over: for them equality means nothing.

    Raises:
        ValueError: shapes that differ from each other or from the schema.
    """
    for name, labels in (("predicted", predicted), ("wanted", wanted)):
        if labels.shape != (len(wanted), len(schema)):
            raise ValueError(
                f"`{name}` must be ({len(wanted)}, {len(schema)}), a row per sample and a column per attribute, "
                f"got {tuple(labels.shape)}"
            )
    attributes = schema.of_kind("binary", "categorical")
    columns = [schema.index(attribute.name) for attribute in attributes]
    binary = [j for j, attribute in enumerate(attributes) if attribute.kind == "binary"]
    counts = ~wanted[:, columns].isnan()
    right = counts & (predicted[:, columns] == wanted[:, columns])  # NaN equals nothing
    together = counts[:, binary].any(1)
    all_right = together & (right | ~counts)[:, binary].all(1)
    return torch.column_stack((right, all_right)), torch.column_stack((counts, together))


def attribute_accuracy(
    schema: Schema, predicted: Float[Tensor, "n attributes"], wanted: Float[Tensor, "n attributes"]
) -> dict[str, tuple[float, int]]:
    """How often each binary and categorical attribute is as wanted; see `right_labels`.

    Args:
        schema: the columns.
        predicted: (N, A) labels of the samples.
        wanted: (N, A) labels asked for, NaN where anything will do.

    Returns:
        Name to (share in [0, 1], number of rows counted); the share is NaN where no row counts.

    Raises:
        ValueError: shapes that differ from each other or from the schema.
    """
    right, counts = right_labels(schema, predicted, wanted)
    names = (attribute.name for attribute in schema.of_kind("binary", "categorical"))
    # The last column is not an attribute's.
    return {name: _share(*pair) for name, *pair in zip(names, right.sum(0), counts.sum(0), strict=False)}


def joint_accuracy(
    schema: Schema, predicted: Float[Tensor, "n attributes"], wanted: Float[Tensor, "n attributes"]
) -> tuple[float, int]:
    """How often all binary attributes together are as wanted, and on how many rows; arguments as above.

    Example:
        >>> from lcg.schema import Attribute
        >>> schema = Schema((Attribute("hat"), Attribute("smile")))
        >>> predicted = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        >>> wanted = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, torch.nan]])
        >>> share, n = joint_accuracy(schema, predicted, wanted)
        >>> round(share, 3), n
        (0.667, 3)
    """
    right, counts = right_labels(schema, predicted, wanted)
    return _share(right[:, -1].sum(), counts[:, -1].sum())


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

    Example:
        >>> p, stderr = proportion(torch.tensor([True] * 90 + [False] * 10))
        >>> round(p, 3), round(stderr, 3)
        (0.9, 0.03)
    """
    if hits.dtype != torch.bool:
        raise TypeError(f"`hits` must be bool, got {hits.dtype}; compare with a threshold first")
    if hits.ndim != 1 or not len(hits):
        raise ValueError(f"`hits` must be (N,) with N >= 1, got shape {tuple(hits.shape)}")
    n = len(hits)
    p = int(hits.sum()) / n
    return p, math.sqrt(p * (1 - p) / n)


def _share(right: Tensor, counts: Tensor) -> tuple[float, int]:
    n = int(counts)
    return (int(right) / n if n else math.nan, n)

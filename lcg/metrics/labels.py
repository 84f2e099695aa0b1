"""What tables of labels must look like before they are counted."""

from __future__ import annotations

from torch import Tensor

from lcg.schema import Schema


def check_labels(schema: Schema, **labels: Tensor) -> None:
    """Refuses tables of labels that are not (N, A) floating point, all with the same N.

    Args:
        schema: the columns.
        **labels: tables by the name of the argument that they came as.

    Raises:
        TypeError: labels that are not floating point.
        ValueError: labels of another shape.
    """
    n = len(next(iter(labels.values())))
    for name, table in labels.items():
        if not table.is_floating_point():
            raise TypeError(f"`{name}` must be floating point, with NaN where unknown, got {table.dtype}; use .float()")
        if table.shape != (n, len(schema)):
            raise ValueError(
                f"`{name}` must be ({n}, {len(schema)}), a row per image and a column per attribute, "
                f"got {tuple(table.shape)}"
            )

"""What every row of a latent store must be; asked before it is stored, and again by whoever doubts a store."""

from __future__ import annotations

import numpy as np

from lcg.schema import Schema


def check_latents(latents: np.ndarray, index: np.ndarray, dtype: str | None = None) -> None:
    """Raises ValueError when a latent (n, *latent_shape) is not finite, naming its row and its sample.

    Args:
        latents: what is asked about.
        index: (n,), the samples' numbers.
        dtype: for the message, the type that they were rounded to; the array's when None.
    """
    bad = ~np.isfinite(latents).reshape(len(latents), -1).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"latent of row {row} (sample {index[row]}) is not finite in {dtype or latents.dtype}, and "
            f"{int(bad.sum())} of {len(latents)} rows are not; look at that sample's image and at the encoder's range"
        )


def check_labels(labels: np.ndarray, schema: Schema, index: np.ndarray) -> None:
    """Raises ValueError when a label (n, A) does not fit its attribute, naming attribute, row and sample."""
    for column, attribute in zip(labels.T, schema, strict=True):
        if attribute.kind == "continuous":
            bad, expected = np.isinf(column), "a finite number"
        else:
            top = 1 if attribute.kind == "binary" else len(attribute.values) - 1
            bad = ~((column >= 0) & (column <= top) & (column == np.floor(column)))
            expected = f"a whole number in [0, {top}]"
        bad &= ~np.isnan(column)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"label {attribute.name!r} of row {row} (sample {index[row]}) must be {expected}, or NaN when it is "
                f"not known; got {column[row]}"
            )


def check_index(index: np.ndarray, last: int) -> None:
    """Raises ValueError unless the indices (n,) increase strictly and start above `last`."""
    steps = np.diff(index, prepend=np.int64(last))
    if (steps <= 0).any():
        row = int((steps <= 0).argmax())
        before = last if row == 0 else index[row - 1]
        raise ValueError(
            f"`index` must increase strictly, got {index[row]} after {before}, row {row}; sort the samples"
        )

"""Targets row by row: one evaluation of the networks serves rows of which each asks for something else.

A readout (`lcg.guidance.terms`) gives log p(what is asked | z_t) of every row of a batch. `EachRow` gives row b that of
the readout r_b,

    log p_b = log p(what readout r_b asks | z_t of row b),

so that the images of several formulas are made in one call. Nets are what costs time, and they are evaluated once on
all rows; each readout sees the outputs of its own rows only. Rows know nothing of each other, so that every row's value
and gradient are what they would be alone.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lcg.guidance.terms import Readout
from lcg.nets.heads import Outputs, of_each_tensor, tensors


class EachRow:
    """The readout whose row b is read by `readouts[rows[b]]`.

    What depends on `rows` is computed here, once: while sampling no value is looked at, as CUDA graphs require.

    Args:
        readouts: what is asked. One that has something for each row, such as labels (B, A), has it for its own rows,
            in their order.
        rows: (B,) integers, the number of each row's readout; on the device of the outputs.

    Raises:
        TypeError: `rows` are not integers.
        ValueError: no rows, or a number that no readout has; when called, outputs of another number of rows.
    """

    def __init__(self, readouts: Sequence[Readout], rows: Int[Tensor, " batch"]) -> None:
        if rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
            raise TypeError(f"`rows` must be integers, the number of each row's readout, got {rows.dtype}")
        if rows.ndim != 1 or not len(rows):
            raise ValueError(f"`rows` must be one number for each of at least one row, got shape {tuple(rows.shape)}")
        lowest, highest = int(rows.min()), int(rows.max())
        if lowest < 0 or highest >= len(readouts):
            raise ValueError(
                f"`rows` must be numbers of the {len(readouts)} readouts, from 0, got {lowest} to {highest}; "
                "give every row the position of its readout"
            )
        counts = torch.bincount(rows, minlength=len(readouts)).tolist()
        self.readouts = [readout for readout, count in zip(readouts, counts, strict=True) if count]
        self._counts: list[int] = [count for count in counts if count]
        self._sorted = rows.argsort(stable=True)  # the rows of a readout next to each other, in their order
        self._back = self._sorted.argsort()

    def __call__(self, outputs: Outputs) -> Float[Tensor, " batch"]:
        rows = len(next(tensors(outputs))[1])
        if rows != len(self._back):
            raise ValueError(f"`rows` must be one for each of the {rows} latents, got {len(self._back)}")
        if len(self.readouts) == 1:
            return self.readouts[0](outputs)
        # One selection and one split of each tensor: the way back is then as short, however many readouts there are.
        cut = {output: output.index_select(0, self._sorted).split(self._counts) for _, output in tensors(outputs)}

        def own(number: int) -> Outputs:
            return of_each_tensor(outputs, lambda output: cut[output][number])

        read = [readout(own(number)) for number, readout in enumerate(self.readouts)]
        return torch.cat(read).index_select(0, self._back)

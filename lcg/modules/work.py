"""Numbered pieces of work under `Trainer.predict`: each is done once, by one of however many ranks there are.

A piece is done when it says so, whoever did it and when, so that a job which was stopped does what is missing. What is
missing is decided by the first rank and told to the others: looking for themselves, at other moments, they would see
other things and leave gaps. Rank r of W does the pieces r, r + W, r + 2 W, ... of those that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset


class Numbers(IterableDataset[int]):
    """A list of numbers as a data set without a length: Lightning refuses one that is empty on some rank only."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


class WorkModule(LightningModule):
    """Does pieces of work; nothing is trained.

    Args:
        missing: the numbers of the pieces that are not done yet; asked on the first rank only.
        do: does a piece.
        begin: is told how many pieces there are for this rank before the first one.
    """

    def __init__(
        self,
        missing: Callable[[], Sequence[int]],
        do: Callable[[int], None],
        begin: Callable[[Sequence[int]], None] = lambda own: None,
    ) -> None:
        super().__init__()
        self.missing, self.do, self.begin = missing, do, begin

    def predict_dataloader(self) -> DataLoader[int]:
        strategy, rank = self.trainer.strategy, self.trainer.global_rank
        missing: list[int] = strategy.broadcast(list(self.missing()) if rank == 0 else [])
        own = missing[rank :: self.trainer.world_size]
        self.begin(own)
        return DataLoader(Numbers(own), batch_size=1)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Does one piece; batch: (1,) int64, its number, which is returned."""
        self.do(int(batch))
        return batch

    def on_predict_end(self) -> None:
        self.trainer.strategy.barrier()  # what others did is there when this rank goes on

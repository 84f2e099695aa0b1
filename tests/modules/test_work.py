"""Numbered pieces of work, on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytorch_lightning import Trainer

from lcg.modules.work import WorkModule


def trainer(devices: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",  # processes that need not import everything again
        inference_mode=False,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Diary(WorkModule):
    """Appends what each rank does to a file of its own."""

    def __init__(self, folder: Path, missing: list[int]) -> None:
        super().__init__(lambda: missing, self.note, self.hear)
        self.folder = folder

    def note(self, number: int) -> None:
        with (self.folder / f"done-{self.trainer.global_rank}").open("a") as file:
            file.write(f"{number}\n")

    def hear(self, own) -> None:
        (self.folder / f"own-{self.trainer.global_rank}").write_text("".join(f"{number}\n" for number in own))


def read(folder: Path, what: str, ranks: int) -> list[list[int]]:
    paths = [folder / f"{what}-{rank}" for rank in range(ranks)]
    return [[int(line) for line in path.read_text().split()] if path.is_file() else [] for path in paths]


@pytest.mark.parametrize("missing", [[], [3], [4, 2, 9, 0]])
def test_one_rank_does_everything_in_order(tmp_path: Path, missing: list[int]) -> None:
    trainer(1).predict(Diary(tmp_path, missing), return_predictions=False)
    assert read(tmp_path, "done", 1) == read(tmp_path, "own", 1) == [missing]


@pytest.mark.parametrize("missing", [[], [3], [4, 2, 9, 0, 7]])
def test_each_rank_does_every_other_piece_and_one_may_have_none(tmp_path: Path, missing: list[int]) -> None:
    trainer(2).predict(Diary(tmp_path, missing), return_predictions=False)
    assert read(tmp_path, "done", 2) == read(tmp_path, "own", 2) == [missing[0::2], missing[1::2]]


def test_what_is_missing_is_what_the_first_rank_misses(tmp_path: Path) -> None:
    class Partial(Diary):
        """Ranks that would see different things."""

        def __init__(self, folder: Path) -> None:
            super().__init__(folder, [])
            self.missing = lambda: [0, 1, 2, 3] if self.trainer.global_rank == 0 else [8, 9]

    trainer(2).predict(Partial(tmp_path), return_predictions=False)
    assert read(tmp_path, "done", 2) == [[0, 2], [1, 3]]


def test_a_rank_goes_on_when_the_others_have_finished(tmp_path: Path) -> None:
    """Rank 0 has nothing to do after its first piece, and still finds what rank 1 made."""

    class Slow(Diary):
        def note(self, number: int) -> None:
            if self.trainer.global_rank == 1:
                import time

                time.sleep(0.5)
            super().note(number)

        def on_predict_end(self) -> None:
            super().on_predict_end()
            if self.trainer.global_rank == 0:
                (self.folder / "seen").write_text(str((self.folder / "done-1").is_file()))

    trainer(2).predict(Slow(tmp_path, [0, 1]), return_predictions=False)
    assert (tmp_path / "seen").read_text() == "True"

"""Work in pieces: each leaves one file, so a piece whose file is there is done.

Pieces are made by any number of ranks, see `lcg.modules.work`; one rank alone makes them without Lightning, whose
import would take longer than a small job. Files are written whole or not at all, so a job may be killed at any moment:
started again, by as many ranks as it likes, it makes the files that are missing. As a piece is made of the same samples
whoever makes it, the results are the same.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from tqdm import tqdm

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

LAUNCHED = {"torchrun": ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"), "srun": ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")}
"""What tells that a launcher has started this process, and how many others."""


@dataclass(frozen=True)
class Ranks:
    """On how many processes a job runs.

    Args:
        devices: processes on this machine, one per GPU where there are GPUs.
        nodes: machines; start the command on each, as for `lcg fit`.
        accelerator: cpu, gpu, or auto: a GPU where there is one.
    """

    devices: int = 1
    nodes: int = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        for name, value in (("devices", self.devices), ("nodes", self.nodes)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        if self.on_gpu and torch.cuda.device_count() < self.devices:
            raise ValueError(
                f"`ranks` asks for {self.devices} GPUs, this machine has {torch.cuda.device_count()}; "
                "use --ranks.accelerator cpu, or fewer devices"
            )

    @property
    def count(self) -> int:
        """Of all processes."""
        return self.devices * self.nodes

    @property
    def on_gpu(self) -> bool:
        return self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if self.on_gpu else torch.device("cpu")

    def trainer(self) -> Trainer:
        """What runs the pieces."""
        from pytorch_lightning import Trainer

        return Trainer(
            accelerator="gpu" if self.on_gpu else "cpu",
            devices=self.devices,
            num_nodes=self.nodes,
            strategy="ddp" if self.count > 1 else "auto",
            inference_mode=False,  # guidance takes gradients
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


@dataclass(frozen=True)
class Piece:
    """What is made at once.

    Args:
        kind: pieces of one kind take about the same time; for the time that is left.
        path: there when the piece is done.
        make: writes it.
    """

    kind: str
    path: Path
    make: Callable[[], None]


class Crew:
    """The ranks of a job.

    Args:
        ranks: how many.

    Attributes:
        seconds: that this rank has spent on each kind of piece.

    Raises:
        ValueError: a launcher has started several processes where `ranks` knows of one only, and each would do it all.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.seconds: dict[str, float] = {}
        for launcher, (mark, number) in LAUNCHED.items():
            started = int(os.environ.get(number, 1)) if mark in os.environ else 1
            if ranks.count == 1 < started:
                raise ValueError(
                    f"`ranks` must be the {started} processes that {launcher} has started, got 1; "
                    "say how many with --ranks.devices on each of --ranks.nodes machines"
                )

    @cached_property
    def trainer(self) -> Trainer:
        """Lightning's, which knows the other ranks."""
        with _quietly():
            return self.ranks.trainer()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that reports."""
        return self.ranks.count == 1 or bool(self.trainer.is_global_zero)

    def run(self, title: str, pieces: Sequence[Piece], shown: bool = True) -> None:
        """Makes the pieces that are missing; returns when all ranks have done theirs.

        Args:
            title: what is going on.
            pieces: all of them.
            shown: whether a bar tells how far they are; off for pieces that tell it themselves.
        """
        with Progress(title, pieces, shown=shown and self.leads) as progress:
            if self.ranks.count == 1:
                self._alone(progress)
            else:
                self._together(progress)
        for kind, seconds in progress.seconds.items():
            self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    def _alone(self, progress: Progress) -> None:
        missing = progress.missing()
        progress.begin(missing)
        with torch.no_grad():  # as `predict` has it
            for number in missing:
                progress.do(number)

    def _together(self, progress: Progress) -> None:
        from lcg.modules.work import WorkModule

        work = WorkModule(progress.missing, progress.do, progress.begin)
        with _quietly():
            self.trainer.predict(work, return_predictions=False)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what Lightning says of itself, which is meant for trainings."""
    log, told = logging.getLogger("pytorch_lightning"), logging.getLogger("pytorch_lightning").level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for about in ("GPU available", "many workers", "across ranks is zero", "LeafSpec"):
                warnings.filterwarnings("ignore", f".*{about}.*")
            yield
    finally:
        log.setLevel(told)


class Progress:
    """Does pieces and tells how long the rest will take, by what those of each kind have taken so far.

    Args:
        title: what is going on.
        pieces: all of them.
        shown: whether anybody is told.

    Attributes:
        seconds: spent on each kind.
        done: pieces of each kind.
        left: pieces of each kind that this rank has not done yet.
    """

    def __init__(self, title: str, pieces: Sequence[Piece], shown: bool = True) -> None:
        self.title, self.pieces, self.shown = title, pieces, shown
        self.seconds: dict[str, float] = {}
        self.done: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.bar = tqdm(disable=True)

    def missing(self) -> list[int]:
        """Numbers of the pieces whose file is not there."""
        return [number for number, piece in enumerate(self.pieces) if not piece.path.is_file()]

    def begin(self, own: Sequence[int]) -> None:
        """Hears which pieces this rank will do."""
        self.left = Counter(self.pieces[number].kind for number in own)
        shape = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self.bar = tqdm(total=len(own), desc=self.title, disable=not (self.shown and own), bar_format=shape)

    def do(self, number: int) -> None:
        """Does a piece."""
        piece, started = self.pieces[number], time.perf_counter()
        piece.make()
        self.seconds[piece.kind] = self.seconds.get(piece.kind, 0.0) + time.perf_counter() - started
        self.done[piece.kind] += 1
        self.left[piece.kind] -= 1
        self.bar.set_postfix_str(f"{self.time_left()} left, {piece.kind}", refresh=False)
        self.bar.update()

    def time_left(self) -> str:
        """In minutes and seconds; a kind that was not seen yet is taken to be as slow as the mean of the others."""
        means = {kind: seconds / self.done[kind] for kind, seconds in self.seconds.items()}
        usual = sum(means.values()) / len(means)
        minutes, seconds = divmod(round(sum(n * means.get(kind, usual) for kind, n in self.left.items())), 60)
        return f"{minutes}:{seconds:02d}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

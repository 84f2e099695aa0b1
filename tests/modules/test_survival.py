"""What ends a training does not change what comes of it: signals and kill -9, in real processes."""

import csv
import json
import mmap
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lcg.data.datamodule import LatentDataModule
from lcg.modules.checkpoint_io import VerifiedCheckpointIO
from lcg.modules.classifiers import ClassifierModule
from lcg.modules.prior import PriorModule
from lcg.modules.resume import resolve
from lcg.modules.run_folder import read_record
from lcg.modules.run_record import RunRecord
from lcg.modules.survival import Survival

Fork = Callable[[Callable[[], object]], int]
Ended = Callable[[int], int]
STEPS = 30  # of 11 an epoch


class Clock(Callback):
    """Shows other processes how far a fit is, and gives them time to act on it."""

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, 8)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.shared[:] = (self.steps + 1).to_bytes(8, "little")
        time.sleep(0.004)

    @property
    def steps(self) -> int:
        return int.from_bytes(self.shared[:], "little")

    def reach(self, steps: int, process: int) -> None:
        """Waits until a process has taken so many steps, or has ended."""
        while self.steps < steps and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.0005)


def fit(
    out: Path,
    store: str,
    ckpt_path: str | None = "auto",
    *callbacks: Callback,
    model: LightningModule | None = None,
    saved: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """What `lcg fit` does, without parsing."""
    seed_everything(0)
    record = RunRecord()
    saver = ModelCheckpoint(
        out, "prior", enable_version_counter=False, **(saved or {"every_n_epochs": 1, "save_on_train_epoch_end": True})
    )
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(out, "log", ""),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[EMAWeightAveraging(decay=0.9), Survival(), record, saver, *callbacks],
        plugins=[VerifiedCheckpointIO()],
        **({"max_steps": STEPS, "max_epochs": -1} | options),
    )
    path = resolve(ckpt_path, trainer, read_record(out).get("run"))
    record.begin(trainer, path)
    model = PriorModule(width=16, depth=1, dropout=0.1, warmup=3) if model is None else model
    trainer.fit(model, LatentDataModule(store, batch_size=32), ckpt_path=path)
    return trainer


def content(out: Path, name: str = "prior.ckpt") -> dict[str, Any]:
    return torch.load(out / name, weights_only=True)


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def assert_as_if_nothing_had_happened(out: Path, reference: Path) -> None:
    """Weights, their averages, the optimiser and the logs are those of the run that nothing interrupted."""
    found, expected = content(out), content(reference)
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "epoch"):
        assert_same(found[part], expected[part])
    assert found["global_step"] == expected["global_step"] > 0
    assert len(metrics(out)) == len(metrics(reference))
    for row, other in zip(metrics(out), metrics(reference), strict=True):  # sums may differ in their last bit
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in other.items()}, rel=1e-6
        )


def metrics(out: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without empty values."""
    with (out / "log" / "metrics.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: (int(row["step"]), sorted(row)))


def sittings(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "run.json").read_text())["sittings"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(tiny_store: Callable[..., str]) -> str:
    return tiny_store()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("once")


@pytest.fixture
def reference(once: Path, store: str, fork: Fork, ended: Ended) -> Path:
    """A run that nothing interrupts; every test's store holds the same."""
    out = once / "reference"
    if not out.exists():
        assert ended(fork(lambda: fit(out, store))) == 0
    return out


# --- kill -9 ---------------------------------------------------------------------------------------------------------


def kill_at_random(out: Path, store: str, moments: int, rng: random.Random, fork: Fork, ended: Ended) -> int:
    """Kills a run and resumes it until it has been killed so often, or is finished. Returns how often it was killed."""
    killed = 0
    while killed < moments:
        clock = Clock()
        process = fork(lambda clock=clock: fit(out, store, "auto", clock))
        clock.reach(rng.randint(1, 25), process)
        time.sleep(rng.random() * 0.008)
        os.kill(process, signal.SIGKILL)
        if ended(process) != -signal.SIGKILL:
            break
        killed += 1
    assert ended(fork(lambda: fit(out, store, "auto"))) == 0
    return killed


def test_what_was_killed_at_three_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, store: str, reference: Path, fork: Fork, ended: Ended
) -> None:
    assert kill_at_random(tmp_path / "out", store, 3, random.Random(1), fork, ended) > 0
    assert_as_if_nothing_had_happened(tmp_path / "out", reference)


@pytest.mark.slow
def test_what_was_killed_at_twenty_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, store: str, reference: Path, fork: Fork, ended: Ended
) -> None:
    rng, killed = random.Random(0), 0
    for run in range(30):
        out = tmp_path / f"run-{run}"
        killed += kill_at_random(out, store, min(2, 20 - killed), rng, fork, ended)
        assert_as_if_nothing_had_happened(out, reference)
        if killed == 20:
            return
    raise AssertionError(f"only {killed} kills hit a run")


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "at"),
    [(signal.SIGTERM, 143, 5), (signal.SIGTERM, 143, 11), (signal.SIGTERM, 143, 22), (signal.SIGINT, 130, 7)],
    ids=["SIGTERM in an epoch", "SIGTERM at its end", "SIGTERM at the end of a later one", "SIGINT"],
)
def test_a_signal_stops_at_the_end_of_a_step_and_the_run_goes_on_exactly(
    tmp_path: Path, store: str, reference: Path, fork: Fork, ended: Ended, number: int, code: int, at: int
) -> None:
    out = tmp_path / "out"
    process = fork(lambda: fit(out, store, None, Raise(number, at)))
    assert ended(process) == code
    stopped = content(out, "prior-interrupted.ckpt")
    assert stopped["global_step"] == at and len(metrics(out)) == len(
        [row for row in metrics(reference) if int(row["step"]) < at]
    )
    assert sittings(out)[-1]["outcome"] == f"stopped by {signal.Signals(number).name}"
    assert ended(fork(lambda: fit(out, store, "last"))) == 0
    assert_as_if_nothing_had_happened(out, reference)
    assert not (out / "prior-interrupted.ckpt").exists()
    assert [entry["steps"] for entry in sittings(out)] == [at, STEPS]


class Raise(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, number: int, step: int, times: int = 1) -> None:
        self.number, self.step, self.times = number, step, times

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
                time.sleep(0.001)


@pytest.mark.slow
def test_the_step_that_gathers_gradients_is_finished(tmp_path: Path, store: str, fork: Fork, ended: Ended) -> None:
    """Three batches make a step; the signal comes with the first of them."""

    class Early(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.fit_loop.total_batch_idx == 6:
                os.kill(os.getpid(), signal.SIGTERM)

    options = {"accumulate_grad_batches": 3}
    assert ended(fork(lambda: fit(tmp_path / "a", store, None, **options))) == 0
    assert ended(fork(lambda: fit(tmp_path / "b", store, None, Early(), **options))) == 143
    assert content(tmp_path / "b", "prior-interrupted.ckpt")["global_step"] == 3
    assert ended(fork(lambda: fit(tmp_path / "b", store, "last", **options))) == 0
    assert_as_if_nothing_had_happened(tmp_path / "b", tmp_path / "a")


def test_validation_that_has_begun_is_finished(tmp_path: Path, store: str, fork: Fork, ended: Ended) -> None:
    """Validation swaps weights for their averages: broken off in its middle, the wrong ones would be saved."""

    class Amid(Callback):
        def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 8:
                os.kill(os.getpid(), signal.SIGTERM)

    options = {"val_check_interval": 4, "check_val_every_n_epoch": None}
    assert ended(fork(lambda: fit(tmp_path / "a", store, None, **options))) == 0
    assert ended(fork(lambda: fit(tmp_path / "b", store, None, Amid(), **options))) == 143
    assert content(tmp_path / "b", "prior-interrupted.ckpt")["global_step"] == 8
    assert any("val/loss" in row and row["step"] == "7" for row in metrics(tmp_path / "b"))
    assert ended(fork(lambda: fit(tmp_path / "b", store, "last", **options))) == 0
    assert_as_if_nothing_had_happened(tmp_path / "b", tmp_path / "a")


@pytest.mark.slow
def test_a_second_sigterm_while_saving_changes_nothing(
    tmp_path: Path, store: str, reference: Path, fork: Fork, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = VerifiedCheckpointIO.save_checkpoint

    def slowly(self: VerifiedCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, checkpoint, path, storage_options)
        os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(VerifiedCheckpointIO, "save_checkpoint", slowly)
        assert ended(fork(lambda: fit(out, store, None, Raise(signal.SIGTERM, 5)))) == 143
    assert content(out, "prior-interrupted.ckpt")["global_step"] == 5
    assert ended(fork(lambda: fit(out, store, "last"))) == 0
    assert_as_if_nothing_had_happened(out, reference)


def test_a_second_interruption_stops_at_once(tmp_path: Path, store: str, fork: Fork, ended: Ended) -> None:
    out = tmp_path / "out"
    assert ended(fork(lambda: fit(out, store, None, Raise(signal.SIGINT, 5, times=2)))) == 1  # Lightning's; `lcg`: 130
    assert not (out / "prior-interrupted.ckpt").exists()
    assert sittings(out)[-1]["outcome"] == "stopped by SIGINT, nothing saved"


def test_without_checkpoints_nothing_is_saved(tmp_path: Path, store: str, fork: Fork, ended: Ended) -> None:
    def run() -> None:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=9,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
            callbacks=[Survival(), Raise(signal.SIGTERM, 3)],
        )
        trainer.fit(PriorModule(width=16, depth=1), LatentDataModule(store, batch_size=32))

    assert ended(fork(run)) == 143
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_signals_are_given_back_when_a_fit_has_ended(tmp_path: Path, store: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    trainer = fit(tmp_path, store)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    assert not {"_sigterm_notifier_fn", "_slurm_sigusr_handler_fn"} & set(vars(trainer._signal_connector))


@pytest.mark.slow
def test_slurm_requeues_at_the_end_of_a_step(
    tmp_path: Path, store: str, reference: Path, fork: Fork, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own way, with a `scontrol` that only notes what it is asked."""
    slurm = {"JOB_ID": "77", "JOB_NAME": "lcg", "NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0"}
    for name, value in {**slurm, "NODEID": "0", "NNODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")

    class Requeued(Callback):
        """SLURM's signal in a step, and its SIGTERM five steps after the job was requeued."""

        def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step in (6, 11):
                os.kill(os.getpid(), signal.SIGUSR1 if trainer.global_step == 6 else signal.SIGTERM)

    out = tmp_path / "out"
    assert ended(fork(lambda: fit(out, store, None, Requeued()))) == 143
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    assert content(out, "hpc_ckpt_1.ckpt")["global_step"] == 7
    assert content(out, "prior-interrupted.ckpt")["global_step"] == 12
    (out / "prior-interrupted.ckpt").unlink()  # a job that is killed before it could stop
    (out / "prior.ckpt").unlink()
    assert ended(fork(lambda: fit(out, store, "auto"))) == 0
    assert_same(content(out)["current_model_state"], content(reference)["current_model_state"])


@pytest.mark.slow
@pytest.mark.parametrize("when", [{"every_n_train_steps": 4}, {"every_n_train_steps": 11}])
def test_checkpoints_within_an_epoch_are_exact_too(
    tmp_path: Path, store: str, reference: Path, fork: Fork, ended: Ended, when: dict[str, int]
) -> None:
    out, clock = tmp_path / "out", Clock()
    process = fork(lambda: fit(out, store, None, clock, saved=when))
    clock.reach(14, process)
    os.kill(process, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    assert ended(fork(lambda: fit(out, store, "last", saved=when))) == 0
    assert ended(fork(lambda: fit(out, store, "last", saved={"every_n_train_steps": 10}))) == 0
    found = {row["step"]: row["train/loss"] for row in metrics(out) if "train/loss" in row}
    expected = {row["step"]: row["train/loss"] for row in metrics(reference) if "train/loss" in row}
    assert all(expected[step] == loss for step, loss in found.items()) and int(max(found, key=int)) == STEPS - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("saved", "options", "at"),
    [
        ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, {"max_epochs": 3, "max_steps": -1}, 13),
        ({"monitor": "val/loss", "save_on_train_epoch_end": False}, {}, 14),
        ({"save_last": True, "save_top_k": -1}, {"check_val_every_n_epoch": 2}, 25),
    ],
    ids=["bounded by epochs", "saved by validation", "validated every other epoch"],
)
def test_other_ways_of_saving_are_exact_too(
    tmp_path: Path, store: str, fork: Fork, ended: Ended, saved: dict[str, Any], options: dict[str, Any], at: int
) -> None:
    """Killed, not told: what is gone on from is what the callback has saved."""
    for out, number in ((tmp_path / "a", 0), (tmp_path / "b", signal.SIGKILL)):
        stop = (Raise(number, at),) if number else ()
        assert ended(fork(lambda out=out, stop=stop: fit(out, store, None, *stop, saved=saved, **options))) == -number
    assert ended(fork(lambda: fit(tmp_path / "b", store, "last", saved=saved, **options))) == 0
    logs = [[row for row in metrics(tmp_path / name) if "train/loss" in row] for name in "ab"]
    assert logs[0] == logs[1] and len(logs[0]) > at


@pytest.mark.slow
def test_a_classifier_survives_as_well(tmp_path: Path, store: str, fork: Fork, ended: Ended) -> None:
    def classifier() -> ClassifierModule:
        return ClassifierModule(width=16, depth=1, dropout=0.2, components=2, warmup=3)

    assert ended(fork(lambda: fit(tmp_path / "a", store, None, model=classifier()))) == 0
    assert ended(fork(lambda: fit(tmp_path / "b", store, None, Raise(signal.SIGTERM, 15), model=classifier()))) == 143
    assert ended(fork(lambda: fit(tmp_path / "b", store, "last", model=classifier()))) == 0
    assert_as_if_nothing_had_happened(tmp_path / "b", tmp_path / "a")


# --- ranks -----------------------------------------------------------------------------------------------------------


class Hear(Callback):
    """Sends each rank its signal in the middle of its step: {rank: step}."""

    def __init__(self, moments: dict[int, int]) -> None:
        self.moments = moments

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step + 1 == self.moments.get(trainer.global_rank):
            os.kill(os.getpid(), signal.SIGTERM)


def fit_on_two_ranks(out: Path, store: str, ckpt_path: str | None, fork: Fork, *callbacks: Callback) -> list[int]:
    """Two processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(number: int) -> None:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        names = {"RANK": number, "LOCAL_RANK": number, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in (where | names).items()})
        fit(out, store, ckpt_path, *callbacks, devices=2, strategy="ddp")

    return [fork(lambda number=number: rank(number)) for number in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments", [{0: 4}, {1: 4}, {0: 3, 1: 4}, {1: 5}], ids=["rank 0", "rank 1", "both, one later", "at an epoch's end"]
)
def test_all_ranks_stop_at_one_step_and_go_on_exactly(
    tmp_path: Path, store: str, fork: Fork, ended: Ended, moments: dict[int, int]
) -> None:
    """Eleven batches of one process are five of two."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert [ended(process) for process in fit_on_two_ranks(whole, store, None, fork)] == [0, 0]
    assert [ended(process) for process in fit_on_two_ranks(out, store, None, fork, Hear(moments))] == [143, 143]
    assert content(out, "prior-interrupted.ckpt")["global_step"] == min(moments.values())
    assert sittings(out)[-1]["world_size"] == 2 and sittings(out)[-1]["outcome"] == "stopped by SIGTERM"
    assert [ended(process) for process in fit_on_two_ranks(out, store, "last", fork)] == [0, 0]
    assert_as_if_nothing_had_happened(out, whole)

"""Which checkpoint a run goes on from."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lcg.modules.resume import interrupted_path, newest, resolve
from lcg.modules.run_folder import keep_config, read_record, run_folder
from lcg.modules.survival import Survival
from lcg.sealed import sealed


def trainer(out: Path, *saved: ModelCheckpoint, logger: Any = False) -> Trainer:
    return Trainer(accelerator="cpu", default_root_dir=out, logger=logger, callbacks=[*saved], barebones=False)


def put(path: Path, step: int, seconds: int, run: str | None = None) -> Path:
    """A checkpoint that was written at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    callbacks = {} if run is None else {"RunRecord": {"run": run}}
    path.write_bytes(sealed({"global_step": step, "state_dict": {"w": torch.ones(3)}, "callbacks": callbacks}))
    os.utime(path, (seconds, seconds))
    return path


def test_what_is_a_path_stays_one(tmp_path: Path) -> None:
    for path in (None, "best", "a.ckpt"):
        assert resolve(path, trainer(tmp_path)) == path


@pytest.mark.parametrize(
    ("template", "own", "others"),
    [
        ("lace", ["lace.ckpt", "lace-v2.ckpt", "lace.ckpt.previous", "lace-interrupted.ckpt"], ["gradctrl.ckpt", "a"]),
        ("{epoch}-{val/loss:.2f}", ["epoch=3-val/loss=0.20.ckpt", "interrupted.ckpt"], ["lace.ckpt"]),
        (None, ["epoch=1-step=20.ckpt", "last.ckpt", "last-v1.ckpt"], ["prior.ckpt", ".last.ckpt.tmp"]),
    ],
)
def test_several_runs_may_share_a_folder(
    tmp_path: Path, template: str | None, own: list[str], others: list[str]
) -> None:
    fit = trainer(tmp_path, ModelCheckpoint(tmp_path, template))
    for number, name in enumerate(others):
        put(tmp_path / name, 1, 2000 + number)
    assert newest(fit) is None and resolve("auto", fit) is None
    for number, name in enumerate(own):
        path = put(tmp_path / name, number, 1000 + number)
        assert resolve("last", fit) == path
    os.utime(tmp_path / own[0], (5000, 5000))
    assert newest(fit) == tmp_path / own[0]


def test_what_slurm_left_counts(tmp_path: Path) -> None:
    fit = trainer(tmp_path, ModelCheckpoint(tmp_path / "saved", "prior"))
    put(tmp_path / "saved" / "prior.ckpt", 10, 1000)
    path = put(tmp_path / "hpc_ckpt_2.ckpt", 12, 1001)
    assert newest(fit) == path


def test_another_runs_checkpoints_do_not_count(tmp_path: Path) -> None:
    fit = trainer(tmp_path, ModelCheckpoint(tmp_path, "prior"))
    put(tmp_path / "prior.ckpt", 10, 1000, "old")
    assert newest(fit, "new") is None and newest(fit, "old") is not None
    put(tmp_path / "prior-v1.ckpt", 11, 900)  # of a Trainer that keeps no record
    assert newest(fit, "new") == tmp_path / "prior-v1.ckpt"


def test_folders_that_lightning_chooses(tmp_path: Path) -> None:
    numbered = trainer(tmp_path, ModelCheckpoint(), logger=CSVLogger(tmp_path, "log"))
    assert interrupted_path(numbered) == str(tmp_path / "log" / "version_0" / "checkpoints" / "interrupted.ckpt")
    assert run_folder(numbered) == tmp_path / "log" / "version_0"
    named = trainer(tmp_path, ModelCheckpoint(), logger=CSVLogger(tmp_path, "log", ""))
    assert interrupted_path(named) == str(tmp_path / "log" / "checkpoints" / "interrupted.ckpt")
    assert run_folder(named) == run_folder(trainer(tmp_path)) == tmp_path
    assert interrupted_path(trainer(tmp_path)) == str(tmp_path / "checkpoints" / "interrupted.ckpt")


def test_checkpoints_on_other_machines_are_not_looked_for(tmp_path: Path) -> None:
    fit = trainer(tmp_path, ModelCheckpoint("memory://runs", "prior"))
    with pytest.raises(ValueError, match=r"`--ckpt_path auto` looks on local disks, .* memory://runs; give a path"):
        resolve("auto", fit)


def test_ranks_that_see_other_checkpoints_are_refused() -> None:
    strategy = SimpleNamespace(broadcast=lambda step: 12)
    fit_loop = SimpleNamespace(restarted_on_epoch_end=False, epoch_loop=None)
    one = SimpleNamespace(strategy=strategy, global_step=10, global_rank=1, fit_loop=fit_loop)
    with pytest.raises(ValueError, match=r"rank 1 resumes at step 10, rank 0 at 12; all ranks must see the same"):
        Survival().on_train_start(one, None)


def test_configs_of_earlier_sittings_are_kept_once(tmp_path: Path) -> None:
    for number, text in enumerate(("a: 1", "a: 1", "a: 2", "a: 1"), 1):
        (tmp_path / "config.yaml").write_text(text)
        keep_config(tmp_path, number)
    kept = {path.name: path.read_text() for path in tmp_path.glob("config-*.yaml")}
    assert kept == {"config-1.yaml": "a: 1", "config-3.yaml": "a: 2"}


@pytest.mark.parametrize("text", ["", "[]", "{}", "{'sittings': 1}", '{"sittings": 1}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert read_record(tmp_path) == {} == read_record(tmp_path / "nowhere")

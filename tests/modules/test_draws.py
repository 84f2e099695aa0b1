"""`StepDraws`: what is drawn depends on seed, epoch, batch and row alone, so trainings can be killed and shared."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from lcg.data.datamodule import LatentDataModule
from lcg.modules.classifiers import ClassifierModule
from lcg.modules.draws import StepDraws
from lcg.modules.prior import PriorModule, mixing

MODULE: Any = SimpleNamespace(device=torch.device("cpu"))


def begun(epoch: int, batch: int, rank: int = 0, world: int = 1, seed: int = 7) -> StepDraws:
    """The draws of a step on one of several ranks."""
    trainer: Any = SimpleNamespace(
        global_rank=rank, world_size=world, current_epoch=epoch, strategy=SimpleNamespace(broadcast=lambda value: value)
    )
    draws = StepDraws()
    draws.load_state_dict({"seed": seed})
    draws.on_fit_start(trainer, MODULE)
    draws.on_train_batch_start(trainer, MODULE, None, batch)
    return draws


def everything(draws: StepDraws) -> list[Tensor]:
    x = torch.zeros(12, 2, 3)
    return [
        draws.times(12),
        draws.times(12, 0.8),
        draws.randn_like(x),
        draws.rand_like(x),
        torch.randn(3, generator=draws.choice),
        torch.randn(3),  # as dropout draws
    ]


def test_a_step_draws_the_same_whatever_was_drawn_before_and_every_step_draws_others() -> None:
    first = everything(begun(2, 5))
    draws = begun(2, 4)
    everything(draws)
    other = everything(draws)
    again = everything(begun(2, 5))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for different in (other, everything(begun(2, 6)), everything(begun(3, 5)), everything(begun(2, 5, seed=8))):
        assert not any(torch.equal(a, b) for a, b in zip(first, different, strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_what_one_process_draws(world: int) -> None:
    whole, x = begun(1, 4), torch.zeros(12, 2, 3)
    ranks = [begun(1, 4, rank, world) for rank in range(world)]
    for draw in (
        lambda draws, rows: draws.times(rows),
        lambda draws, rows: draws.times(rows, 0.8),
        lambda draws, rows: draws.randn_like(x[:rows]),
        lambda draws, rows: draws.rand_like(x[:rows]),
        lambda draws, rows: draws.share(rows, lambda n, generator, device: mixing(n, 0.4, generator, device)),
    ):
        parts = torch.stack([draw(draws, 12 // world) for draws in ranks], dim=1)
        assert torch.equal(parts.flatten(0, 1), draw(whole, 12))


def test_ranks_drop_different_units_and_choose_the_same() -> None:
    own, chosen = [], []
    for rank in range(4):
        draws = begun(1, 4, rank, 4)
        own.append(torch.rand(4))
        chosen.append(torch.rand(4, generator=draws.choice))
    assert len({tuple(row.tolist()) for row in own}) == 4
    assert len({tuple(row.tolist()) for row in chosen}) == 1


def test_rows_are_of_their_distributions() -> None:
    draws = begun(0, 0)
    t, spread = draws.times(1000), draws.times(1000, 0.5)
    assert ((t * 1000).long() == torch.arange(1000)).all()  # one in each interval
    assert torch.logit(spread).std() == pytest.approx(0.5, rel=0.02)
    noise, uniform = draws.randn_like(torch.zeros(1000, 50)), draws.rand_like(torch.zeros(1000, 50))
    assert noise.dtype == torch.float32 and abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert uniform.min() >= 0 and uniform.max() < 1 and float(uniform.mean()) == pytest.approx(0.5, abs=0.01)


# --- through the Trainer ----------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


class StopAt(Callback):
    """Ends the training like a fault in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Stopped


SMALL: dict[str, Any] = {"width": 24, "depth": 2, "warmup": 5, "lr": 2e-3}
MODULES: dict[str, Callable[[], LightningModule]] = {
    "prior": lambda: PriorModule(**SMALL, dropout=0.2, mixup=0.4),
    "classifiers": lambda: ClassifierModule(**SMALL, dropout=0.2, components=2),
}


def train(make: Callable[[], LightningModule], store: str, out: Path, stops: tuple[int, ...], **options: Any) -> Any:
    """The checkpoint after 20 steps, of a training that is stopped at each of these and goes on from its last one."""
    for part, stop in enumerate((*stops, 20)):
        seed_everything(part, verbose=False)  # whatever the process that goes on was seeded with
        saved = ModelCheckpoint(out, "{step}", save_top_k=-1, every_n_train_steps=4)
        trainer = Trainer(
            accelerator="cpu",
            max_steps=20,
            max_epochs=-1,
            callbacks=[StopAt(stop), EMAWeightAveraging(decay=0.9), saved],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        last = max(out.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)
        with contextlib.suppress(Stopped):
            trainer.fit(make(), LatentDataModule(store, 64), ckpt_path=last, weights_only=True)
    return torch.load(out / "step=20.ckpt", weights_only=True)


def equal(a: Any, b: Any) -> bool:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@pytest.mark.parametrize("what", MODULES)
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"val_check_interval": 3}])
def test_a_training_that_was_stopped_ends_bit_equal(
    tmp_path: Path, tiny_store: Callable[..., str], what: str, options: dict[str, Any]
) -> None:
    """380 rows are 5 batches an epoch: stopped and resumed in the middle of epochs, with dropout."""
    store = tiny_store()
    whole = train(MODULES[what], store, tmp_path / "whole", (), **options)
    parts = train(MODULES[what], store, tmp_path / "parts", (7, 15), **options)
    for name in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert equal(whole[name], parts[name]), name
    assert whole["callbacks"]["StepDraws"] == parts["callbacks"]["StepDraws"] == {"seed": 0}
    assert json.loads(json.dumps(whole["hyper_parameters"])) == whole["hyper_parameters"]
    other = train(MODULES[what], store, tmp_path / "other", (1,), **options)  # starts again, with another seed
    assert not equal(whole["state_dict"], other["state_dict"])

"""Two ranks with batches of B train as one process with batches of 2 B. Real processes, real collectives (gloo)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from lcg.data.datamodule import LatentDataModule
from lcg.data.store import LatentStoreWriter
from lcg.modules.classifiers import ClassifierModule
from lcg.modules.conditional import ConditionalPriorModule
from lcg.modules.continuous_flow import ContinuousFlowModule
from lcg.modules.distilled import DistilledModule
from lcg.modules.draws import Draw, StepDraws
from lcg.modules.latent_classifier import LatentClassifierModule
from lcg.modules.potential_flow import PotentialFlowModule
from lcg.modules.prior import PriorModule
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (Attribute("hat"), Attribute("hair", "categorical", ("blond", "red", "black")), Attribute("age", "continuous"))
)
BATCH = 64
SMALL = {"width": 32, "depth": 2, "warmup": 5, "lr": 2e-3}
Make = Callable[[], LightningModule]
EQUAL: dict[str, Make] = {
    "prior": lambda: PriorModule(**SMALL),
    "uniform times": lambda: PriorModule(**SMALL, time_spread=None, prediction="eps"),
    "mixup": lambda: PriorModule(**SMALL, mixup=0.4),
    "joint head": lambda: ClassifierModule(**SMALL, dropout=0.0, components=3),
    "separate trunks": lambda: ClassifierModule(**SMALL, dropout=0.0, trunk="separate"),
}


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Latents with labels of which half are missing, so that ranks know different numbers of them."""
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(700, 6, generator=rng)
    labels = torch.stack([(z[:, 0] > 0).float(), (z[:, 1] > 0).float() + (z[:, 1] > 1), z[:, 2]], dim=1)
    labels[torch.rand(labels.shape, generator=rng) < torch.tensor([0.2, 0.5, 0.9])] = torch.nan
    writer = LatentStoreWriter(tmp_path / "store", (6,), SCHEMA, {})
    writer.append(3 + 2 * z, labels, torch.arange(len(z)))
    writer.finish()
    return str(tmp_path / "store")


class Record(Callback):
    """Writes down the loss of every step as it is logged, and what training ends with."""

    def __init__(self, path: Path) -> None:
        self.path, self.losses = path, []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = {name: value.clone() for name, value in pl_module.state_dict().items()}
        torch.save({"losses": self.losses, "weights": state}, f"{self.path}-{trainer.global_rank}")


def fit(
    make: Make,
    store: str,
    out: Path,
    steps: int,
    ranks: int,
    batch: int = 2 * BATCH,
    resume: str | None = None,
    **options: Any,
) -> Any:
    """What rank 0 recorded of a training with this global batch, which leaves a checkpoint every fifth step."""
    seed_everything(3, verbose=False)
    saved = ModelCheckpoint(out.parent, f"{out.name}-{{step}}", save_top_k=-1, every_n_train_steps=5)
    Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",  # processes that need not import everything again
        max_steps=steps,
        max_epochs=-1,
        callbacks=[Record(out), EMAWeightAveraging(decay=0.9), saved],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    ).fit(make(), LatentDataModule(store, batch // ranks, val_fraction=0.1), ckpt_path=resume, weights_only=True)
    recorded = [torch.load(f"{out}-{rank}", weights_only=True) for rank in range(ranks)]
    assert all(other["losses"] == recorded[0]["losses"] for other in recorded)  # what is logged is the global mean
    return recorded[0]


def differences(one: Any, two: Any) -> tuple[float, float]:
    """The greatest ones of losses and of weights."""
    assert len(one["losses"]) == len(two["losses"]) and one["losses"][0] != one["losses"][-1]
    assert list(one["weights"]) == list(two["weights"])
    losses = max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True))
    return losses, max(float((one["weights"][k] - two["weights"][k]).abs().max()) for k in one["weights"])


def compare(make: Make, store: str, out: Path, steps: int, **options: Any) -> tuple[float, float]:
    """The differences between one process and two."""
    return differences(*(fit(make, store, out / str(ranks), steps, ranks, **options) for ranks in (1, 2)))


@pytest.mark.parametrize("what", ["mixup", "joint head", "separate trunks"])
def test_two_ranks_have_the_losses_of_one_process(tmp_path: Path, store: str, what: str) -> None:
    losses, weights = compare(EQUAL[what], store, tmp_path, 30)
    assert losses <= 1e-5 and weights <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("what", EQUAL)
def test_two_ranks_have_the_losses_of_one_process_for_200_steps(tmp_path: Path, store: str, what: str) -> None:
    losses, weights = compare(EQUAL[what], store, tmp_path, 200)
    assert losses <= 1e-5 and weights <= 1e-4


def test_it_takes_the_common_number_of_known_labels(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without it the losses differ visibly."""
    monkeypatch.setattr("lcg.modules.classifiers.weight_of_known", lambda labels: 1.0)
    losses, _ = compare(EQUAL["joint head"], store, tmp_path, 10)
    assert losses > 1e-3


def test_a_distilled_prior_and_the_baselines_train_on_two_ranks_as_on_one(tmp_path: Path, store: str) -> None:
    fit(EQUAL["prior"], store, tmp_path / "prior", 10, 1)
    teacher = str(tmp_path / "prior-step=10.ckpt")
    for name, make in {
        "distilled": lambda: DistilledModule(teacher, lr=1e-3, warmup=5),
        "conditional": lambda: ConditionalPriorModule(**SMALL),
        "latent_classifier": lambda: LatentClassifierModule((16,), lr=1e-2, warmup=5),
    }.items():
        losses, weights = compare(make, store, tmp_path / name, 10)
        assert losses <= 1e-5 and weights <= 1e-4, name


def test_baselines_with_statistics_of_a_rank_s_own_rows_train_on_two_ranks(tmp_path: Path, store: str) -> None:
    """Their normalisation or their blocks see the rows of one rank; they need not be what one process has."""
    fit(EQUAL["joint head"], store, tmp_path / "classifier", 5, 1)
    classifier = str(tmp_path / "classifier-step=5.ckpt")
    for name, make in {
        "continuous_flow": lambda: ContinuousFlowModule(hidden=(16,), steps=4, hide=0.2),
        "potential_flow": lambda: PotentialFlowModule(classifier, width=16, warmup=5),
    }.items():
        recorded = fit(make, store, tmp_path / name, 5, 2)
        assert len(recorded["losses"]) == 5 and all(torch.tensor(recorded["losses"]).isfinite()), name


@pytest.mark.parametrize("resumed_on", [1, 2])
def test_a_training_on_two_ranks_goes_on_where_it_was(tmp_path: Path, store: str, resumed_on: int) -> None:
    """In the middle of an epoch of four batches: on as many ranks bit for bit, with dropout; on one up to rounding."""
    dropout = 0.2 if resumed_on == 2 else 0.0

    def make() -> LightningModule:
        return ClassifierModule(**SMALL, dropout=dropout, components=3)

    whole = fit(make, store, tmp_path / "whole", 20, 2)
    part = fit(make, store, tmp_path / "part", 20, resumed_on, resume=str(tmp_path / "whole-step=10.ckpt"))
    losses, weights = differences({**whole, "losses": whole["losses"][10:]}, part)
    assert losses == weights == 0 if resumed_on == 2 else losses <= 1e-5 and weights <= 1e-4


# --- gradient accumulation --------------------------------------------------------------------------------------------


def test_accumulated_gradients_are_the_same_on_two_ranks(tmp_path: Path, store: str) -> None:
    for name in ("prior", "joint head"):
        losses, weights = compare(EQUAL[name], store, tmp_path / name, 8, accumulate_grad_batches=2)
        assert losses <= 1e-5 and weights <= 1e-4


class Halved(StepDraws):
    """Gives the two halves of a batch what the whole batch would be given."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx // 2)
        self.half = batch_idx % 2

    def share(self, count: int, draw: Draw) -> Tensor:
        return super().share(2 * count, draw)[self.half * count :][:count]


def test_two_accumulated_halves_are_the_batch_when_they_draw_the_same(tmp_path: Path, store: str) -> None:
    """By themselves they draw other times and noise, as every batch does: that is all by which they differ."""

    def halved() -> LightningModule:
        module = EQUAL["prior"]()
        module.draws = Halved()
        return module

    whole = fit(EQUAL["prior"], store, tmp_path / "whole", 4, 1)
    halves = fit(halved, store, tmp_path / "halves", 4, 1, BATCH, accumulate_grad_batches=2)
    halves["losses"] = [(a + b) / 2 for a, b in zip(halves["losses"][::2], halves["losses"][1::2], strict=True)]
    losses, weights = differences(whole, halves)
    assert losses <= 1e-5 and weights <= 1e-5

    apart = fit(EQUAL["prior"], store, tmp_path / "apart", 4, 1, BATCH, accumulate_grad_batches=2)
    assert differences(apart, {**whole, "losses": apart["losses"]})[1] > 1e-5

"""Mixed precision: networks in bfloat16; losses, log-probabilities, weights and the optimiser's state in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from lcg.data.datamodule import LatentDataModule
from lcg.modules.classifiers import ClassifierModule
from lcg.modules.prior import PriorModule
from lcg.nets.heads import joint_log_likelihood, log_likelihoods, tensors

SMALL: dict[str, Any] = {"width": 32, "depth": 2, "warmup": 20, "lr": 3e-3}
MODULES: dict[str, Callable[[], LightningModule]] = {
    "prior": lambda: PriorModule(**SMALL),
    "eps": lambda: PriorModule(**SMALL, prediction="eps", mixup=0.4),
    "classifiers": lambda: ClassifierModule(**SMALL),
    "joint head": lambda: ClassifierModule(**SMALL, components=3),
    "separate trunks": lambda: ClassifierModule(**SMALL, trunk="separate"),
}


class Watch(Callback):
    """The losses, and the precisions of what networks' layers give and of what training steps return."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.layers: set[torch.dtype] = set()
        self.returned: set[torch.dtype] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(lambda _, inputs, output: self.layers.add(output.dtype))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.returned.add(outputs["loss"].dtype)


def fit(what: str, store: str, out: Path, precision: Any, steps: int) -> Watch:
    seed_everything(0, verbose=False)
    watch = Watch()
    Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=1,
        callbacks=[watch, ModelCheckpoint(out, "last", save_on_train_epoch_end=True, enable_version_counter=False)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(MODULES[what](), LatentDataModule(store, 64))
    return watch


@pytest.mark.parametrize("what", MODULES)
def test_only_layers_are_in_bfloat16(tmp_path: Path, tiny_store: Callable[..., str], what: str) -> None:
    watch = fit(what, tiny_store(), tmp_path, "bf16-mixed", 6)
    assert watch.layers == {torch.bfloat16} and watch.returned == {torch.float32}
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {value.dtype for value in checkpoint["state_dict"].values()} == {torch.float32}
    moments = [value for state in checkpoint["optimizer_states"][0]["state"].values() for value in state.values()]
    assert {value.dtype for value in moments} == {torch.float32}


@pytest.mark.parametrize("components", [1, 3])
def test_outputs_and_log_probabilities_are_in_float32(
    tmp_path: Path, tiny_store: Callable[..., str], components: int
) -> None:
    trainer, data = Trainer(accelerator="cpu", logger=False, max_steps=1), LatentDataModule(tiny_store())
    module = ClassifierModule(**SMALL, components=components)
    data.setup()
    trainer.datamodule = data  # as a fit does
    module.trainer = trainer
    module.configure_model()
    z, t = torch.randn(8, 4), torch.rand(8)
    labels = data.gather(torch.arange(8))["labels"]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = module.classifier(z, t)
        assert {value.dtype for _, value in tensors(outputs)} == {torch.float32}
        assert joint_log_likelihood(data.schema, outputs, labels).dtype == torch.float32
        single = outputs if components == 1 else outputs.single
        assert log_likelihoods(data.schema, single, labels).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("what", ["prior", "joint head"])
def test_bfloat16_learns_what_float32_learns(tmp_path: Path, tiny_store: Callable[..., str], what: str) -> None:
    store = tiny_store()
    full, mixed = (fit(what, store, tmp_path / name, name, 300).losses for name in ("32-true", "bf16-mixed"))
    first, last, other = (torch.tensor(part).mean() for part in (full[:10], full[-50:], mixed[-50:]))
    assert last < 0.9 * first
    assert other == pytest.approx(float(last), rel=0.02)
    assert mixed != full


def test_float16_on_a_cpu_is_bfloat16_and_says_so(tmp_path: Path, tiny_store: Callable[..., str]) -> None:
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU. Using `precision='bf16-mixed'` instead"):
        watch = fit("prior", tiny_store(), tmp_path, "16-mixed", 3)
    assert watch.layers == {torch.bfloat16}

"""Training on compiled networks: the same losses, the same names in checkpoints, also with DDP and averaged weights.

Run as a program, with a store and a folder, this file is such a training: torch.compile cannot run where jaxtyping
checks shapes, as it does in tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SMALL: dict[str, Any] = {"width": 32, "depth": 2, "warmup": 5, "lr": 2e-3}
STEPS = 12


def trained(what: str, store: str, folder: Path, compile: bool, ranks: int) -> list[float]:
    """The losses of a training that leaves WHAT.ckpt in the folder."""
    from lcg.data.datamodule import LatentDataModule  # before Lightning; see lcg/__init__.py
    from lcg.modules.classifiers import ClassifierModule
    from lcg.modules.prior import PriorModule

    from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything  # isort: skip
    from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint  # isort: skip

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train/loss"]))

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            (folder / f"{what}-{trainer.global_rank}.json").write_text(json.dumps(losses))

    losses: list[float] = []
    seed_everything(3, verbose=False)
    modules = {
        "prior": lambda: PriorModule(**SMALL, compile=compile),
        "joint": lambda: ClassifierModule(**SMALL, dropout=0.0, components=3, compile=compile),
        "separate": lambda: ClassifierModule(**SMALL, dropout=0.0, trunk="separate", compile=compile),
    }
    Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",
        max_steps=STEPS,
        max_epochs=-1,
        callbacks=[Losses(), EMAWeightAveraging(decay=0.9), ModelCheckpoint(folder, what)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(modules[what](), LatentDataModule(store, 64 // ranks))
    return json.loads((folder / f"{what}-0.json").read_text())


def compiled_graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "ranks"), [("prior", 2), ("joint", 1), ("separate", 1)])
def test_compiled_networks_train_the_same(
    tmp_path: Path, tiny_store: Callable[..., str], what: str, ranks: int
) -> None:
    store = tiny_store()
    (tmp_path / "compiled").mkdir()
    line = [sys.executable, __file__, what, store, str(tmp_path / "compiled"), str(ranks)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    compiled = json.loads((tmp_path / "compiled" / f"{what}-0.json").read_text())
    (tmp_path / "eager").mkdir()
    eager = trained(what, store, tmp_path / "eager", compile=False, ranks=1)
    assert len(compiled) == STEPS and compiled == pytest.approx(eager, abs=1e-4)
    if ranks == 1:  # forked processes keep their count to themselves
        assert done.stdout.strip().endswith("graphs: 1")

    one, other = (torch.load(tmp_path / how / f"{what}.ckpt", weights_only=True) for how in ("compiled", "eager"))
    for state in ("state_dict", "current_model_state"):
        assert list(one[state]) == list(other[state])
        assert all(torch.allclose(one[state][k], other[state][k], atol=1e-3) for k in one[state])
    assert one["hyper_parameters"] == {**other["hyper_parameters"], "compile": True}


if __name__ == "__main__":
    name, path, out, count = sys.argv[1:]
    trained(name, path, Path(out), compile=True, ranks=int(count))
    print("graphs:", compiled_graphs())

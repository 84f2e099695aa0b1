"""Where a training step's time goes: waiting for the loader, and what compiling and half precision bring.

    python experiments/09_training/step.py --out runs/training            # tables to OUT/step.md and step.json
    python experiments/09_training/step.py --out runs/training --steps 40 --big false

Real trainings through Lightning, without validation and checkpoints; the first steps, which compile and fill caches,
are left out. Variants take turns, and medians over the rounds are given. The loader's wait is the profiler's time in
`train_dataloader_next`, beside its time of the batch.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lcg  # noqa: F401  # before Lightning, see lcg.torchvision_operators

# isort: split
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.profilers import SimpleProfiler

from lcg.data.datamodule import LatentDataModule
from lcg.data.store import LatentStoreWriter
from lcg.modules.prior import PriorModule
from lcg.schema import Attribute, Schema

SMALL = {"width": 512, "depth": 3, "lr": 2e-3}
"""The default prior, as in configs/prior/avatars.yaml."""
BIG = {"width": 2048, "depth": 10, "lr": 1e-4, "warmup": 20}
"""The published size for 512 dimensions."""
LOADERS: dict[str, dict[str, Any]] = {
    "in memory": {"in_memory": True},
    "from files, no thread": {"in_memory": False, "workers": 0},
    "from files, two threads": {"in_memory": False, "workers": 2},
}


class Clock(Callback):
    """Times steps from the first one that counts, and what the loader kept them waiting."""

    def __init__(self, skip: int) -> None:
        self.skip, self.losses, self.began = skip, [], time.perf_counter()
        self.first = 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach())
        if trainer.global_step == self.skip:
            self.first = time.perf_counter() - self.began
            for durations in trainer.profiler.recorded_durations.values():
                durations.clear()
            self.began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.began
        recorded = trainer.profiler.recorded_durations
        self.wait = sum(recorded["[_TrainingEpochLoop].train_dataloader_next"]) / self.seconds


def train(
    store: str, network: dict[str, Any], loader: dict[str, Any], precision: str, steps: int, skip: int, device: str
) -> dict[str, float]:
    """One training: seconds a step, the loader's share of them, seconds before they begin, the mean last loss."""
    torch.manual_seed(0)
    clock, profiler = Clock(skip), SimpleProfiler()
    profiler.describe = lambda: None  # type: ignore[method-assign]  # it would print
    trainer = Trainer(
        accelerator=device,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_steps=skip + steps,
        max_epochs=-1,
        logger=False,
        profiler=profiler,
        callbacks=[clock],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(PriorModule(**network), LatentDataModule(store, 256, **loader))
    last = [float(loss) for loss in clock.losses[-max(1, steps // 4) :]]
    return {
        "step": clock.seconds / steps,
        "waiting": clock.wait,
        "first": clock.first,
        "loss": sum(last) / len(last),
    }


def rounds(variants: dict[str, Any], count: int) -> Iterator[tuple[str, Any]]:
    """Each variant once a round."""
    for _ in range(count):
        yield from variants.items()


def median(found: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def synthetic(folder: Path, rows: int = 20_000) -> str:
    """A store of 512 normal dimensions, correlated, for the big prior."""
    store = folder / "store-512"
    if not (store / "manifest.json").is_file():
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(512, 512, generator=generator) / 512**0.5
        writer = LatentStoreWriter(store, (512,), Schema((Attribute("first"),)), {"made": "by step.py"}, "float16")
        z = torch.randn(rows, 512, generator=generator) @ mixing + torch.randn(rows, 512, generator=generator)
        writer.append(z, (z[:, :1] > 0).float(), torch.arange(rows))
        writer.finish()
    return str(store)


def main() -> None:
    """Measures and writes OUT/step.json and OUT/step.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/training"))
    parser.add_argument("--store", default="runs/demo/store")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--big", choices=("true", "false"), default="true")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, list[dict[str, float]]]] = {"loader": {}, "small": {}, "big": {}}

    def add(table: str, name: str, *arguments: Any) -> None:
        found[table].setdefault(name, []).append(one := train(*arguments, options.device))
        print(f"{table}, {name}: {1e3 * one['step']:.1f} ms, waiting {100 * one['waiting']:.2f} %", flush=True)

    for name, loader in rounds(LOADERS, options.rounds):
        add("loader", name, options.store, SMALL, loader, "32-true", options.steps, 20)
    half = ("bf16-mixed", "16-mixed") if options.device == "gpu" else ()
    ways = (("", False), (", compiled", True))
    variants = {"float32": (False, "32-true"), "float32, compiled": (True, "32-true")}
    variants |= {f"{precision}{end}": (on, precision) for precision in half for end, on in ways}
    for name, (compiled, precision) in rounds(variants, options.rounds):
        network = {**SMALL, "compile": compiled}
        add("small", name, options.store, network, LOADERS["in memory"], precision, options.steps, 20)
    if options.big == "true":
        store, steps = synthetic(options.out), options.steps if options.device == "gpu" else max(4, options.steps // 20)
        for name, (compiled, precision) in rounds(variants, 1 if options.device == "cpu" else options.rounds):
            network = {**BIG, "compile": compiled}
            add("big", name, store, network, LOADERS["in memory"], precision, steps, 3)
    record = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if options.device == "gpu" else "cpu",
        "steps": options.steps,
        **{table: {name: median(runs) for name, runs in rows.items()} for table, rows in found.items()},
    }
    (options.out / "step.json").write_text(json.dumps(record, indent=2) + "\n")
    (options.out / "step.md").write_text(to_markdown(record))
    print(to_markdown(record))


def to_markdown(record: dict[str, Any]) -> str:
    """The tables."""
    lines = [f"torch {record['torch']}, {record['threads']} threads, {record['device']}; batch 256", ""]
    for table, title in (("loader", "default prior"), ("small", "default prior"), ("big", "512-d, 10 x 2048")):
        if record[table]:
            lines += [
                f"| {title} | ms a step | waiting for the loader | first steps, s | loss |",
                "|---|---|---|---|---|",
            ]
            lines += [
                f"| {name} | {1e3 * f['step']:.1f} | {100 * f['waiting']:.2f} % | {f['first']:.0f} | {f['loss']:.4f} |"
                for name, f in record[table].items()
            ]
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

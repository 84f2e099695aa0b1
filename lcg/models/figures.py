"""What the run folder beside a checkpoint says of its training: validation figures and the data's options."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import yaml

DATA = ("batch_size", "val_fraction", "seed")
"""Options of the data that are told; others are paths of the machine."""


def run_record(checkpoint: Path, steps: int) -> dict[str, Any]:
    """Entries for `LoadedNetwork.training`, in JSON primitives; empty where there is no run folder.

    Args:
        checkpoint: the .ckpt file; logs lie beside it or one folder further down.
        steps: of training, that the checkpoint was written after.

    Returns:
        `figures`, the last ones of the validation until then, the step `figures_at` which they were measured, and
        `data`, options of the data module.
    """
    tables = [*checkpoint.parent.glob("metrics.csv"), *checkpoint.parent.glob("*/metrics.csv")]
    if not tables:
        return {}
    table = max(tables, key=lambda path: path.stat().st_mtime)
    return {**_last_figures(table, steps), **_data_options(table.with_name("config.yaml"))}


def _last_figures(table: Path, steps: int) -> dict[str, Any]:
    last: dict[str, str] = {}
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("val/loss") and int(row["step"]) < steps:
                last = row
    figures = {name: float(text) for name, text in last.items() if text and name.startswith("val/")}
    if not figures:
        return {}
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}  # no label: no figure
    return {"figures": finite, "figures_at": int(last["step"]) + 1}


def _data_options(config: Path) -> dict[str, Any]:
    if not config.is_file():
        return {}
    data = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("data", {})
    options = data.get("init_args", data)
    return {"data": {name: options[name] for name in DATA if name in options}}

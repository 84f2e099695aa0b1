"""`python -m lcg.benchmarks.speed`: every candidate against every peer, at every size, into one file and its tables."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcg import __version__
from lcg.benchmarks.speed.candidate import Candidate, agreement
from lcg.benchmarks.speed.flops import guided_step
from lcg.benchmarks.speed.lace import energies, lace_runs
from lcg.benchmarks.speed.nets import WIDE_TIME, Nets, build
from lcg.benchmarks.speed.ours import ours
from lcg.benchmarks.speed.peak import gemm_rates
from lcg.benchmarks.speed.peers import peers
from lcg.benchmarks.speed.plan import Plan, full, quick
from lcg.benchmarks.speed.scales import scale_runs
from lcg.benchmarks.speed.table import to_markdown
from lcg.benchmarks.speed.timing import Timing, alternate, clock_of, one_core, ratios, summary
from lcg.data.atomic import write_atomic

CHECKED_ROWS, CHECKED_STEPS = 4, 10
"""Of the comparison in float64."""


def speed_job(out: str = "runs/speed", fast: bool = False, plan: Plan | None = None) -> int:
    """Measures, and writes OUT/speed.json and OUT/speed.md, in place of those of an earlier run.

    Args:
        out: folder for the results.
        fast: the quick plan instead of the full one.
        plan: another one.

    Raises:
        NotADirectoryError: out is a file.
        RuntimeError: a candidate does not have the results of its reference.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`out` must be a folder, got the file {folder}; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with one_core() as core:
        record = {"machine": machine(device, core), "quick": fast}
        record |= measure(plan or (quick() if fast else full(device)), device)
    write_atomic(folder / "speed.json", (json.dumps(record, indent=2) + "\n").encode())
    write_atomic(folder / "speed.md", to_markdown(record).encode())
    print(to_markdown(record))
    return 0


def measure(plan: Plan, device: torch.device) -> dict[str, Any]:
    """All measurements of a plan, as JSON primitives."""
    clock = clock_of(device)
    peaks = {
        _name(dtype): gemm_rates(plan.products, dtype, device, plan.repeats, plan.target, clock)
        for dtype in plan.precisions
    }
    best = {name: max(rates.values()) for name, rates in peaks.items()}
    run = partial(alternate, repeats=plan.repeats, target=plan.target, clock=clock)
    checks, cells = [], []
    for shape in plan.shapes:
        candidates = (*peers(), *ours(device, plan.compiled and shape.time_features == WIDE_TIME))
        found = agreement(candidates, shape, CHECKED_STEPS, CHECKED_ROWS, device)
        checks.append({"shape": shape.name, "time_features": shape.time_features, "candidates": found})
        nets = build(shape, device=device)
        for batch in plan.batches:
            for dtype in plan.precisions:
                _say(f"measuring: {shape.name}, {shape.time_features} time features, batch {batch}, {_name(dtype)}")
                cells.append(_guided_cell(plan, nets, candidates, batch, dtype, best[_name(dtype)], run))
    latent, hidden = plan.lace
    lace_nets, lace, scales = energies(latent, hidden=hidden, device=device), [], []
    for batch in plan.batches:
        _say(f"measuring: LACE's equation, batch {batch}")
        lace.append({"batch": batch, "candidates": compared(run(lace_runs(lace_nets, batch)))})
    nets = build(plan.shapes[0], device=device)
    for batch in plan.scale_batches:
        _say(f"measuring: scales, batch {batch}")
        steps = plan.steps(9 * 2 * guided_step(nets).shared(batch), 1e9 * best["float32"])
        candidates_of = compared(run(scale_runs(nets, steps, batch)), units=steps)
        scales.append({"shape": nets.shape.name, "batch": batch, "steps": steps, "candidates": candidates_of})
    return {"peaks_gflops": peaks, "checks": checks, "guided": cells, "lace": lace, "scales": scales}


Runner = Callable[[Mapping[str, Callable[[], object]]], dict[str, Timing]]


def _guided_cell(
    plan: Plan,
    nets: Nets,
    candidates: tuple[Candidate, ...],
    batch: int,
    dtype: torch.dtype,
    peak: float,
    run: Runner,
) -> dict[str, Any]:
    """One table line of every candidate: a guided step of these networks, at this batch and precision."""
    work, noise = guided_step(nets), nets.noise(batch)
    steps = plan.steps(2 * work.repeated(batch), 1e9 * peak)
    used = {c.name: c for c in candidates if c.batches[0] <= batch <= c.batches[1]}
    runs = {name: partial(_under, dtype, c.build(nets, steps), noise) for name, c in used.items()}
    lines = compared(run(runs), units=steps)
    for name, line in lines.items():
        needed = used[name].work(nets).shared(batch)
        line["share_of_peak"] = 2e-9 * needed / line["seconds"]["median"] / peak
        _say(f"  {name}: {1e3 * line['seconds']['median']:.3g} ms a step, {line['speed']['median']:.2f}")
    return {
        "shape": nets.shape.name,
        "time_features": nets.shape.time_features,
        "batch": batch,
        "precision": _name(dtype),
        "steps": steps,
        "multiply_adds": work.shared(batch),
        "multiply_adds_with_a_time_per_row": work.repeated(batch),
        "candidates": lines,
    }


def compared(found: Mapping[str, Timing], units: int = 1) -> dict[str, dict[str, Any]]:
    """Seconds per unit, of which a call has `units`, and how many times faster than the first one, by name."""
    first = next(iter(found.values()))
    return {
        name: {
            "seconds": summary([seconds / units for seconds in timing.rounds]),
            "speed": ratios(first.rounds, timing.rounds),
            "rounds": [seconds / units for seconds in timing.rounds],
            "first_call": timing.first,
        }
        for name, timing in found.items()
    }


def machine(device: torch.device, core: int | None) -> dict[str, Any]:
    """Where and with what."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lcg": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "pinned_to_core": core,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "float32_products": torch.get_float32_matmul_precision(),
        "clock": "wall time, synchronised" if device.type == "cuda" else "CPU time of the process",
    }


def _processor() -> str:
    """Model of the CPU, with what decides how fast it multiplies."""
    capability = torch.backends.cpu.get_cpu_capability()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} ({capability})"


def _under(dtype: torch.dtype, loop: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
    """The loop with its networks in a precision, its state being in that of the noise."""
    with nullcontext() if dtype == noise.dtype else torch.autocast(noise.device.type, dtype):
        return loop(noise)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _say(what: str) -> None:
    print(what, flush=True)

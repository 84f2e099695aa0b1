"""`lcg verify`: the conformance suite as a command.

Without checkpoints it verifies lcg itself, on this machine, in worlds where every answer is known. With those of a
prior and of a classifier it verifies these: what no exact pair could fail, and what to do about it.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lcg import __version__
from lcg.conformance.figures import CAPTION, PAIR_CAPTION, draw_pair, draw_suite
from lcg.conformance.laboratory import FULL, QUICK, Laboratory
from lcg.conformance.outcome import Check, Outcome
from lcg.conformance.pair import read_pair
from lcg.conformance.results import summary, to_csv, to_html, to_text
from lcg.conformance.suite import checks, run
from lcg.conformance.trained import pair_checks
from lcg.data.atomic import write_atomic
from lcg.models.names import find_model

QUICK_SAMPLES, FULL_SAMPLES = 600, 2000
"""How many latents a trained prior draws."""


def verify_job(
    out: str = "runs/verify",
    quick: bool = False,
    seed: int = 0,
    checkpoint: list[str] = [],  # noqa: B006 (never changed; the default is the help)
    model: str | None = None,
    store: str | None = None,
    val_fraction: float = 0.05,
) -> int:
    """Checks lcg against closed forms, or a trained pair against what every exact pair satisfies.

    Writes OUT/verify.csv, OUT/verify.html, OUT/verify.png and OUT/provenance.json, in place of those of an earlier
    run, and ends with exit code 1 if something did not come out as it should.

    Args:
        out: folder for the results.
        quick: fewer samples and wider bounds, half a minute instead of a few.
        seed: of all random numbers.
        checkpoint: files of a prior and of a classifier, in any order, to verify instead of lcg itself.
        model: in their place, name or folder of an exported model.
        store: the latent store that they were fitted on; without it nothing is said about data.
        val_fraction: share of its latents that was held out from fitting.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`out` must be a folder, got the file {folder}; choose another")
    if seed < 0:
        raise ValueError(f"`seed` must be >= 0, got {seed}")
    if model is not None:
        if checkpoint:
            raise ValueError("`model` brings its own prior and classifiers; give --model or --checkpoint, not both")
        checkpoint = [str(find_model(model))]
    if store is not None and not checkpoint:
        raise ValueError("`store` goes with the checkpoints that were fitted on it; give --checkpoint, or no store")

    plan = plan_pair(checkpoint, store, val_fraction, quick, seed) if checkpoint else plan_suite(quick, seed)
    folder.mkdir(parents=True, exist_ok=True)

    started = time.perf_counter()
    with threads(plan.threads):
        outcomes = measure(plan.checks)
        plan.draw(outcomes, folder / "verify.png")
    seconds = time.perf_counter() - started
    provenance = {
        "summary": summary(outcomes, seconds),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lcg": __version__,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform()},
        "command": command(out, quick, seed, checkpoint, store, val_fraction),
        "seed": seed,
        "quick": quick,
        "sizes": plan.sizes,
        "checkpoint": checkpoint,
        "store": store,
        "seconds": round(seconds, 1),
        "failed": [str(outcome.check) for outcome in outcomes if not outcome.passed],
        "picture": plan.caption,
    }
    write_atomic(folder / "verify.csv", to_csv(outcomes).encode())
    write_atomic(folder / "provenance.json", (json.dumps(provenance, indent=2) + "\n").encode())
    write_atomic(folder / "verify.html", to_html(outcomes, folder / "verify.png", provenance).encode())
    print(f"{to_text(outcomes)}\n\n{provenance['summary']}: {folder / 'verify.html'}")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        checks: all of them.
        sizes: how much is measured, for the record.
        draw: makes the picture of the outcomes, at a path.
        caption: of the picture.
        threads: how many torch may use; None for as many as it does.
    """

    checks: list[Check]
    sizes: dict[str, int]
    draw: Callable[[Sequence[Outcome], Path], None]
    caption: str
    threads: int | None = None


def plan_suite(quick: bool, seed: int) -> Plan:
    """The verification of lcg itself."""
    lab = Laboratory(QUICK if quick else FULL, seed)
    return Plan(checks(lab), asdict(lab.sizes), partial(draw_suite, lab), CAPTION, threads=1)


def plan_pair(checkpoint: list[str], store: str | None, val_fraction: float, quick: bool, seed: int) -> Plan:
    """The verification of a trained pair. Raises as `read_pair` does."""
    samples = QUICK_SAMPLES if quick else FULL_SAMPLES
    pair = read_pair(checkpoint, store, val_fraction, samples, seed)
    return Plan(list(pair_checks(pair)), {"samples": samples}, partial(draw_pair, pair), PAIR_CAPTION)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Lets torch use so many threads, for a while.

    The suite's arrays are small: a second thread gains little on an idle machine, and where others are at work the
    two wait for each other, for several times as long as one would have taken.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(planned: list[Check]) -> list[Outcome]:
    """Makes the checks, under a bar that says which one is being made and how many have failed."""
    outcomes: list[Outcome] = []
    with tqdm(total=len(planned), unit="check", disable=None, file=sys.stderr) as bar:
        for outcome in run(_announced(planned, bar)):
            outcomes.append(outcome)
            bar.update()
            bar.set_postfix(failed=sum(not o.passed for o in outcomes))
    return outcomes


def _announced(planned: list[Check], bar: tqdm[Any]) -> Iterator[Check]:
    for check in planned:
        bar.set_description(check.group)
        yield check


def command(out: str, quick: bool, seed: int, checkpoint: list[str], store: str | None, val_fraction: float) -> str:
    """What to type to get these results again."""
    words = ["lcg verify", f"--out {out}", f"--seed {seed}"]
    if quick:
        words.append("--quick true")
    if checkpoint:
        words += [f"--checkpoint {' '.join(checkpoint)}", f"--val_fraction {val_fraction:g}"]
    if store is not None:
        words.append(f"--store {store}")
    return " ".join(words)

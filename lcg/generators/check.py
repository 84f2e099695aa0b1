"""Does a generator keep its contract? What guidance, stores and edits take for granted, tried on a few latents.

Each check has a verdict, a figure and, where something is wrong, one sentence that tells how to mend it. A check that
needs what another found wrong is not made, so one fault is reported once; an exception in the generator's code is a
finding with its place.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lcg.generators import check_decoding, check_parts
from lcg.generators import trial as trial_module
from lcg.generators.base import Generator
from lcg.generators.trial import Absent, Doubtful, Trial, Wrong

Verdict = Literal["ok", "warning", "wrong", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        verdict: "ok", "warning", "wrong" or "not applicable".
        figure: what was measured.
        advice: one sentence that tells how to mend it; empty where nothing is to be mended.
    """

    name: str
    verdict: Verdict
    figure: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """One check: its name, what makes it, and the names of those without which it makes no sense."""

    name: str
    make: Callable[[Trial], str]
    needs: tuple[str, ...] = ()


SHAPES = ("latent shape", "image shape")
SOUND = ("decode: shape", "decode: type and device", "decode: finite")
CHECKS = (
    Check("latent shape", check_parts.check_latent_shape),
    Check("image shape", check_parts.check_image_shape),
    Check("frozen", check_parts.check_frozen),
    Check("decode: shape", check_decoding.check_decode, SHAPES),
    Check("decode: type and device", check_decoding.check_decode_type, ("decode: shape",)),
    Check("decode: finite", check_decoding.check_decode_finite, ("decode: shape",)),
    Check("decode: range", check_decoding.check_decode_range, SOUND),
    Check("decode: determinism", check_decoding.check_decode_determinism, SOUND),
    Check("decode: independent rows", check_decoding.check_decode_independence, ("decode: determinism",)),
    Check("decode: gradient", check_decoding.check_gradient, SOUND),
    Check("decode: slope", check_decoding.check_slope, ("decode: gradient", "decode: determinism")),
    Check("encode", check_parts.check_encode, SOUND),
    Check("encode: determinism", check_parts.check_encode_determinism, ("encode",)),
    Check("encode: round trip", check_parts.check_round_trip, ("encode",)),
    Check("sample_latents", check_parts.check_sample_latents, SHAPES),
    Check("identity", check_parts.check_identity, SHAPES),
    Check("weights", check_parts.check_unchanged),
)


def check_generator(
    generator: Generator | Callable[[], Generator],
    read: Callable[[tuple[int, int, int]], Tensor] | None = None,
    rows: int = 16,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[Finding]:
    """Tries a generator, check after check.

    Args:
        generator: itself, which is then frozen and moved to the device, or what makes it, such as its class; then it
            is made twice, and its constructor is checked too.
        read: gives images (B, C, H, W) in [-1, 1] of the shape (C, H, W) to encode; None for images of its own.
        rows: how many latents are decoded at once, at least 2.
        seed: of the random numbers.
        device: where.

    Yields:
        What was found, check by check.

    Raises:
        ValueError: fewer than two rows.
    """
    if rows < 2:
        raise ValueError(f"`rows` must be at least 2, got {rows}; rows are compared with one another")
    build = None if isinstance(generator, nn.Module) else generator
    found: dict[str, Verdict] = {}
    try:
        made = generator() if build is not None else generator
        if not isinstance(made, Generator):
            raise Wrong(type(made).__name__, "Derive the class from lcg.generators.base.Generator.")
        trial = Trial(made.to(device).eval().requires_grad_(False), build, read, rows, seed)
    except Exception as error:
        yield verdict_of("construction", error)
        return
    yield Finding("construction", "ok", type(made).__name__)
    for check in CHECKS:
        if missing := [name for name in check.needs if found[name] not in ("ok", "warning")]:
            finding = Finding(check.name, "not applicable", f"needs `{missing[0]}`")
        else:
            finding = make(check, trial)
        found[check.name] = finding.verdict
        yield finding


def make(check: Check, trial: Trial) -> Finding:
    """Makes one check."""
    try:
        return Finding(check.name, "ok", check.make(trial))
    except Exception as error:
        return verdict_of(check.name, error)


def verdict_of(name: str, error: Exception) -> Finding:
    """What an exception says: a finding of ours, or a fault in the generator's code, with its place."""
    if isinstance(error, Absent):
        return Finding(name, "not applicable", str(error))
    if isinstance(error, Wrong):
        return Finding(name, "warning" if isinstance(error, Doubtful) else "wrong", error.figure, error.advice)
    frames = traceback.extract_tb(error.__traceback__)
    skipped = (
        str(Path(torch.__file__).parent),
        __file__,
        trial_module.__file__,
        check_decoding.__file__,
        check_parts.__file__,
    )
    frame = next((frame for frame in reversed(frames) if not frame.filename.startswith(skipped)), frames[-1])
    reason = (str(error).strip().splitlines() or ["no message"])[0]
    return Finding(
        name,
        "wrong",
        f"{type(error).__name__}: {reason}",
        f"Mend {frame.name} in {frame.filename}, line {frame.lineno}, or what it was given: it raised this error.",
    )


def table(findings: Sequence[Finding]) -> str:
    """A line for each finding, and one beneath for how to mend it."""
    width = max(len(finding.name) for finding in findings) + 2
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.verdict:<16}{finding.name:<{width}}{finding.figure}")
        if finding.advice:
            lines.append(f"{'':<16}-> {finding.advice}")
    return "\n".join(lines)

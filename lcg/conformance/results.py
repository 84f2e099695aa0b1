"""What a run leaves behind: a table for the terminal, verify.csv, provenance.json and a page for the browser.

verify.csv is tidy, a row per number: group, world, method, task, metric, expected (right, or wrong for a negative
control), value, floor (what exact samples score), bound, verdict (ok or FAILED), n, seconds, error. A check that broke
down has one row, without a metric.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lcg.conformance.outcome import Measurement, Outcome

COLUMNS = (
    "group",
    "world",
    "method",
    "task",
    "metric",
    "expected",
    "value",
    "floor",
    "bound",
    "verdict",
    "n",
    "seconds",
    "error",
)
OK, FAILED = "ok", "FAILED"
TEMPLATE = "page.html.j2"

ABOUT = {
    "scores": "guided scores and log-probabilities against closed forms, no chance in them",
    "likelihood": "log p(z_0) against the density of the mixture",
    "samplers": "every sampler, on a plain prior and on one guided by the exact joint",
    "formulas": "every connective, guided by the exact joint or by a joint head",
    "correctors": "a product of separate classifiers, corrected at each noise level",
    "particles": "a product of separate classifiers, weighted; and P(formula)",
    "controls": "negative controls, which must come out wrong",
    "average": "E p(y | z_t, t) = P(y) at every noise level",
    "calibration": "what is said to be probable p is true p of the time",
    "regression": "the prior's z_0_hat is the mean of z_0",
    "path": "E p(y | z_t, t) stays the same along the prior's own path",
    "consistency": "samples that are noised and denoised again are samples still",
    "ends": "samples look like the store's latents",
}
"""What each group of checks is about."""


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """verify.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for outcome in outcomes:
        check, seconds = outcome.check, f"{outcome.seconds:.3f}"
        who = check.group, check.world, check.method, check.task
        if not outcome.measurements:
            writer.writerow((*who, "", "", "", "", "", FAILED, "", seconds, outcome.error))
        for m in outcome.measurements:
            floor, n = "" if m.floor is None else f"{m.floor:.6g}", "" if m.n is None else m.n
            numbers = f"{m.value:.6g}", floor, f"{m.bound:.6g}", verdict(m)
            writer.writerow((*who, m.metric, m.expected, *numbers, n, seconds, ""))
    return text.getvalue()


def verdict(measurement: Measurement) -> str:
    """ok or FAILED."""
    return OK if measurement.passed else FAILED


def number(value: float | None) -> str:
    """Four decimals, or an exponent where they would not tell anything; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def bound_of(measurement: Measurement) -> str:
    """The bound, with the side on which the value must be."""
    return f"{'<=' if measurement.expected == 'right' else '>='} {number(measurement.bound)}"


def to_text(outcomes: Sequence[Outcome]) -> str:
    """The table for the terminal: a line per number, under its group; failures say what to do."""
    rows: list[tuple[str, ...]] = []
    for outcome in outcomes:
        who = outcome.check.method, outcome.check.task, outcome.check.world
        if not outcome.measurements:
            rows.append((outcome.check.group, FAILED, *who, "broke down", "-", "-", "-"))
        for m in outcome.measurements:
            numbers = number(m.value), number(m.floor), bound_of(m)
            rows.append((outcome.check.group, verdict(m), *who, m.metric, *numbers))
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(9)]
    lines: list[str] = []
    for group, members in groupby(rows, key=lambda row: row[0]):
        lines += [
            "",
            f"{group}: {ABOUT.get(group, '')}",
            _line(("", "", "method", "task", "world", "metric", *HEAD), widths),
        ]
        lines += [_line(row, widths) for row in members]
    for outcome in outcomes:
        if not outcome.passed:
            lines += ["", f"FAILED  {outcome.check}"]
            lines += [f"        {text}" for text in reasons(outcome)]
    return "\n".join(lines).lstrip("\n")


HEAD = ("value", "floor", "bound")


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(row[1:6], widths[1:6], strict=True)]
    right = [cell.rjust(max(width, 5)) for cell, width in zip(row[6:], widths[6:], strict=True)]
    return "  " + "  ".join([*left, *right]).rstrip()


def reasons(outcome: Outcome) -> list[str]:
    """Why a check failed, and what to do about it."""
    if outcome.error:
        return [outcome.error]
    found = []
    for m in outcome.measurements:
        if not m.passed:
            found.append(
                f"{m.metric} is {number(m.value)}, expected {bound_of(m)}{f'; {m.advice}' if m.advice else ''}"
            )
    return found


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """One sentence."""
    failed = sum(not outcome.passed for outcome in outcomes)
    if failed:
        return f"{failed} of {len(outcomes)} checks did not come out as they should, in {seconds:.0f} s"
    return f"all {len(outcomes)} checks came out as they should, in {seconds:.0f} s"


def to_html(outcomes: Sequence[Outcome], figure: Path, provenance: dict[str, Any]) -> str:
    """The page: verdict, picture, what failed, every number. It loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        groups=[(name, list(members)) for name, members in groupby(outcomes, key=lambda o: o.check.group)],
        about=ABOUT,
        failed=[outcome for outcome in outcomes if not outcome.passed],
        reasons=reasons,
        number=number,
        bound_of=bound_of,
        picture="data:image/png;base64," + base64.b64encode(figure.read_bytes()).decode(),
        provenance=provenance,
    )

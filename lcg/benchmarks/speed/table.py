"""The tables that a reader sees: speeds relative to the first candidate, seconds beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]


def to_markdown(record: Record) -> str:
    """All tables of a record that the job has written."""
    return "\n\n".join([_head(record), *_guided(record), _checks(record), _lace(record), _scales(record)]) + "\n"


def _head(record: Record) -> str:
    machine = record["machine"]
    peaks = [f"{name} {max(rates.values()):.0f} GFLOP/s" for name, rates in record["peaks_gflops"].items()]
    return "\n".join(
        (
            "# Speed of guided steps",
            "",
            f"{machine['processor']}, {machine['threads']} thread on one of {machine['cores']} cores; device "
            f"{machine['device']}; torch {machine['torch']}; {machine['clock']}; {machine['created']}. "
            f"Peak in this run, of torch.mm and of prepacked matrices: {', '.join(peaks)}.",
            "",
            "Speeds are relative to the first line, medians of the rounds with quartiles in brackets. The share of the "
            "peak counts what a step needs, that is, what depends on the time alone once for all rows. Loops are "
            "called again and again, and keep what they keep between calls; the first call, with what it prepares or "
            "compiles, is not in the medians.",
        )
    )


def _guided(record: Record) -> Iterable[str]:
    for cell in record["guided"]:
        title = (
            f"## Guided step: {cell['shape']}, {cell['time_features']} time features, batch {cell['batch']}, "
            f"{cell['precision']} ({cell['steps']} steps)"
        )
        yield f"{title}\n\n" + _table(
            ("candidate", "ms a step", "speed", "share of peak", "first call, s"),
            [
                (
                    name,
                    _milliseconds(line),
                    _speed(line),
                    f"{100 * line['share_of_peak']:.0f} %",
                    f"{line['first_call']:.2g}",
                )
                for name, line in cell["candidates"].items()
            ],
        )


def _checks(record: Record) -> str:
    rows = [
        (
            f"{check['shape']}, {check['time_features']}",
            name,
            f"{found['float64']:.1e}",
            f"{found['tolerance']:.0e}",
            f"{found['float32']:.1e}",
        )
        for check in record["checks"]
        for name, found in check["candidates"].items()
    ]
    heads = ("networks", "candidate", "in float64", "allowed", "in float32")
    return "## Largest relative difference from the reference\n\n" + _table(heads, rows)


def _lace(record: Record) -> str:
    rows = [
        (str(cell["batch"]), name, _milliseconds(line), _speed(line))
        for cell in record["lace"]
        for name, line in cell["candidates"].items()
    ]
    title = "## One evaluation of LACE's equation, eight attributes"
    return f"{title}\n\n" + _table(("batch", "candidate", "ms", "speed"), rows)


def _scales(record: Record) -> str:
    rows = [
        (cell["shape"], str(cell["batch"]), name, _milliseconds(line), _speed(line))
        for cell in record["scales"]
        for name, line in cell["candidates"].items()
    ]
    title = "## Nine guidance scales of the same noise"
    return f"{title}\n\n" + _table(("networks", "batch", "candidate", "ms a step of all", "speed"), rows)


def _milliseconds(line: Record) -> str:
    return f"{1e3 * line['seconds']['median']:.3g}"


def _speed(line: Record) -> str:
    speed = line["speed"]
    return f"{speed['median']:.2f} ({speed['q1']:.2f}-{speed['q3']:.2f})"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(heads)
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

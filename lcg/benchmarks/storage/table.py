"""The tables that a reader sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]


def to_markdown(record: Record) -> str:
    """All tables of a record that the job has written."""
    return "\n\n".join([_head(record), _batches(record), _runs(record), _large(record)]) + "\n"


def _head(record: Record) -> str:
    machine, size = record["machine"], record["sizes"]["read"]
    return (
        "# The latent store: reading, memory and a large store\n\n"
        f"{machine['processor']}, one thread of {machine['cores']} cores; torch {machine['torch']}; "
        f"{machine['created']}. "
        f"{size['rows']:,} x {size['elements']} in float16 ({size['megabytes']:,.0f} MB), wall time, medians with "
        "quartiles in brackets; each measurement in a new process. Growth is the most that the process grew, pages of "
        "mapped files included. Cold files were dropped from the cache of this system; a virtual disk may have another."
    )


def _batches(record: Record) -> str:
    rows = [
        (name, state, _spread(found["rows"]), f"{found['rows_of_cpu']['median']:,.0f}", _most(found), _disk(found))
        for state, readers in record["batches"].items()
        for name, found in readers.items()
    ]
    title = f"## Random batches of {record['batch']} rows, as float32"
    heads = ("reader", "cache", "rows/s", "rows/s of CPU time", "growth, MB", "from disk, MB")
    return f"{title}\n\n" + _table(heads, rows)


def _runs(record: Record) -> str:
    rows = [
        (name, state, _spread(found["megabytes"]), _most(found))
        for state, readers in record["runs"].items()
        for name, found in readers.items()
    ]
    return "## From end to end\n\n" + _table(("reader", "cache", "MB/s", "growth, MB"), rows)


def _large(record: Record) -> str:
    large, size = record["large"], record["sizes"]["large"]
    done = large["epoch"]
    rows = [
        (what, f"{found['seconds']:,.1f}", f"{found['rows']:,.0f}", f"{found['growth']:.0f}")
        for what, found in (
            ("build (without drawing the numbers)", large),
            ("statistics and seal", large["statistics"]),
            ("one epoch in random batches, latents and labels, warm", done),
        )
    ]
    shape = f"{size['rows']:,} x {size['elements']}"
    title = f"## {shape} in float16 ({size['megabytes']:,.0f} MB) in {large['shards']:,} shards"
    note = f"Opened in {done['open']:.2f} s; {done['open_files']} files open after the epoch."
    return f"{title}\n\n" + _table(("what", "s", "rows/s", "growth, MB"), rows) + f"\n\n{note}"


def _spread(found: Record) -> str:
    return f"{found['median']:,.0f} ({found['q1']:,.0f}-{found['q3']:,.0f})"


def _most(found: Record) -> str:
    return f"{found['growth']['median']:.0f}"


def _disk(found: Record) -> str:
    return f"{found['from_disk']['median']:.0f}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(heads)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ("---",) * len(heads), *rows))

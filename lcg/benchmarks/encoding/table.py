"""The tables that a reader sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]


def to_markdown(record: Record) -> str:
    """All tables of a record that the job has written."""
    return "\n\n".join([_head(record), *_encoders(record), _files(record)]) + "\n"


def _head(record: Record) -> str:
    machine, settings = record["machine"], record["settings"]
    sizes = ", ".join(f"{kind} {size:.1f} KB" for kind, size in settings["kilobytes"].items())
    return (
        "# The encode job beside the encoder alone\n\n"
        f"{machine['processor']}, {settings['threads']} threads of {machine['cores']} cores; torch {machine['torch']}; "
        f"{machine['created']}. Images of 64 x 64 ({sizes} a file, from the system's cache), batches of "
        f"{settings['batch']}, wall time, medians with quartiles in brackets; each measurement in a new process. The "
        "job reads, converts, encodes, writes and syncs. Threads that wait for others may count as CPU time. Growth is "
        "the most that the process grew."
    )


def _encoders(record: Record) -> Iterable[str]:
    for encoder, told in record["encoders"].items():
        rows = [
            (
                "the encoder alone" if name == "alone" else f"the job, {name}",
                _spread(found["images"]),
                _percent(found["share_of_images"]),
                f"{found['images_of_cpu']['median']:,.0f}",
                _percent(found["share_of_images_of_cpu"]),
                f"{found['growth']['median']:.0f}",
            )
            for name, found in told["rounds"].items()
        ]
        heads = ("what", "images/s", "of alone", "images/s of CPU time", "of alone", "growth, MB")
        yield f"## The {encoder} encoder, {told['count']:,} images\n\n" + _table(heads, rows)


def _files(record: Record) -> str:
    rows = [
        (kind, name, _spread(found["images"]), f"{found['images_of_cpu']['median']:,.0f}")
        for kind, works in record["files"].items()
        for name, found in works.items()
    ]
    heads = ("files", "what", "images/s", "images/s of CPU time")
    return "## Files without an encoder: reading them, and the first look at them\n\n" + _table(heads, rows)


def _spread(found: Record) -> str:
    return f"{found['median']:,.0f} ({found['q1']:,.0f}-{found['q3']:,.0f})"


def _percent(found: Record) -> str:
    return f"{found['median']:.0%} ({found['q1']:.0%}-{found['q3']:.0%})"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(heads)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ("---",) * len(heads), *rows))

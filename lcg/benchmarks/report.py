"""A benchmark's directory becomes one HTML file: pictures first, then numbers, then how to reproduce them.

    DIR/results.csv        tidy results, see `lcg.benchmarks.estimates`
    DIR/provenance.json    title, created, lcg, versions, config, commands, notes (sentences that the reader must see,
                           the first of which says what generator, judge and prior have seen);
                           and, where there are any, zero_shot (tasks), judge, generator, store, seconds
    DIR/pictures.json      a list of {file, kind, method, task, title, caption}; file is a PNG, relative to DIR

The page loads nothing: pictures are data URIs, charts inline SVG, fonts the system's, and a content security policy
keeps it so. Nothing is computed but means and standard errors over seeds; every row of the csv is at the page's end.

Where a result is said to be beyond what the prior has seen (a task in `zero_shot`, a picture whose text says so), the
first note stands beside it, since a generator or a judge that has seen it makes another claim of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lcg.benchmarks.estimates import Results, read_rows
from lcg.benchmarks.inputs import KINDS, Picture, claimed, read_pictures, read_provenance
from lcg.benchmarks.sections import glossary, name_of, sections
from lcg.benchmarks.tables import describe, label_of
from lcg.data.atomic import write_atomic

TEMPLATE = "template.html.j2"
UNDER_PICTURES = {
    "unconditional": ("frechet_distance",),
    "formula": ("joint_accuracy", "sharp"),
    "comparison": (),
    "edit": ("edit_success", "kept_fine"),
    "reconstruction": (),
}


def report_job(directory: str, out: str | None = None) -> None:
    """Writes a benchmark's results as one self-contained HTML page, which can be sent to anybody and opens anywhere.

    Pictures come first (samples, formulas with the methods side by side, all methods on the same sources, edits), then
    a table per group of tasks, then what it takes to reproduce them. The page only shows what `lcg bench` has written.

    Args:
        directory: of the benchmark, with results.csv, provenance.json and pictures.json.
        out: the file to write; report.html beside the directory by default.

    Raises:
        FileNotFoundError: the directory, one of its files or one of its pictures is missing.
        ValueError: one of the files does not hold what it should; the message says where.
    """
    source = Path(directory)
    target = source.resolve().parent / "report.html" if out is None else Path(out)
    if target.is_dir():
        raise ValueError(f"`out` must be a file, got the directory {target}; write --out {target / 'report.html'}")
    page = render(source).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, page)
    print(f"{target} ({len(page) / 1e6:.1f} MB)")


def render(directory: Path) -> str:
    """The page as HTML. Raises as `report_job` does."""
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a directory; `lcg bench --out {directory}` makes it")
    results = Results(tuple(read_rows(directory / "results.csv")))
    provenance = read_provenance(directory / "provenance.json")
    pictures = read_pictures(directory)
    claims = claimed(provenance, pictures, results)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        provenance=provenance,
        details=details(provenance),
        config=yaml.safe_dump(provenance["config"], sort_keys=False, allow_unicode=True, width=100),
        pictures={kind: gallery([p for p in pictures if p.kind == kind], results, claims) for kind in KINDS},
        widths=sorted({p.width for p in pictures}),
        sections=sections(results, claims),
        glossary=glossary(results),
        methods=len(results.methods),
        rows=results.rows,
        label_of=label_of,
    )


# --- pictures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A picture with the numbers that belong to it."""

    picture: Picture
    numbers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Exhibit:
    """The pictures of one task, methods side by side."""

    name: str
    zero_shot: bool
    figures: tuple[Figure, ...]

    @property
    def title(self) -> str:
        """The title that all pictures share, unless it only repeats the name."""
        titles = {figure.picture.title for figure in self.figures}
        return titles.pop() if len(titles) == 1 and titles != {self.name} else ""


def gallery(pictures: Sequence[Picture], results: Results, claims: frozenset[str]) -> list[Exhibit]:
    """Pictures of one kind, gathered by task in the order of the file."""
    rank = {method: i for i, method in enumerate(results.methods)}
    exhibits = []
    for task in dict.fromkeys(picture.task for picture in pictures):
        shown = [picture for picture in pictures if picture.task == task]
        shown.sort(key=lambda picture: rank.get(picture.method, len(rank)))
        figures = tuple(Figure(p, _numbers_under(p, results)) for p in shown)
        exhibits.append(Exhibit(name_of(task), task in claims, figures))
    return exhibits


def _numbers_under(picture: Picture, results: Results) -> tuple[tuple[str, str], ...]:
    found = ((m, results.get(picture.method, picture.task, m)) for m in UNDER_PICTURES[picture.kind])
    return tuple((describe(m).label, f"{e.value:.{min(describe(m).decimals, 2)}f}") for m, e in found if e is not None)


# --- provenance ------------------------------------------------------------------------------------------------------


def details(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What the results were made with: a list of names and values for every part of the provenance but its text."""
    told = {"title", "created", "lcg", "config", "commands", "notes", "zero_shot"}
    parts = []
    for name, value in provenance.items():
        if name not in told and value not in ({}, [], "", None):
            heading = "time" if name == "seconds" else name.replace("_", " ")
            parts.append((heading, list(_flat(value, seconds=name == "seconds"))))
    return parts


def _flat(value: Any, prefix: str = "", seconds: bool = False) -> list[tuple[str, str]]:
    """Nested names joined by dots."""
    if isinstance(value, dict):
        return [pair for name, inner in value.items() for pair in _flat(inner, f"{prefix}.{name}".strip("."), seconds)]
    if seconds and isinstance(value, int | float) and not isinstance(value, bool):
        return [(prefix, _duration(value))]
    if isinstance(value, list):
        return [(prefix, ", ".join(map(str, value)))]
    return [(prefix, f"{value:.6g}" if isinstance(value, float) else str(value))]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"

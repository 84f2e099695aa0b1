"""A benchmark's directory becomes one HTML file: pictures first, then numbers, then how to reproduce them.

    DIR/results.csv        tidy results, see `lcg.benchmarks.results.estimates`
    DIR/costs.csv          the same of costs, where they were measured
    DIR/comparisons.csv    methods compared pair by pair, where they were, see `lcg.benchmarks.results.pairs`
    DIR/provenance.json    title, created, lcg, versions, config, commands, notes (sentences that the reader must see,
                           the first of which says what generator, judge and prior have seen);
                           and, where there are any, folder, zero_shot (tasks), judge, generator, store, seconds
    DIR/pictures.json      a list of {file, kind, method, task, title, caption}; file is a PNG, relative to DIR

Beside the page stand its tables as Markdown and as LaTeX, see `lcg.benchmarks.report.paper_tables`.

The page loads nothing: pictures are data URIs, charts inline SVG, fonts the system's, and a content security policy
keeps it so. Nothing is computed but means and standard errors over seeds and, for the first look, over the tasks of a
group; the csv files are at the page's end. With many methods, what is not the first thing to see is folded; print
unfolds everything. With `folder` in the provenance, every figure and table has the commands that make it again.

Where a result is said to be beyond what the prior has seen (a task in `zero_shot`, a picture whose text says so), the
first note stands beside it, since a generator or a judge that has seen it makes another claim of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lcg.benchmarks.report import paper_tables
from lcg.benchmarks.report.commands import command_for
from lcg.benchmarks.report.embedded import QUALITY
from lcg.benchmarks.report.inputs import KINDS, Picture, claimed, read_pictures, read_provenance
from lcg.benchmarks.report.section import SHOWN, crowded, foremost, name_of
from lcg.benchmarks.report.sections import glossary, sections
from lcg.benchmarks.results.estimates import Results, read_results
from lcg.benchmarks.results.vocabulary import describe, label_of
from lcg.data.atomic import write_atomic

TEMPLATE = "template.html.j2"
OPEN, OPEN_UNSEEN = 2, 1
"""Tasks of a kind whose pictures are in view where there are many methods: of seen combinations, and of unseen ones."""
UNANSWERED = re.compile(r"(?P<method>\w+) has no answer to (?P<task>.+) and is left out there\.")
UNDER_PICTURES = {
    "unconditional": ("frechet_distance",),
    "formula": ("joint_accuracy", "sharp"),
    "comparison": (),
    "edit": ("edit_success", "kept_fine"),
    "reconstruction": (),
}


@dataclass(frozen=True)
class Report:
    """What is written: a page, and its tables for text."""

    page: str
    markdown: str
    latex: str


def report_job(directory: str, out: str | None = None) -> None:
    """Writes a benchmark's results as one self-contained HTML page, which can be sent to anybody and opens anywhere.

    Pictures come first (samples, formulas with the methods side by side, all methods on the same sources, edits), then
    a table per group of tasks, then what it takes to reproduce them. The page only shows what `lcg bench` has written.
    Beside it, the tables are written for text: report.md (Markdown) and tables.tex (LaTeX with booktabs).

    Args:
        directory: of the benchmark, with results.csv, provenance.json and pictures.json.
        out: the file to write, NAME.html; report.html beside the directory by default.

    Raises:
        FileNotFoundError: the directory, one of its files or one of its pictures is missing.
        ValueError: one of the files does not hold what it should; the message says where. Or `out` is no HTML file.
    """
    source = Path(directory)
    target = source.resolve().parent / "report.html" if out is None else Path(out)
    if target.is_dir():
        raise ValueError(f"`out` must be a file, got the directory {target}; write --out {target / 'report.html'}")
    if target.suffix not in (".html", ".htm"):
        raise ValueError(f"`out` must end in .html, got {target}; write --out {target.with_suffix('.html')}")
    report = render(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (target.with_suffix(".md"), report.markdown),
        (target.with_name("tables.tex"), report.latex),
        (target, report.page),
    ):
        write_atomic(path, content.encode())
        print(f"{path} ({len(content.encode()) / 1e6:.1f} MB)")


def render(directory: Path) -> Report:
    """The page and its tables for text. Raises as `report_job` does."""
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a directory; `lcg bench --out {directory}` makes it")
    results = read_results(directory)
    provenance = read_provenance(directory / "provenance.json")
    pictures = read_pictures(directory)
    claims = claimed(provenance, pictures, results)
    found = sections(results, claims)
    command = partial(command_for, provenance)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        provenance=provenance,
        details=details(provenance),
        config=yaml.safe_dump(provenance["config"], sort_keys=False, allow_unicode=True, width=100),
        pictures={kind: gallery([p for p in pictures if p.kind == kind], results, claims) for kind in KINDS},
        smaller=QUALITY if any(picture.smaller for picture in pictures) else 0,
        widths=sorted({p.width for p in pictures}),
        glance=next((section for section in found if section.id == "glance"), None),
        sections=[section for section in found if section.id != "glance"],
        crowded=crowded(results, results.tasks),
        notes=gathered(provenance["notes"]),
        glossary=glossary(results),
        methods=len(results.methods),
        raw=raw(directory),
        label_of=label_of,
        command=command,
    )
    subtitle = f"lcg {provenance['lcg']}, {provenance['created']}"
    text = paper_tables.markdown(provenance["title"], subtitle, provenance["notes"], found, command)
    return Report(page, text, paper_tables.latex(found, command))


def raw(directory: Path) -> list[tuple[str, int, str]]:
    """The csv files: name, rows and text."""
    files = (directory / name for name in ("results.csv", "costs.csv", "comparisons.csv"))
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    return [(name, max(len(text.splitlines()) - 1, 0), text) for name, text in texts]


# --- pictures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A picture with the numbers that belong to it, and what its caption says that those beside it do not."""

    picture: Picture
    numbers: tuple[tuple[str, str], ...]
    caption: str = ""


@dataclass(frozen=True)
class Exhibit:
    """The pictures of one task, methods side by side; where there are many, lcg and the best, and `more` of the others.

    `common` is what all captions say; `folded` where a page shows the task's name only.
    """

    task: str
    zero_shot: bool
    figures: tuple[Figure, ...]
    more: tuple[Figure, ...] = ()
    common: str = ""
    folded: bool = False

    @property
    def name(self) -> str:
        return name_of(self.task)

    @property
    def synthetic(self) -> bool:
        """Whether the sources are samples."""
        return self.task.startswith("synthetic/")

    @property
    def title(self) -> str:
        """The title that all pictures share, unless it only repeats the name."""
        titles = {figure.picture.title for figure in (*self.figures, *self.more)}
        return titles.pop() if len(titles) == 1 and titles != {self.name} else ""


def gallery(pictures: Sequence[Picture], results: Results, claims: frozenset[str]) -> list[Exhibit]:
    """Pictures of one kind, gathered by task in the order of the file."""
    rank = {method: i for i, method in enumerate(results.methods)}
    exhibits = list[Exhibit]()
    many = crowded(results, results.tasks)
    for task in dict.fromkeys(picture.task for picture in pictures):
        shown = [picture for picture in pictures if picture.task == task]
        shown.sort(key=lambda picture: rank.get(picture.method, len(rank)))
        common = [said for said in _sentences(shown[0]) if all(said in _sentences(p) for p in shown[1:])]
        figures = [
            Figure(p, _numbers_under(p, results), " ".join(said for said in _sentences(p) if said not in common))
            for p in shown
        ]
        methods = [p.method for p in shown]
        near = foremost(results, methods, task, UNDER_PICTURES[shown[0].kind])
        first = tuple(f for f in figures if len(figures) <= SHOWN or f.picture.method in near)
        more = tuple(f for f in figures if f not in first)
        limit = OPEN_UNSEEN if task in claims else OPEN
        folded = many and limit <= sum(exhibit.zero_shot is (task in claims) for exhibit in exhibits)
        exhibits.append(Exhibit(task, task in claims, first, more, " ".join(common), folded))
    return exhibits


def _sentences(picture: Picture) -> list[str]:
    return re.split(r"(?<=[.;]) ", picture.caption) if picture.caption else []


def _numbers_under(picture: Picture, results: Results) -> tuple[tuple[str, str], ...]:
    found = ((m, results.get(picture.method, picture.task, m)) for m in UNDER_PICTURES[picture.kind])
    return tuple((describe(m).label, f"{e.value:.{min(describe(m).decimals, 2)}f}") for m, e in found if e is not None)


# --- provenance ------------------------------------------------------------------------------------------------------


def gathered(notes: Sequence[str]) -> list[str]:
    """Notes, those that say of one method after another that it has no answer to a task as one."""
    found: dict[str, list[str]] = {}
    for note in notes:
        match = UNANSWERED.fullmatch(note)
        found.setdefault(match["task"] if match else note, []).extend([match["method"]] if match else [])
    return [_without_answer(methods, told) if methods else told for told, methods in found.items()]


def _without_answer(methods: Sequence[str], task: str) -> str:
    names = ", ".join(map(label_of, methods))
    plural = len(methods) > 1
    return f"{names} {'have' if plural else 'has'} no answer to {task} and {'are' if plural else 'is'} left out there."


def details(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What the results were made with: a list of names and values for every part of the provenance but its text."""
    told = {"title", "created", "lcg", "config", "commands", "notes", "zero_shot", "folder"}
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

"""The numbers of a report, in order: a first look, a section per group of tasks, and what the metrics mean."""

from __future__ import annotations

from lcg.benchmarks.report.means import groups
from lcg.benchmarks.report.section import Section
from lcg.benchmarks.report.sections_cost import costs
from lcg.benchmarks.report.sections_editing import edits, trades
from lcg.benchmarks.report.sections_generation import formulas, scales
from lcg.benchmarks.report.sections_glance import glance
from lcg.benchmarks.report.sections_single import calibration, single
from lcg.benchmarks.results.estimates import Results
from lcg.benchmarks.results.vocabulary import METRICS

REAL, SYNTHETIC = "edit/", "synthetic/"
FIRST = {"unconditional": 0, "reconstruction": 1, "disentanglement": 2, "calibration": 3}


def sections(results: Results, claims: frozenset[str]) -> list[Section]:
    """The first look, then formulas, scales, edits, trade-offs, samples, the networks, the rest, costs."""
    kinds = {
        prefix: [task for task in results.tasks if task.startswith(prefix)]
        for prefix in ("generate/", "scale/", REAL, SYNTHETIC, "tradeoff/")
    }
    found = []
    if kinds["generate/"]:
        found.append(formulas(results, kinds["generate/"], claims))
    if kinds["scale/"]:
        found.append(scales(results, kinds["scale/"], claims))
    both = bool(kinds[REAL] and kinds[SYNTHETIC])
    if kinds[REAL]:
        heading = "Editing, real sources" if both else "Editing"
        found.append(edits(results, kinds[REAL], claims, "edits", heading))
    if kinds[SYNTHETIC]:
        found.append(edits(results, kinds[SYNTHETIC], claims, "synthetic-edits", "Editing, synthetic sources"))
    if kinds["tradeoff/"]:
        found.append(trades(results, kinds["tradeoff/"], claims))
    grouped = {task for tasks in kinds.values() for task in tasks}
    alone = [task for task in results.tasks if task not in grouped]
    alone.sort(key=lambda task: FIRST.get(task, len(FIRST)))
    found += [calibration(results, task) if task == "calibration" else single(results, task) for task in alone]
    means = groups(results, claims)
    whole = (glance(means, claims), *found, costs(results, means))
    return [section for section in whole if section is not None]


def glossary(results: Results) -> list[tuple[str, str]]:
    """What the metrics of these results mean."""
    kinds = {row.metric.partition("/")[0] for row in results.rows}
    return [(metric.label, metric.meaning) for name, metric in METRICS.items() if name in kinds]

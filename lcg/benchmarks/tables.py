"""Tables of estimates: what each metric means, how many decimals it has, which method is best by more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lcg.benchmarks.estimates import FLOOR, Estimate, Results

NO_BREAK = "\N{NO-BREAK SPACE}"
EVERY = "all"
"""The method of a picture that shows all of them."""
MINUS = "\N{MINUS SIGN}"  # as wide as a plus, and read aloud as what it is

LABELS = MappingProxyType(
    {
        "lcg": "lcg",
        "arithmetic": "latent arithmetic",
        "prior": "prior",
        "gaussian": "Gaussian latents",
        "probe": "linear probe (DiffAE)",
        "interfacegan": "InterFaceGAN",
        "lace": "LACE, ODE",
        "lace_langevin": "LACE, Langevin",
        "styleflow": "StyleFlow",
        "gradctrl": "GradCtrl",
        "potential_flow": "potential flow",
        "composable": "Composable Diffusion",
        "composable_mcmc": "Composable Diffusion + MCMC",
        "ppgn": "PPGN",
        "energy": "energy guidance",
        "pca": "PCA",
        "sefa": "SeFa",
        "householder": "Householder",
        "jacobian": "Jacobian",
        EVERY: "all methods",
        FLOOR: "real images",
    }
)


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Args:
        label: its name for readers.
        better: whether higher or lower is better; None when neither is.
        decimals: of its values.
        meaning: one sentence.
    """

    label: str
    better: Literal["higher", "lower"] | None = None
    decimals: int = 3
    meaning: str = ""

    @property
    def arrow(self) -> str:
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]


METRICS = MappingProxyType(
    {
        "edit_success": Metric(
            "edit success",
            "higher",
            3,
            "share of edits that the judge finds done, with every other binary attribute kept and the pixels outside "
            "the edited region nearly unchanged",
        ),
        "joint_accuracy": Metric(
            "joint accuracy",
            "higher",
            3,
            "share of images in which the judge finds all that was asked for (of a reconstruction: every binary "
            "attribute of its original)",
        ),
        "sharp": Metric(
            "sharp",
            "higher",
            3,
            "share of samples that satisfy the formula, if there is one, and whose nearest real latent is no "
            "further away than that of 99 % of real images; the others are mostly ghosts, double exposures that a "
            "judge accepts",
        ),
        "frechet_distance": Metric(
            "Fréchet distance",
            "lower",
            1,
            "between Gaussians fitted to the judge's features of samples and of real images (for a formula: real "
            "images that satisfy it, drawn as the training set's were; if it has none, uniform ones with its marginals "
            "of all other attributes); compare it with its floor, the distance between two sets of real images",
        ),
        "fid": Metric("FID", "lower", 2, "Fréchet distance of Inception features"),
        "kid": Metric("KID", "lower", 4, "kernel distance of Inception features"),
        "kept": Metric("kept", "higher", 3, "share in which every binary attribute that was not edited is unchanged"),
        "kept_fine": Metric(
            "kept, fine",
            "higher",
            3,
            "the same for the fine attributes (colours and styles), except details of what was edited",
        ),
        "l1_outside": Metric(
            "change outside",
            "lower",
            4,
            "mean absolute difference of pixels outside the region that the edit may change, on a scale of 0 to 1",
        ),
        "identity": Metric("identity", "higher", 3, "similarity of the person before and after"),
        "pareto_area": Metric(
            "trade-off area",
            "higher",
            3,
            "share of the square of joint accuracy and kept, fine that a method dominates with all its strengths "
            "(hypervolume); 1 if some strength makes every edit and keeps everything else",
        ),
        "pareto_behind": Metric(
            "behind lcg",
            None,
            3,
            "the trade-off area of lcg less that of the method, on the same sources; its error comes from resampling "
            "the sources, for both methods alike",
        ),
        "accuracy": Metric("accuracy", "higher", 3, "share of images in which the judge finds the wanted value"),
        "marginal": Metric("share", None, 3, "share of images in which the judge finds the attribute"),
        "psnr": Metric("PSNR, dB", "higher", 1, "peak signal to noise ratio of reconstructions, on pixels"),
        "ess": Metric("effective samples", None, 1, "effective sample size of the importance weights"),
        "log_p_formula": Metric("log P(formula)", None, 2, "estimated log-probability of the formula under the prior"),
        "seconds_per_sample": Metric("seconds / sample", "lower", 4, "wall-clock time"),
    }
)
"""The metrics with a fixed name; others are shown under the name they have."""


def describe(metric: str) -> Metric:
    """How to show a metric; for `accuracy/glasses`, how to show `accuracy`."""
    kind = metric.partition("/")[0]
    return METRICS.get(kind, Metric(kind.replace("_", " ")))


@dataclass(frozen=True)
class Cell:
    """A number as it is printed; `best` where no method is better by more than chance."""

    value: str = ""
    error: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a table."""

    label: str
    cells: tuple[Cell, ...]
    reference: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under a common heading; `heading` is empty where a table has one group only."""

    lines: tuple[Line, ...]
    heading: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Table:
    """A table as the template prints it: `corner` heads the column of labels, `columns` are labels with arrows."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    samples: str = ""


def label_of(method: str) -> str:
    """What readers call a method."""
    return LABELS.get(method, method)


def by_method(
    results: Results, tasks: Sequence[str], headings: Sequence[tuple[str, str]], caption: str
) -> Table | None:
    """One group per task, one line per method, one column per metric that is not split by attribute.

    Args:
        results: everything.
        tasks: the groups.
        headings: per task, what stands before its name and the name.
        caption: of the table.

    Returns:
        The table, or None where these tasks have no such metric.
    """
    metrics = [metric for metric in _ordered(results.metrics(tasks)) if "/" not in metric]
    if not metrics:
        return None
    groups = []
    for task, (prefix, heading) in zip(tasks, headings, strict=True):
        methods = [m for m in results.methods if any(results.get(m, task, metric) for metric in metrics)]
        best = {(metric, m) for metric in metrics for m in best_methods(results, methods, task, metric)}
        lines = tuple(
            Line(
                label_of(m),
                tuple(_cell(results.get(m, task, metric), metric, (metric, m) in best) for metric in metrics),
                reference=m == FLOOR,
            )
            for m in methods
        )
        if lines:
            groups.append(Group(lines, heading, prefix))
    columns = tuple(f"{describe(m).label}{NO_BREAK}{describe(m).arrow}".rstrip(NO_BREAK) for m in metrics)
    return Table(caption, "method", columns, tuple(groups), samples(results, tasks, metrics))


def by_attribute(results: Results, tasks: Sequence[str], headings: Sequence[str], family: str, caption: str) -> Table:
    """Metrics such as accuracy/glasses, accuracy/beard: a group per task, a line per attribute, a column per method."""
    metrics = [metric for metric in results.metrics(tasks) if metric.startswith(f"{family}/")]
    methods = [m for m in results.methods if any(results.get(m, t, metric) for t in tasks for metric in metrics)]
    groups = []
    for task, heading in zip(tasks, headings, strict=True):
        measured = [metric for metric in metrics if any(results.get(m, task, metric) for m in methods)]
        lines = tuple(
            Line(metric.partition("/")[2], tuple(_cell(results.get(m, task, metric), metric, False) for m in methods))
            for metric in measured
        )
        if lines:
            groups.append(Group(lines, heading))
    columns = tuple(label_of(m) for m in methods)
    return Table(caption, "attribute", columns, tuple(groups), samples(results, tasks, metrics))


def families(results: Results, tasks: Iterable[str]) -> tuple[str, ...]:
    """What is measured attribute by attribute: `accuracy` for accuracy/glasses, accuracy/beard."""
    return tuple(dict.fromkeys(m.partition("/")[0] for m in results.metrics(tasks) if "/" in m))


def best_methods(results: Results, methods: Iterable[str], task: str, metric: str) -> set[str]:
    """The best method and every other that is within two standard errors of the difference from it.

    Real images do not compete; where only one method does, none is best.
    """
    better = describe(metric).better
    found = {m: e for m in methods if m != FLOOR and (e := results.get(m, task, metric)) is not None}
    if better is None or len(found) < 2:
        return set()
    top = (max if better == "higher" else min)(found.values(), key=lambda e: e.value)
    return {
        m for m, e in found.items() if abs(e.value - top.value) <= 2 * math.hypot(e.stderr or 0.0, top.stderr or 0.0)
    }


def samples(results: Results, tasks: Iterable[str], metrics: Iterable[str]) -> str:
    """How many samples and which seeds are behind these numbers, as a sentence."""
    keep, wanted = set(tasks), set(metrics)
    found = [e for (_, task, metric), e in results.estimates.items() if task in keep and metric in wanted]
    counts = sorted({e.n for e in found if e.n is not None})
    seeds = sorted({seed for e in found for seed in e.seeds})
    parts = []
    if counts:
        parts.append(f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}")
    if seeds:
        parts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
    return "; ".join(parts)


def _cell(estimate: Estimate | None, metric: str, best: bool) -> Cell:
    if estimate is None:
        return Cell()
    decimals = describe(metric).decimals
    value = f"{estimate.value:.{decimals}f}".replace("-", MINUS)
    return Cell(value, "" if estimate.stderr is None else f"± {estimate.stderr:.{decimals}f}", best)


def _ordered(metrics: Iterable[str]) -> list[str]:
    """Those with a fixed name in the order of `METRICS`, then the others."""
    order = list(METRICS)
    return sorted(metrics, key=lambda m: order.index(m) if m in order else len(order))


def chains(tasks: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Editing tasks as sequences: edit/+glasses is the step before edit/+glasses+beard.

    Args:
        tasks: names `edit/EDITS`, each with all edits up to its step.

    Returns:
        Per sequence its steps (task, the edit that the step adds). A step that begins two sequences is in both.
    """
    before = {task: max((t for t in tasks if _continues(task, t)), key=len, default=None) for task in tasks}
    sequences = []
    for last in tasks:
        if last in before.values():
            continue
        steps = [last]
        while (previous := before[steps[0]]) is not None:
            steps.insert(0, previous)
        names = [step.removeprefix(before[step] or "edit/").lstrip("/ ") for step in steps]
        sequences.append(list(zip(steps, names, strict=True)))
    return sequences


def _continues(task: str, earlier: str) -> bool:
    return task != earlier and task.startswith(earlier) and task[len(earlier)] in "+-~&/, "

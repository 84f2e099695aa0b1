"""Which method is best by more than chance.

Of methods with estimates v_m and standard errors e_m, the best is better than another, o, if

    p_holm < 0.05                                  where comparisons.csv compares the two on the same sources and seeds,
    |v_best - v_o| > 2 sqrt(e_best^2 + e_o^2)      where it does not;

it wins if it is better than every other. The second rule takes the two for independent, which on the same sources errs
on the side of no winner; where an error is not known, no method wins. Real images do not compete.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lcg.benchmarks.results.estimates import FLOOR, Estimate, Results
from lcg.benchmarks.results.vocabulary import describe

LEVEL = 0.05

Rule = Literal["paired", "errors", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """Who wins in one metric of one task, and by which rules that was decided.

    Attributes:
        winner: the method that is better than every other by more than chance; None where there is none.
        rules: "paired" for comparisons.csv, "errors" for the standard errors, "unknown" where there is neither; empty
            where nothing competes.
    """

    winner: str | None = None
    rules: frozenset[Rule] = frozenset()


def verdict(results: Results, methods: Iterable[str], task: str, metric: str) -> Verdict:
    """Compares the best method with every other one.

    Args:
        results: everything.
        methods: that compete, if they were measured.
        task: of the estimates.
        metric: of the estimates; without a direction nobody wins.
    """
    better = describe(metric).better
    found = {m: e for m in methods if m != FLOOR and (e := results.get(m, task, metric)) is not None}
    if better is None or len(found) < 2:
        return Verdict()
    sign = 1 if better == "higher" else -1
    best = max(found, key=lambda m: sign * found[m].value)
    won, rules = True, set[Rule]()
    for other in found:
        if other != best:
            lead = _paired_lead(results, task, metric, best, other)
            if lead is not None:
                rules.add("paired")
                won &= sign * lead > 0
            elif (error := _error(found[best], found[other])) is not None:
                rules.add("errors")
                won &= abs(found[best].value - found[other].value) > 2 * error
            else:
                rules.add("unknown")
                won = False
    return Verdict(best if won else None, frozenset(rules))


def _paired_lead(results: Results, task: str, metric: str, best: str, other: str) -> float | None:
    """By how much the best is above the other, 0 where that may be chance; None where the two were not compared.

    The comparison against the best stands first: Holm's correction was made over all that are compared with it.
    """
    for method, against, sign in ((other, best, -1.0), (best, other, 1.0)):
        found = results.compared.get((task, metric, method, against))
        if found is not None:
            return sign * found.difference if found.p_holm < LEVEL else 0.0
    return None


def _error(one: Estimate, other: Estimate) -> float | None:
    """Of the difference of two estimates, taken for independent; None where one has no error."""
    return None if one.stderr is None or other.stderr is None else math.hypot(one.stderr, other.stderr)


def rule_note(rules: Iterable[Rule], what: str = "method") -> str:
    """What bold means in a table whose lines are `what`, in a sentence or two; nothing where nothing competes."""
    rules = set(rules)
    said = [
        text
        for rule, text in (
            ("paired", f"by a paired test on the same sources (p < {LEVEL:g} after Holm's correction)"),
            ("errors", "by more than two standard errors of the difference"),
        )
        if rule in rules
    ]
    if not said:
        return "Nothing is bold, since no error is known." if rules else ""
    rest = " Where an error is not known, nothing is bold." if "unknown" in rules else ""
    return f"Bold: better than every other {what} {' or, where two were not compared so, '.join(said)}.{rest}"

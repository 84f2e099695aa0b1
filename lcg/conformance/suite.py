"""All checks of lcg itself, and how checks are run: one after another, none stopping the others."""

import time
from collections.abc import Callable, Iterable, Iterator

from lcg.conformance.laboratory import Laboratory
from lcg.conformance.outcome import Check, Outcome
from lcg.conformance.particles import particle_checks
from lcg.conformance.sampling import control_checks, corrector_checks, formula_checks, sampler_checks
from lcg.conformance.scores import score_checks

GROUPS: tuple[Callable[[Laboratory], Iterator[Check]], ...] = (
    score_checks,
    sampler_checks,
    formula_checks,
    corrector_checks,
    particle_checks,
    control_checks,
)


def checks(lab: Laboratory) -> list[Check]:
    """Every check that needs no trained network."""
    return [check for group in GROUPS for check in group(lab)]


def run(planned: Iterable[Check]) -> Iterator[Outcome]:
    """Makes the checks; one that breaks down has failed, and the next is made all the same."""
    for check in planned:
        started = time.perf_counter()
        try:
            measurements, error = tuple(check.measure()), ""
        except Exception as failure:  # whatever it is, it belongs into the table
            measurements, error = (), f"{type(failure).__name__}: {failure}"
        yield Outcome(check, measurements, time.perf_counter() - started, error)

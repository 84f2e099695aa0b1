"""What is said of chunks says the same of all samples together."""

from __future__ import annotations

import math

import pytest
import torch

from lcg.generation.trust import merged, pooled, said_of
from lcg.guidance.resampling import pooled as pooled_at_once
from lcg.results.samples import Draw


def chunk(n: int, *warnings: str) -> tuple[int, dict[str, object]]:
    return n, {"drawn": n, "ess": None, "log_p": None, "stderr": None, "warnings": list(warnings)}


@pytest.mark.parametrize("sizes", [[24], [8, 8, 8], [10, 13, 1], [1, 1, 1], [1]])
def test_the_estimates_of_chunks_pool_to_that_of_all_samples(sizes: list[int]) -> None:
    log_z = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 700
    parts = [(len(part), *pooled_at_once(part)) for part in log_z.split(sizes)]
    log_p, stderr = pooled([(n, log_p, None if math.isnan(s) else s) for n, log_p, s in parts])
    expected = pooled_at_once(log_z)
    assert log_p == pytest.approx(expected[0], abs=1e-12)
    assert stderr is None if len(log_z) == 1 else stderr == pytest.approx(expected[1], rel=1e-12)


def test_a_chunk_that_finds_no_chance_at_all_counts_as_zero() -> None:
    log_p, stderr = pooled([(3, None, None), (1, 0.0, None)])
    assert log_p == pytest.approx(math.log(1 / 4)) and stderr == pytest.approx(1.0)  # that of 0, 0, 0, 1
    assert pooled([(3, None, None), (2, None, None)]) == (None, None)


def test_samples_that_fail_are_counted_together() -> None:
    fails = "{} of {} samples fail the classifier after 4 attempts; raise guidance.attempts"
    chunks = [chunk(512, fails.format(3, 512)), chunk(512), chunk(100, fails.format(1, 100))]
    assert merged(chunks) == [fails.format(4, 1124)]


def test_what_is_said_of_every_chunk_is_said_once_and_what_is_not_says_of_how_many() -> None:
    plan = "hat is beyond the prior's support (3 of 20000 labelled latents satisfy it): samples are extrapolated"
    error = "log P = {} has a standard error of 0.71: use more systems or more particles"
    chunks = [chunk(4, plan, error.format(-2.5)), chunk(4, plan), chunk(4, plan, error.format(-3.1))]
    assert merged(chunks) == [plan, f"{error.format(-2.5)} (said of 2 of 3 chunks)"]
    assert merged([chunk(4), chunk(4)]) == []
    assert merged(chunks[:1]) == [plan, error.format(-2.5)]


def test_what_is_said_of_a_chunk_can_be_written_as_json() -> None:
    said = said_of(Draw(torch.zeros(1, 2), ess=0.5, log_p_formula=-math.inf, warnings=("careful",), drawn=3))
    assert said == {"drawn": 3, "warnings": ["careful"], "ess": 0.5, "log_p": None, "stderr": None}

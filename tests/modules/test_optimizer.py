"""The optimiser that all modules share."""

import math

import pytest
import torch
from torch import nn

from lcg.modules.optimizer import adamw, warmup_cosine


def test_the_rate_rises_linearly_and_falls_along_a_half_cosine_to_zero() -> None:
    factors = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert factors[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert factors[10] == 1.0 and factors[60] == pytest.approx(0.5) and factors[110] == pytest.approx(0.0)
    assert max(factors) == 1.0 and factors[10:] == sorted(factors[10:], reverse=True)
    assert warmup_cosine(500, 10, 110) == pytest.approx(0.0)  # never negative, never up again
    assert warmup_cosine(0, 0, 10) == 1.0


def test_without_a_planned_end_the_rate_stays_at_its_peak() -> None:
    made = adamw(nn.Linear(2, 2).parameters(), 0.5, 0.01, 4, math.inf)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert isinstance(optimizer, torch.optim.AdamW) and made["lr_scheduler"]["interval"] == "step"

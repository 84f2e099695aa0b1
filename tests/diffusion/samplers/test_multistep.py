import math

import pytest
import torch
from torch.testing import assert_close

from lcg.diffusion import DDIM, CosineSchedule, DPMSolverPP2M, MixtureDenoiser, randn
from lcg.diffusion.samplers.multistep import Multistep, recommended_order
from lcg.diffusion.samplers.unipc import UniPC

SCHEDULE = CosineSchedule()
every_multistep = pytest.mark.parametrize("method", [DPMSolverPP2M, UniPC])


@every_multistep
def test_order_one_is_ddim(method: type[Multistep], mixture: MixtureDenoiser) -> None:
    z = randn((16, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    for clip in (None, 0.8):
        expected = DDIM(mixture.schedule, steps=9, spacing="quadratic", clip=clip).sample(mixture, z)
        found = method(mixture.schedule, steps=9, spacing="quadratic", clip=clip, order=1).sample(mixture, z)
        assert_close(found, expected, rtol=0, atol=1e-10)


def test_order_is_lower_at_both_ends() -> None:
    sampler = UniPC(SCHEDULE, order=3)
    assert [sampler.order_at(i, 7) for i in range(7)] == [1, 2, 3, 3, 3, 2, 1]
    assert [sampler.order_at(i, 2) for i in range(2)] == [1, 1]
    assert [DPMSolverPP2M(SCHEDULE).order_at(i, 4) for i in range(4)] == [1, 2, 2, 1]


@pytest.mark.parametrize("order", [0, 3, -1])
def test_order_must_be_one_that_exists(order: int) -> None:
    expected = rf"`order` of DPMSolverPP2M must be a whole number from 1 to 2, got {order}; 2 is usual, 1 is DDIM"
    with pytest.raises(ValueError, match=expected):
        DPMSolverPP2M(SCHEDULE, order=order)


def test_order_must_be_whole(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"from 1 to 3, got 2.0"):
        UniPC(SCHEDULE, order=2.0)


# --- advice -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "uniform", "other"), [(0.0, 2, 2), (1.0, 2, 2), (4.0, 5, 10), (8.0, 8, 15), (32.0, 13, 25)]
)
def test_second_order_from_so_many_evaluations_on(weight: float, uniform: int, other: int) -> None:
    first = {
        spacing: min(steps for steps in range(2, 99) if recommended_order(steps, weight, spacing) == 2)
        for spacing in ("uniform", "asinh", "quadratic", "log_snr", "karras")
    }
    assert first == {"uniform": uniform, "asinh": uniform, "quadratic": other, "log_snr": other, "karras": other}
    assert {recommended_order(steps, weight) for steps in range(max(uniform, other), 99)} == {2}


def test_advice_refuses_what_it_cannot_judge(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"`steps` must be at least 2, as a sampler's, got 1; 50 is usual"):
        recommended_order(1, 1.0)
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"`weight` must be >= 0 and finite, got {weight}; give the largest"):
            recommended_order(10, weight)
    with pytest.raises(
        ValueError, match=r"`spacing` must be one of uniform, log_snr, quadratic, karras, asinh, got 'even'"
    ):
        recommended_order(10, 1.0, "even")

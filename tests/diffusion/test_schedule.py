import math

import pytest
import torch
from torch.testing import assert_close

from lcg.diffusion import ConstantSchedule, CosineSchedule, LinearSchedule, Schedule, expand

TIMES = torch.cat([10.0 ** torch.arange(-12.0, -2.0, dtype=torch.float64), torch.linspace(0.01, 0.999, 50).double()])


@pytest.fixture(params=[CosineSchedule(), LinearSchedule(), ConstantSchedule()], ids=["cosine", "linear", "constant"])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    """All of them; samplers are tested under the two whose noise rises smoothly from zero."""
    return request.param


def test_variance_is_preserved(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-15)


def test_clean_at_zero(schedule: Schedule) -> None:
    zero = torch.zeros(1)
    assert schedule.alpha(zero).item() == 1
    assert schedule.sigma(zero).item() == 0
    assert schedule.log_snr(zero).item() == math.inf


def test_alpha_falls_and_sigma_rises(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert (schedule.log_alpha(t).diff() < 0).all()
    assert (schedule.sigma(t).diff() >= 0).all()
    assert (schedule.log_snr(t).diff() < 0).all()


def test_cosine_is_accurate_at_both_ends() -> None:
    schedule = CosineSchedule()
    expected_sigma = [math.sin(math.pi / 2 * t) for t in TIMES.tolist()]
    expected_alpha = [math.sin(math.pi / 2 * (1 - t)) for t in TIMES.tolist()]
    assert_close(schedule.sigma(TIMES), torch.tensor(expected_sigma, dtype=torch.float64), rtol=1e-12, atol=0)
    assert_close(schedule.alpha(TIMES), torch.tensor(expected_alpha, dtype=torch.float64), rtol=1e-12, atol=0)
    small = TIMES[:6]  # log cos x = -x^2/2 - x^4/12 - ..., far below the precision of alpha itself
    x = small * math.pi / 2
    assert_close(schedule.log_alpha(small), -x.square() / 2 - x**4 / 12, rtol=1e-13, atol=0)


def test_cosine_is_finite_in_pure_noise() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert CosineSchedule().log_snr(one).isfinite().all()
    assert CosineSchedule().alpha(one).item() < 1e-15


def test_linear_has_the_rate_it_says() -> None:
    schedule = LinearSchedule(beta_min=0.3, beta_max=7.0)
    t = TIMES.clone().requires_grad_()
    (rate,) = torch.autograd.grad(-2 * schedule.log_alpha(t).sum(), t)
    assert_close(rate, 0.3 + 6.7 * TIMES, rtol=1e-14, atol=0)
    assert_close(schedule.sigma(TIMES[:3]), (0.3 * TIMES[:3]).sqrt(), rtol=1e-8, atol=0)


def test_log_snr_is_the_logarithm_of_the_ratio(schedule: Schedule) -> None:
    assert_close(schedule.log_snr(TIMES), (schedule.alpha(TIMES) / schedule.sigma(TIMES)).log(), rtol=1e-12, atol=1e-12)


def test_time_inverts_log_snr(schedule: Schedule) -> None:
    assert_close(schedule.time(schedule.log_snr(TIMES)), TIMES, rtol=1e-12, atol=0)
    log_snr = torch.linspace(-4, 15, 100, dtype=torch.float64)
    assert_close(schedule.log_snr(schedule.time(log_snr)), log_snr, rtol=0, atol=1e-12)


def test_time_of_a_constant_rate() -> None:
    schedule = LinearSchedule(beta_min=5.0, beta_max=5.0)
    assert_close(schedule.time(schedule.log_snr(TIMES)), TIMES, rtol=1e-12, atol=0)


def test_a_constant_rate_passes_through_the_steps_of_its_chain() -> None:
    """By hand: alpha^2 after k of 1000 steps that each keep 0.992 of it; and it is `LinearSchedule` with equal ends."""
    schedule, kept = ConstantSchedule(0.008, 1000), 1.0
    for k in range(1, 1001):
        kept *= 1 - 0.008
        if k % 100 == 0:
            assert schedule.alpha(torch.tensor(k / 1000, dtype=torch.float64)).square().item() == pytest.approx(kept)
    assert schedule.rate == pytest.approx(8.0322, abs=1e-4) and kept**0.5 == pytest.approx(0.018, abs=1e-4)
    flat = LinearSchedule(schedule.rate, schedule.rate)
    assert_close(schedule.log_alpha(TIMES), flat.log_alpha(TIMES), rtol=1e-14, atol=0)
    assert_close(schedule.time(TIMES), flat.time(TIMES), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("step", "steps"), [(0.0, 10), (1.0, 10), (0.1, 0)])
def test_impossible_steps_are_refused(step: float, steps: int) -> None:
    with pytest.raises(ValueError, match=rf"`step` must be in \(0, 1\) and `steps` at least 1, got {step} and {steps}"):
        ConstantSchedule(step, steps)


def test_coefficients_are_float64_whatever_the_time_is(schedule: Schedule) -> None:
    t = torch.tensor([1e-5, 0.5], dtype=torch.float32)
    assert_close(schedule.sigma(t), schedule.sigma(t.double()), rtol=0, atol=0)
    assert schedule.alpha(t).dtype == schedule.log_snr(t).dtype == schedule.time(t).dtype == torch.float64


def test_expand_shapes_and_casts() -> None:
    like = torch.zeros(3, 4, 5)
    coef = expand(torch.arange(3, dtype=torch.float64), like)
    assert coef.shape == (3, 1, 1)
    assert coef.dtype == torch.float32
    assert expand(torch.tensor(2.0), like).shape == (1, 1, 1)


def test_integer_steps_are_refused(schedule: Schedule, unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"`t` must be a floating-point tensor, got torch.int64; divide integer steps"):
        schedule.alpha(torch.tensor([500]))
    with pytest.raises(TypeError, match=r"`log_snr` must be a floating-point tensor"):
        schedule.time(torch.tensor([1]))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (3.0, 2.0)])
def test_impossible_rates_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=rf"0 < beta_min <= beta_max, got {low} and {high}; the usual values"):
        LinearSchedule(low, high)

"""Every loop has the numbers of every other, and what decides their time is what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lcg.benchmarks.speed.candidate import Candidate, agreement, difference
from lcg.benchmarks.speed.diffusers_loops import FLOAT32, diffusers_2m, diffusers_ddim
from lcg.benchmarks.speed.flops import guided_step
from lcg.benchmarks.speed.grid import START, TRAINED, betas, spaced, trained
from lcg.benchmarks.speed.guided_diffusion import guided_diffusion_loop
from lcg.benchmarks.speed.nets import BIG, SMALL, Nets, Shape, build
from lcg.benchmarks.speed.ours import guided, ours, sampled
from lcg.benchmarks.speed.peers import peers
from lcg.benchmarks.speed.plain import plain
from lcg.benchmarks.speed.scales import SCALES, scale_runs, separately, together
from lcg.diffusion import DDIM, CosineSchedule, DPMSolverPP2M

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers

TINY = Shape("tiny", latent=6, width=16, depth=2, classifier_width=12, classifier_depth=1, attributes=3)
STEPS = 5


def nets(shape: Shape = TINY) -> Nets:
    return build(shape, torch.float64)


@pytest.mark.parametrize("time_features", [8, 64])
@pytest.mark.parametrize("batch", [1, 5])
def test_all_candidates_agree_with_their_references(batch: int, time_features: int) -> None:
    found = agreement(
        (*peers(), *ours(torch.device("cpu"), compiled=False)), replace(TINY, time_features=time_features), STEPS, batch
    )
    exact = [line["float64"] for line in found.values() if line["tolerance"] <= 1e-6]
    assert len(exact) >= 3 and max(exact) < 1e-12
    assert max(line["float64"] for line in found.values()) < FLOAT32 / 3
    assert max(line["float32"] for line in found.values()) < 1e-4


def test_guidance_is_part_of_what_agrees() -> None:
    tiny = nets()
    noise = tiny.noise(5)
    unguided = DDIM(tiny.schedule, STEPS, START).sample(tiny.prior, noise)
    assert difference(guided_diffusion_loop(tiny, STEPS)(noise), unguided) > 1e-2


def test_every_attribute_and_its_label_guide() -> None:
    tiny = nets()
    noise, z_0 = tiny.noise(5), guided_diffusion_loop(tiny, STEPS)(tiny.noise(5))
    for i in range(TINY.attributes):
        labels = tuple(label != (i == j) for j, label in enumerate(tiny.labels))
        other = replace(tiny, labels=labels)
        changed = guided_diffusion_loop(other, STEPS)(noise)
        assert difference(changed, z_0) > 1e-3
        assert difference(sampled(other, STEPS)(noise), changed) < 1e-12


@pytest.mark.parametrize("steps", [2, 4, 20])
def test_diffusers_agrees_at_other_numbers_of_steps(steps: int) -> None:
    tiny = nets()
    noise = tiny.noise(3)
    assert difference(diffusers_ddim(tiny, steps)(noise), sampled(tiny, steps)(noise)) < 1e-12


def test_a_diffusers_loop_can_be_run_again() -> None:
    tiny = nets()
    loop, noise = diffusers_2m(tiny, STEPS), tiny.noise(3)
    assert torch.equal(loop(noise), loop(noise))


def test_second_order_is_not_first_and_lcgs_own_ends_with_first() -> None:
    tiny = nets()
    noise = tiny.noise(5)
    theirs = diffusers_2m(tiny, STEPS)(noise)
    assert difference(sampled(tiny, STEPS)(noise), theirs) > 1e-3
    assert difference(sampled(tiny, STEPS, DPMSolverPP2M)(noise), theirs) > 10 * FLOAT32


def test_the_plain_forward_is_the_networks_own() -> None:
    tiny = nets()
    z, t = tiny.noise(5), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    assert difference(plain(tiny.prior.net, z, t), tiny.prior.net(z, t)) < 1e-13
    assert difference(plain(tiny.prior.net, z, t), tiny.prior(z, t)) < 1e-13


def test_a_candidate_that_computes_something_else_is_refused() -> None:
    wrong = Candidate("wrong", lambda nets, steps: lambda z: 1.001 * sampled(nets, steps)(z), sampled)
    with pytest.raises(RuntimeError, match=r"'wrong' must agree with its reference to 1e-06 in float64, got 0\.001 on"):
        agreement([wrong], TINY, STEPS, 2)


def test_a_candidate_without_a_number_is_refused() -> None:
    broken = Candidate("broken", lambda nets, steps: lambda z: z * torch.nan, sampled)
    with pytest.raises(RuntimeError, match="got nan"):
        agreement([broken], TINY, STEPS, 2)


def test_networks_are_the_same_in_every_precision_and_are_not_zero() -> None:
    state = torch.get_rng_state()
    double, single = nets(), build(TINY)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(double.prior.parameters(), single.prior.parameters(), strict=True):
        assert torch.equal(a, b.double())
    assert torch.equal(double.noise(4), single.noise(4).double())
    for net in (double.prior.net, *(classifier.net for classifier in double.classifiers)):
        assert float(net.output.weight.detach().abs().min()) > 0
    first, second = (classifier.net.output.weight for classifier in double.classifiers[:2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("steps", [2, 4, 10, 50])
def test_the_trained_schedule_strides_on_lcgs_times(steps: int) -> None:
    t, alpha_bar = trained(CosineSchedule(), steps)
    own_t, own_alpha_bar = spaced(CosineSchedule(), steps)
    picked = slice(TRAINED // steps - 1, None, TRAINED // steps)
    np.testing.assert_allclose(t[picked], own_t, rtol=1e-14)
    np.testing.assert_allclose(alpha_bar[picked], own_alpha_bar, rtol=1e-11)
    assert len(t) == TRAINED and (np.diff(t) > 0).all() and t[0] > 0
    np.testing.assert_allclose(np.cumprod(1 - betas(alpha_bar)), alpha_bar, rtol=1e-10)
    np.testing.assert_allclose(own_t[::-1], DDIM(CosineSchedule(), steps, START).times().numpy(), rtol=1e-14)


def test_a_stride_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(ValueError, match="`steps` must divide 1000, got 3: the stride is a whole number"):
        trained(CosineSchedule(), 3)


def test_multiply_adds_of_a_small_network_by_hand() -> None:
    shape = Shape("hand", 3, 5, 2, classifier_width=4, classifier_depth=1, attributes=2, time_features=6)
    work = guided_step(build(shape))
    prior_row = 3 * 5 + 2 * 2 * 5 * 5 + 5 * 3
    prior_time = 6 * 6 + 6 * 5 + 2 * 6 * 10
    classifier_row = 3 * 4 + 2 * 4 * 4 + 4 * 1
    classifier_time = 6 * 6 + 6 * 4 + 6 * 8
    assert (work.row, work.time) == (prior_row + 2 * 2 * classifier_row, prior_time + 2 * classifier_time)
    assert work.shared(7) == 7 * work.row + work.time
    assert work.repeated(7) == 7 * (work.row + work.time)


def test_multiply_adds_are_those_that_torch_counts_in_the_peers_step() -> None:
    """2 steps with a time per row; torch counts forward and backward products, of which a step has `repeated`."""
    single = build(TINY)
    loop, noise = guided_diffusion_loop(single, 2), single.noise(7)
    with FlopCounterMode(display=False) as counter:
        loop(noise)
    time_columns = TINY.attributes * TINY.time_features * TINY.classifier_width  # whose gradient nobody asked for
    expected = guided_step(single).repeated(7) + 7 * time_columns  # one product with the whole first layer, going back
    assert counter.get_total_flops() == 2 * 2 * expected


def test_shapes_are_those_that_are_announced() -> None:
    assert (SMALL.latent, SMALL.width, 2 * SMALL.depth, SMALL.attributes) == (128, 512, 6, 8)
    assert (BIG.latent, BIG.width, 2 * BIG.depth, BIG.attributes) == (512, 2048, 10, 8)
    assert SMALL.classifier_width == BIG.classifier_width == 512


def test_scales_together_are_scales_apart() -> None:
    tiny = nets()
    noise = tiny.noise(4)
    apart = separately(tiny, 2, noise)
    assert apart.shape == (len(SCALES), 4, TINY.latent)
    assert difference(together(tiny, 2, noise), apart) < 1e-12
    assert difference(apart[0], apart[-1]) > 1e-2
    assert difference(apart[0], DDIM(tiny.schedule, 2, START).sample(tiny.prior, noise)) < 1e-12
    results = [run() for run in scale_runs(tiny, 2, 4).values()]
    assert difference(results[1], results[0]) < 1e-12


def test_guidance_of_lcg_weighs_rows_apart() -> None:
    tiny = nets()
    z, t = tiny.noise(2), torch.full((2,), 0.5, dtype=torch.float64)

    def weight(t: Tensor) -> Tensor:
        return torch.tensor([0.0, 3.0], dtype=t.dtype)

    both = guided(tiny, weight)(z, t)
    assert difference(both[:1], tiny.prior(z, t)[:1]) < 1e-12
    assert difference(both[1:], guided(tiny, 3.0)(z, t)[1:]) < 1e-12

"""The hand-written way there and back equals the ordinary network and autograd, whatever runs it."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from lcg.nets.blocks import SkipPerceptron
from lcg.nets.compiled import CompiledPerceptron
from lcg.nets.execution import Execution
from lcg.nets.frozen import FrozenPerceptron, Moment, OneByOne, moments, run, side_by_side
from lcg.nets.prepared import Prepared

EAGER, PACKED = Execution("eager"), Execution("packed")
DOUBLE, SINGLE = torch.float64, torch.float32
TIMES = torch.tensor([0.9, 0.5, 0.1], dtype=DOUBLE)


def networks(count: int, dtype: torch.dtype = DOUBLE, width: int = 16) -> list[SkipPerceptron]:
    torch.manual_seed(0)
    nets = [SkipPerceptron(6, 5, width, 3, time_features=12).to(dtype) for _ in range(count)]
    for net in nets:
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.4)
    return [net.eval().requires_grad_(False) for net in nets]


def latents(rows: int = 7, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE).to(dtype)


def value_and_pull(function, z: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """The outputs and their transposed Jacobian, applied to some fixed numbers."""
    z = z.clone().requires_grad_()
    out = function(z)
    g = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), torch.autograd.grad(out, z, g)[0]


def error(found: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found.double() - exact.double()).abs().max() / exact.double().abs().max())


def at_time(nets: list[SkipPerceptron], i: int, dtype: torch.dtype = DOUBLE) -> Moment:
    each = [moments(net, TIMES.to(dtype))[i] for net in nets]
    return each[0] if len(each) == 1 else side_by_side(each)


def reference(nets: list[SkipPerceptron], z: Tensor, i: int) -> tuple[Tensor, Tensor]:
    t = TIMES[i].expand(len(z))
    return value_and_pull(lambda x: torch.stack([net(x, t) for net in nets]), z)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("i", range(3))
def test_value_and_gradient_are_those_of_the_network(count: int, i: int) -> None:
    nets, z = networks(count), latents()
    exact, pulled = reference(nets, z, i)
    frozen, at = FrozenPerceptron(nets, EAGER), at_time(nets, i)
    out, g_z = value_and_pull(lambda x: run(frozen, x, at), z)
    assert error(out.view_as(exact), exact) < 1e-13 and error(g_z, pulled) < 1e-12
    with torch.no_grad():
        assert error(run(frozen, z, at).view_as(exact), exact) < 1e-13


@pytest.mark.parametrize(("how", "count"), [(EAGER, 1), (EAGER, 3), (PACKED, 1), (Execution("autograd"), 1)])
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_every_backend_is_exact_in_single_precision(how: Execution, count: int, rows: int) -> None:
    doubles, singles, z = networks(count), networks(count, SINGLE), latents(rows)
    for single, double in zip(singles, doubles, strict=True):
        single.load_state_dict(double.state_dict())
    exact, pulled = reference(doubles, z, 1)
    frozen, at = FrozenPerceptron(singles, how), at_time(singles, 1, SINGLE)
    out, g_z = value_and_pull(lambda x: run(frozen, x, at), z.float())
    assert out.dtype == g_z.dtype == SINGLE
    assert error(out.view_as(exact), exact) < 2e-6 and error(g_z, pulled) < 2e-6


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 2e-2), ("float16", 3e-3)])
@pytest.mark.parametrize("count", [1, 3])
def test_half_precision_is_near_and_hands_over_single(precision: str, bound: float, count: int) -> None:
    """Products lose bits, the residual stream and what leaves the network do not: 8 bits, 11 bits."""
    doubles, singles, z = networks(count, width=64), networks(count, SINGLE, width=64), latents(33)
    for single, double in zip(singles, doubles, strict=True):
        single.load_state_dict(double.state_dict())
    exact, pulled = reference(doubles, z, 1)
    frozen = FrozenPerceptron(singles, Execution("eager", precision))  # type: ignore[arg-type]
    out, g_z = value_and_pull(lambda x: run(frozen, x, at_time(singles, 1, SINGLE)), z.float())
    assert out.dtype == g_z.dtype == SINGLE
    assert 1e-5 < error(out.view_as(exact), exact) < bound and error(g_z, pulled) < 2 * bound


def test_networks_side_by_side_may_differ_in_their_outputs() -> None:
    nets = networks(2)
    nets[1].output = torch.nn.Linear(16, 2, dtype=DOUBLE).requires_grad_(False)
    out = run(FrozenPerceptron(nets, EAGER), latents(), at_time(nets, 0))
    t = TIMES[0].expand(7)
    assert error(out[0], nets[0](latents(), t)) < 1e-13 and error(out[1, :, :2], nets[1](latents(), t)) < 1e-13
    assert not out[1, :, 2:].any()


@pytest.mark.parametrize("outputs", [1, 5])
def test_one_by_one_is_side_by_side(outputs: int) -> None:
    """With one output the way back is made before it is known what for; with more it is made after."""
    nets, z = networks(3), latents()
    for net in nets:
        net.output = torch.nn.Linear(16, outputs, dtype=DOUBLE).requires_grad_(False)
    together, apart = FrozenPerceptron(nets, EAGER), [FrozenPerceptron([net], EAGER) for net in nets]
    exact, pulled = value_and_pull(lambda x: run(together, x, at_time(nets, 1)), z)
    at = [at_time([net], 1) for net in nets]
    out, g_z = value_and_pull(lambda x: run(OneByOne(apart, [outputs] * 3), x, at), z)
    assert error(out, exact) < 1e-13 and error(g_z, pulled) < 1e-12


# --- what is kept ---


def test_what_was_prepared_is_found_again_and_forgotten_when_weights_change() -> None:
    (net,) = networks(1)
    prepared, z = Prepared([net]), latents()
    first = prepared.at(TIMES, EAGER)[0](z)
    (kept,) = prepared._moments.values()
    assert torch.equal(prepared.at(TIMES, EAGER)[0](z), first)
    (again,) = prepared._moments.values()
    assert again is kept
    net.blocks[0].modulation.weight.mul_(2)
    second = prepared.at(TIMES, EAGER)[0](z)
    assert not torch.allclose(second, first) and error(second, net(z, TIMES[0].expand(7))) < 1e-13


def test_weights_that_are_trained_are_never_kept() -> None:
    (net,) = networks(1)
    net.requires_grad_(True)
    prepared, z = Prepared([net]), latents()
    function = prepared.at(TIMES, EAGER)[0]
    with torch.no_grad():
        before = function(z)
        net.blocks[0].up.weight.data.mul_(2)  # leaves no trace in the version of the weight
        assert not torch.allclose(function(z), before)
        assert torch.equal(function(z), net(z, TIMES[0].expand(7)))
    assert not prepared._moments and function(z).requires_grad


def test_the_reference_and_autocast_run_the_network_itself() -> None:
    (net,) = networks(1, SINGLE)
    prepared, z, t = Prepared([net]), latents(dtype=SINGLE), TIMES[0].float().expand(7)
    assert torch.equal(prepared.at(TIMES.float(), Execution("reference"))[0](z), net(z, t))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(prepared.at(TIMES.float(), Execution())[0](z), net(z, t))


def test_only_the_latest_grids_are_kept() -> None:
    prepared = Prepared(networks(1))
    for k in range(20):
        prepared.at(TIMES * (1 - k / 100), EAGER)
    assert len(prepared._moments) == 8


def test_a_copy_prepares_anew() -> None:
    prepared = Prepared(networks(1, SINGLE))
    out = prepared.at(TIMES.float(), PACKED)[0](latents(dtype=SINGLE))
    twin = copy.deepcopy(prepared)
    assert not twin._frozen and twin.nets[0] is not prepared.nets[0]
    assert torch.equal(twin.at(TIMES.float(), PACKED)[0](latents(dtype=SINGLE)), out)


# --- which way is taken ---


def test_the_measured_choice() -> None:
    single, double = torch.zeros(1), torch.zeros(1, dtype=DOUBLE)
    assert Execution().chosen(single, 1).backend == "eager"
    assert Execution().chosen(single, 64).backend == "packed"
    assert Execution().chosen(double, 64).backend == "eager"
    assert Execution(precision="bfloat16").chosen(single, 64) == Execution("eager", "bfloat16")
    assert Execution("packed").chosen(single, 1).backend == "packed"
    assert Execution("compiled").chosen(single, 64).backend == "compiled"


def test_one_by_one_is_for_several_rows_on_a_cpu() -> None:
    single = torch.zeros(1)
    assert not EAGER.one_by_one(single, 1) and EAGER.one_by_one(single, 2)
    assert not Execution("compiled").one_by_one(single, 64) and not EAGER.one_by_one(single.to("meta"), 64)


def test_what_cannot_be_run_is_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"`backend` must be one of auto, .*got 'fast'"):
        Execution("fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`precision` must be one of float32, .*got 'int8'"):
        Execution(precision="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`patience` must be >= 0, got -1"):
        Execution("compiled", patience=-1)
    with pytest.raises(ValueError, match="`precision` must be float32 with the backend 'packed', got 'float16'"):
        Execution("packed", "float16")
    with pytest.raises(ValueError, match=r"'packed' needs float32 weights on a CPU.*got torch.float64 on cpu"):
        PACKED.chosen(torch.zeros(1, dtype=DOUBLE), 2)


# --- compiling ---


def test_a_short_job_is_never_compiled(caplog: pytest.LogCaptureFixture) -> None:
    nets, z = networks(1, SINGLE), latents(dtype=SINGLE)
    frozen = FrozenPerceptron(nets, EAGER)
    compiled, at = CompiledPerceptron(frozen, patience=3), at_time(nets, 0, SINGLE)
    for _ in range(3):
        assert torch.equal(run(compiled, z, at), run(frozen, z, at))
    assert not compiled._compiled and not caplog.records


COMPILED = """
import logging, torch
from lcg.nets.blocks import SkipPerceptron
from lcg.nets.execution import Execution
from lcg.nets.frozen import FrozenPerceptron, moments, run
from lcg.nets.prepared import Prepared

logging.basicConfig()
torch.manual_seed(0)
net = SkipPerceptron(6, 5, 16, 3, 12).eval().requires_grad_(False)
times, z = torch.tensor([0.9, 0.5, 0.1]), torch.randn(7, 6)
compiled = Prepared([net]).at(times, Execution("compiled", patience=0))
frozen = FrozenPerceptron([net], Execution("eager"))
for function, at in zip(compiled, moments(net, times)):  # another time is no other program
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    found, exact = function(a), run(frozen, b, at)
    (pulled,), (wanted,) = torch.autograd.grad(found.sum(), a), torch.autograd.grad(exact.sum(), b)
    assert (found - exact).abs().max() < 2e-6 and (pulled - wanted).abs().max() < 2e-6
"""


@pytest.mark.slow
def test_a_long_job_is_compiled_once_and_says_so() -> None:
    """In a process of its own, as run-time type checks cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiling `linearise` of a network for 7 rows") == 1
    assert done.stderr.count("compiling `pull` of a network for 7 rows") == 1

"""Potentials: closed-form waves solve the wave equation and nothing else does; paths follow gradients."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lcg.nets.potential_flow import (
    LinearBank,
    Potential,
    PotentialFlow,
    acceleration,
    laplacian,
    signs,
    squared_wave_residual,
    traverse,
    velocity,
    wave_residual,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def times(count: int) -> Tensor:
    return torch.linspace(0, 4, count, dtype=torch.float64)


def every_sign(z: Tensor) -> Tensor:
    """All 2^D probes, (2^D, B, D): a mean over them is an expectation."""
    combinations = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=z.shape[1])), dtype=z.dtype)
    return combinations[:, None].expand(-1, *z.shape)


def network(count: int = 3, seed: int = 0, **options: Any) -> PotentialFlow:
    torch.manual_seed(seed)
    return PotentialFlow((3,), count, **{"width": 8, **options}).double()


# --- waves ---

K = torch.tensor([0.6, -1.1, 0.4], dtype=torch.float64)


def plane(speed: float) -> Potential:
    return lambda z, t: (z @ K - speed * K.norm() * t).sin()


def standing(speed: float) -> Potential:
    return lambda z, t: (z * K).cos().prod(1) * (speed * K.norm() * t).cos()


def spherical(speed: float) -> Potential:
    return lambda z, t: (z.norm(dim=1) - speed * t).sin() / z.norm(dim=1)


@pytest.mark.parametrize("wave", [plane, standing, spherical])
@pytest.mark.parametrize("speed", [0.5, 1.7])
def test_waves_solve_the_equation_at_their_own_speed_only(wave: Any, speed: float) -> None:
    z, t = normal(40, 3), times(40)
    z = z / z.norm(dim=1, keepdim=True).clamp(max=1.0)  # away from the source of the spherical wave
    u = wave(speed)
    assert wave_residual(u, z, t, speed).abs().max() < 1e-10
    # u_tt = speed^2 laplacian u, so that another speed c leaves (1 - c^2 / speed^2) u_tt.
    expected = (1 - 0.3**2 / speed**2) * acceleration(u, z, t)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(wave_residual(u, z, t, 0.3), expected, rtol=1e-9, atol=1e-10)


def test_the_residual_of_what_is_no_wave_is_its_closed_form() -> None:
    """u = exp(-t) |z|^2 / 2 has u_tt = u and laplacian exp(-t) D."""
    z, t = normal(20, 2, 3), times(20)
    square = z.square().sum((1, 2))
    residual = wave_residual(lambda z, t: (-t).exp() * z.square().sum((1, 2)) / 2, z, t, 0.8)
    torch.testing.assert_close(residual, (-t).exp() * (square / 2 - 0.8**2 * 6))


def test_a_speed_per_row() -> None:
    z, t, speed = normal(6, 3), times(6), torch.linspace(0.2, 1.2, 6, dtype=torch.float64)
    rows = [wave_residual(plane(1.0), z[i : i + 1], t[i : i + 1], float(speed[i])) for i in range(6)]
    torch.testing.assert_close(wave_residual(plane(1.0), z, t, speed), torch.cat(rows))


def test_constants_and_linear_potentials_have_no_curvature() -> None:
    z, t = normal(5, 3), times(5)
    for u in (lambda z, t: torch.zeros(len(z), dtype=z.dtype), lambda z, t: z @ K + 2 * t):
        assert torch.equal(wave_residual(u, z, t, 1.0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(velocity(lambda z, t: z @ K, z, t), K.expand(5, -1))


# --- the Laplacian and its estimates ---


def test_the_laplacian_of_a_quadratic_form_is_its_trace() -> None:
    z, t, a = normal(7, 4), times(7), normal(4, 4, seed=1)
    trace = (2 * a.trace()).expand(7)

    def u(z: Tensor, t: Tensor) -> Tensor:
        return torch.einsum("bi,ij,bj->b", z, a, z)

    torch.testing.assert_close(laplacian(u, z, t), trace)
    torch.testing.assert_close(laplacian(u, z, t, every_sign(z)), trace)
    q = torch.linalg.qr(normal(4, 4, seed=2)).Q  # any orthogonal directions of length sqrt(D) do it exactly
    torch.testing.assert_close(laplacian(u, z, t, 2.0 * q[:, None].expand(-1, 7, -1)), trace)
    one = laplacian(u, z, t, every_sign(z)[:1])
    assert (one - trace).abs().min() > 1e-3  # and a single probe does not


def test_two_probes_estimate_the_square_without_bias() -> None:
    """The mean over all pairs of probes is the squared residual; the mean square of one has its variance on top."""
    flow, z, t = network(1), normal(4, 3), times(4)
    u, speed = lambda z, t: flow.potential(z, t, 0), 1.3
    probes = every_sign(z)
    exact = wave_residual(u, z, t, speed) ** 2
    pairs = [squared_wave_residual(u, z, t, speed, torch.stack(pair)) for pair in itertools.product(probes, probes)]
    torch.testing.assert_close(torch.stack(pairs).mean(0), exact, rtol=1e-9, atol=1e-14)
    estimates = torch.stack([wave_residual(u, z, t, speed, probe[None]) for probe in probes])
    torch.testing.assert_close((estimates**2).mean(0), exact + estimates.var(0, correction=0), rtol=1e-9, atol=1e-14)
    assert (estimates.var(0) > 1e-8).all()


def test_signs_are_signs_and_repeat_with_their_generator() -> None:
    first, again = (signs((50, 40), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(first.abs(), torch.ones(50, 40))
    assert first.mean().abs() < 0.1 and signs((200,)).unique().tolist() == [-1, 1]


# --- the network ---


def test_the_potential_is_the_perceptron_of_the_docstring() -> None:
    flow, z, t = network(), normal(5, 3), times(5)
    w = {name: value[1] for name, value in flow.state_dict().items()}
    frequency = 10_000.0 ** -torch.linspace(0, 1, 4, dtype=torch.float64)
    angle = t[:, None] * frequency
    time = torch.cat((angle.sin(), angle.cos()), 1) @ w["time_1.weight"] + w["time_1.bias"]
    time = functional.gelu(time) @ w["time_2.weight"] + w["time_2.bias"]
    h = torch.tanh(z @ w["input.weight"] + w["input.bias"]) + time
    u = (torch.tanh(h @ w["fusion.weight"] + w["fusion.bias"]) @ w["output.weight"] + w["output.bias"])[:, 0]
    torch.testing.assert_close(flow.potential(z, t, 1), u, rtol=1e-5, atol=1e-6)  # frequencies are float32's
    bounded = network(bounded=True)
    assert torch.equal(bounded.potential(z, t, 1), flow.potential(z, t, 1).tanh())


def test_velocity_is_the_gradient_and_has_no_rotation() -> None:
    flow, z, t = network(), normal(4, 3), times(4)
    step = 1e-5
    for i in range(3):
        up, down = z.clone(), z.clone()
        up[:, i] += step
        down[:, i] -= step
        slope = (flow.potential(up, t, 2) - flow.potential(down, t, 2)) / (2 * step)
        torch.testing.assert_close(flow.velocity(z, t, 2)[:, i], slope, rtol=1e-6, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow.velocity(z, t, 2), z)
    rows = torch.stack([jacobian[i, :, i] for i in range(4)])
    assert rows.abs().max() > 1e-3
    torch.testing.assert_close(rows, rows.mT)
    torch.testing.assert_close(laplacian(lambda z, t: flow.potential(z, t, 2), z, t), rows.diagonal(0, 1, 2).sum(1))


def test_the_residual_is_that_of_the_potential_with_its_speed() -> None:
    flow, z, t = network(), normal(4, 3), times(4)
    with torch.no_grad():
        flow.speed.copy_(torch.tensor([0.5, 1.5, 2.5]))
    step = 1e-3
    u_tt = sum(w * flow.potential(z, t + s * step, 1) for w, s in ((1, 1), (-2, 0), (1, -1))) / step**2
    expected = u_tt - 1.5**2 * laplacian(lambda z, t: flow.potential(z, t, 1), z, t)
    torch.testing.assert_close(flow.residual(z, t, 1), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(flow.residual(z, t, 1, every_sign(z)), flow.residual(z, t, 1))
    probes = every_sign(z)[:2]
    pair = torch.stack([flow.residual(z, t, 1, probe[None]) for probe in probes])
    torch.testing.assert_close(flow.squared_residual(z, t, 1, probes), pair.prod(0))


def test_blocks_of_rows_are_what_each_potential_gives_alone() -> None:
    flow, z, t = network(), normal(6, 3), times(6)
    for k in ((0, 1, 2), (2, 0), (1,)):
        rows = 6 // len(k)
        parts = [slice(i * rows, (i + 1) * rows) for i in range(len(k))]
        for method in (flow.potential, flow.velocity, flow.residual):
            alone = torch.cat([method(z[part], t[part], one) for part, one in zip(parts, k, strict=True)])
            torch.testing.assert_close(method(z, t, k), alone)
    single = torch.cat([flow.potential(z[i : i + 1], t[i : i + 1], 1) for i in range(6)])
    torch.testing.assert_close(flow.potential(z, t, 1), single)


def test_one_time_for_all_is_that_time_for_each() -> None:
    flow, z = network(), normal(6, 3)
    one = torch.tensor(2.5, dtype=torch.float64)
    for method in (flow.potential, flow.velocity, flow.residual):
        torch.testing.assert_close(method(z, one.expand(6), (0, 1)), method(z, one.repeat(6), (0, 1)))


def test_latents_of_any_shape_are_flattened() -> None:
    torch.manual_seed(0)
    flow = PotentialFlow((2, 3), 2)
    torch.manual_seed(0)
    flat = PotentialFlow((6,), 2)
    z, t = torch.randn(4, 2, 3), torch.arange(4.0)
    assert torch.equal(flow.potential(z, t, 1), flat.potential(z.flatten(1), t, 1))
    assert torch.equal(flow.velocity(z, t, 1).flatten(1), flat.velocity(z.flatten(1), t, 1))
    assert flow.potential(z[:0], t[:0], 1).shape == (0,)


def test_graphs_are_kept_where_gradients_are_enabled_only() -> None:
    flow, z, t = network(), normal(4, 3), times(4)
    with torch.no_grad():
        assert not flow.velocity(z, t, 0).requires_grad and not flow.residual(z, t, 0).requires_grad
    here = z.clone().requires_grad_()
    v = flow.velocity(here, t, 0)
    (grad,) = torch.autograd.grad(v.square().sum() / 2, here)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow.velocity(z, t, 0), z)
    torch.testing.assert_close(grad, torch.einsum("bij,bi->bj", torch.stack([jacobian[i, :, i] for i in range(4)]), v))


def test_a_bank_is_initialised_as_linear_layers_are() -> None:
    torch.manual_seed(0)
    bank = LinearBank(50, 16, 30)
    assert bank.weight.abs().max() <= 0.25 and float(bank.weight.detach().std()) == pytest.approx(
        0.25 / 3**0.5, rel=0.02
    )


def test_the_config_rebuilds_the_network() -> None:
    flow = PotentialFlow((5,), 2, None, 4, True, ("a", "b=c"))
    again = PotentialFlow(**{**flow.config, "latent_shape": (5,)})
    assert again.config == flow.config and again.config["width"] == 6  # even, and near the latent's size
    assert (again.steps, again.bounded, again.atoms) == (4, True, ("a", "b=c"))
    again.load_state_dict(flow.state_dict())


# --- paths ---


def test_a_linear_potential_has_straight_paths() -> None:
    z = normal(4, 3)
    path = traverse(lambda z, step: velocity(lambda z, t: z @ K, z, times(len(z))), z, 5, 0.3)
    assert torch.equal(path[0], z) and len(path) == 6
    for step, place in enumerate(path):
        torch.testing.assert_close(place, z + 0.3 * step * K)


def test_a_quadratic_potential_grows_by_a_factor_each_step() -> None:
    z, length = normal(4, 3), torch.tensor([[0.0], [0.1], [0.5], [1.0]], dtype=torch.float64)
    path = traverse(lambda z, _: velocity(lambda z, t: z.square().sum(1) / 2, z, times(len(z))), z, 3, length)
    torch.testing.assert_close(path[-1], z * (1 + length) ** 3)


def test_steps_are_counted_from_zero() -> None:
    path = traverse(lambda z, step: torch.full_like(z, float(step)), torch.zeros(1, 1), 4)
    assert [float(z) for z in path] == [0, 0, 1, 3, 6]


# --- errors ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "`width` must be even and at least 4, got 7"),
        ({"width": 2}, "`width` must be even and at least 4, got 2"),
        ({"count": 0}, "`count` must be at least 1, got 0"),
        ({"steps": 1}, "`steps` must be at least 2, got 1"),
        ({"atoms": ("a",)}, "`atoms` must name what each of 3 potentials raises, or nothing, got 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PotentialFlow(**{"latent_shape": (3,), "count": 3, **options})


@pytest.mark.parametrize("method", ["potential", "velocity", "residual"])
def test_wrong_arguments_are_refused(method: str) -> None:
    call = getattr(network(), method)
    with pytest.raises(ValueError, match=r"made for latents of shape \(3,\), got \(4,\)"):
        call(normal(2, 4), times(2), 0)
    for k in (3, -1, (), (0, 5)):
        with pytest.raises(ValueError, match="`k` must be of 0 to 2"):
            call(normal(2, 3), times(2), k)
    with pytest.raises(ValueError, match="`z` must be 2 equal blocks of rows, one per potential, got 5 rows"):
        call(normal(5, 3), times(5), (0, 1))

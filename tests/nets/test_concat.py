"""The perceptron that is given the latent again at every layer: its equation, and the same frozen for sampling."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.blocks import SkipPerceptron
from lcg.nets.compiled import CompiledPerceptron
from lcg.nets.concat import ConcatPerceptron
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.execution import Backend, Execution
from lcg.nets.frozen import moments, run
from lcg.nets.frozen_concat import FrozenConcat
from lcg.nets.prepared import Prepared

TIMES = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)


def net(dtype: torch.dtype = torch.float64, depth: int = 4, width: int = 16) -> ConcatPerceptron:
    torch.manual_seed(0)
    net = ConcatPerceptron(6, 5, width, depth, time_features=12, time_width=10).to(dtype)
    for norm in net.norms:
        nn.init.normal_(norm.weight, mean=1.0, std=0.3)
        nn.init.normal_(norm.bias, std=0.3)
    return net.eval().requires_grad_(False)


def latents(rows: int = 7) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def value_and_pull(function, z: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    z = z.clone().requires_grad_()
    out = function(z)
    g = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), torch.autograd.grad(out, z, g)[0]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).abs().max() / exact.double().abs().max())


# --- the network ---


def test_the_equation() -> None:
    """Written from the paper's description: linear, times 1 + scale, layer norm, silu; the latent beside all but z."""
    perceptron, z, t = net(depth=4), latents(), torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    angle = torch.stack([1000 * t * 10_000 ** (-k / 6) for k in range(6)], dim=1)
    first, second = perceptron.time[0], perceptron.time[2]
    e = second(functional.silu(first(torch.cat((angle.cos(), angle.sin()), dim=1))))
    h = z
    for number, linear in enumerate((perceptron.input, *perceptron.hidden)):
        x = linear(h if number == 0 else torch.cat((h, z), dim=1))
        x = x * (1 + perceptron.scales[number](functional.silu(e)))
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        h = functional.silu(x * perceptron.norms[number].weight + perceptron.norms[number].bias)
    expected = perceptron.output(torch.cat((h, z), dim=1))
    torch.testing.assert_close(perceptron(z, t), expected, rtol=1e-5, atol=1e-5)  # its frequencies are float32


def test_the_numbers_of_diffusion_autoencoders() -> None:
    """L = 10 layers of 2048 over 512 numbers: counted layer by layer, 54 million."""
    with torch.device("meta"):
        perceptron = ConcatPerceptron(512, 512, 2048, 10)
    D, W, E, F = 512, 2048, 512, 64
    time = (F * E + E) + (E * E + E)
    modulated = (E * W + W) + 2 * W
    layers = (D * W + W + modulated) + 8 * ((W + D) * W + W + modulated) + ((W + D) * D + D)
    assert sum(p.numel() for p in perceptron.parameters()) == time + layers == 54_109_696


def test_it_starts_with_its_authors_weights() -> None:
    torch.manual_seed(0)
    perceptron = ConcatPerceptron(64, 64, 256, 4)
    for linear in (perceptron.input, *perceptron.hidden, *perceptron.scales):
        assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / linear.in_features), rel=0.05)
    assert perceptron.output.weight.abs().max() <= 1 / math.sqrt(256 + 64)


def test_a_latent_wider_than_the_layers_still_has_a_linear_way_through() -> None:
    """Of 6 numbers through layers of 2: with all else at 0 the last layer passes all of them on."""
    perceptron = ConcatPerceptron(6, 6, 2, 3).double()
    with torch.no_grad():
        perceptron.output.weight.copy_(torch.cat((torch.zeros(6, 2), torch.eye(6)), dim=1))
        perceptron.output.bias.zero_()
    z = latents()
    assert torch.equal(perceptron(z, torch.rand(7).double()), z)
    residual = SkipPerceptron(6, 6, 2, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: residual(x[None], TIMES[:1])[0], z[0])
    assert int(torch.linalg.matrix_rank(jacobian)) <= 2


def test_rows_are_independent_and_a_shared_time_is_equal_times() -> None:
    perceptron, z = net(), latents()
    whole = perceptron(z, TIMES[0].repeat(7))
    for i in range(len(z)):
        torch.testing.assert_close(perceptron(z[i : i + 1], TIMES[:1]), whole[i : i + 1], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(perceptron(z, TIMES[0].expand(7)), whole, rtol=1e-12, atol=1e-13)


def test_dropout_acts_in_training_only() -> None:
    perceptron, z = ConcatPerceptron(6, 5, 16, 4, dropout=0.5).double(), latents()
    perceptron.train()
    assert not torch.equal(perceptron(z, TIMES[0].repeat(7)), perceptron(z, TIMES[0].repeat(7)))
    perceptron.eval()
    assert torch.equal(perceptron(z, TIMES[0].repeat(7)), perceptron(z, TIMES[0].repeat(7)))


@pytest.mark.parametrize(("name", "value", "least"), [("width", 0, 1), ("depth", 1, 2), ("time_features", 1, 2)])
def test_sizes_that_are_too_small_are_refused(name: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least {least} with concatenated inputs, got {value}"):
        ConcatPerceptron(4, 2, **{"width": 8, "depth": 2, name: value})


# --- frozen ---


@pytest.mark.parametrize("depth", [2, 5])
@pytest.mark.parametrize("i", range(3))
def test_value_and_gradient_are_those_of_the_network(depth: int, i: int) -> None:
    perceptron, z = net(depth=depth), latents()
    exact, pulled = value_and_pull(lambda x: perceptron(x, TIMES[i].expand(7)), z)
    frozen, at = FrozenConcat(perceptron, Execution("eager")), moments(perceptron, TIMES)[i]
    out, g_z = value_and_pull(lambda x: run(frozen, x, at), z)
    assert error(out, exact) < 1e-13 and error(g_z, pulled) < 1e-12
    with torch.no_grad():
        assert error(run(frozen, z, at), exact) < 1e-13


@pytest.mark.parametrize("backend", ["auto", "reference", "autograd", "eager", "packed"])
@pytest.mark.parametrize("rows", [1, 33])
def test_every_backend_is_exact_in_single_precision(backend: Backend, rows: int) -> None:
    double, single, z = net(), net(torch.float32), latents(rows)
    single.load_state_dict(double.state_dict())
    exact, pulled = value_and_pull(lambda x: double(x, TIMES[1].expand(rows)), z)
    function = Prepared([single]).at(TIMES.float(), Execution(backend))[1]
    out, g_z = value_and_pull(function, z.float())
    assert out.dtype == g_z.dtype == torch.float32
    assert error(out, exact) < 2e-5 and error(g_z, pulled) < 2e-5  # normalising scaled rows loses some


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 5e-2), ("float16", 7e-3)])
def test_half_precision_is_near_and_hands_over_single(precision: str, bound: float) -> None:
    perceptron, z = net(torch.float32, width=64), latents(33).float()
    exact, pulled = value_and_pull(lambda x: perceptron(x, TIMES[1].float().expand(33)), z)
    frozen = FrozenConcat(perceptron, Execution("eager", precision))  # type: ignore[arg-type]
    out, g_z = value_and_pull(lambda x: run(frozen, x, moments(perceptron, TIMES.float())[1]), z)
    assert out.dtype == g_z.dtype == torch.float32
    assert 1e-5 < error(out, exact) < bound and error(g_z, pulled) < 2 * bound


def test_it_is_compiled_only_with_patience_spent() -> None:
    perceptron, z = net(torch.float32), latents().float()
    frozen, at = FrozenConcat(perceptron, Execution("eager")), moments(perceptron, TIMES.float())[0]
    compiled = CompiledPerceptron(frozen, patience=2)
    assert torch.equal(run(compiled, z, at), run(frozen, z, at)) and not compiled._compiled


def test_a_denoiser_of_it_is_prepared_and_built_again() -> None:
    torch.manual_seed(0)
    denoiser = LatentDenoiser((2, 3), 16, 4, "eps", "constant", layers="concat").eval().requires_grad_(False)
    again = LatentDenoiser(**{**denoiser.config, "latent_shape": (2, 3)})
    again.load_state_dict(denoiser.state_dict())
    z = torch.randn(5, 2, 3)
    for i, function in enumerate(again.eval().requires_grad_(False).prepare(TIMES.float())):
        torch.testing.assert_close(function(z), denoiser(z, TIMES[i].float().expand(5)), rtol=1e-4, atol=1e-5)

"""The diffusion autoencoder: its contract, its path both ways against closed forms, its layers, its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lcg.cli import main
from lcg.diffusion import DDIM, CosineSchedule
from lcg.generators.base import Generator, StochasticGenerator
from lcg.generators.diffusion_autoencoder import Architecture, DiffusionAutoencoder, SavedDiffusionAutoencoder
from lcg.generators.diffusion_autoencoder.autoencoder import linear_chain
from lcg.generators.diffusion_autoencoder.blocks import Attention, ResidualBlock, time_features
from lcg.weights import save_weights
from tests.generators.small_diffusion_autoencoder import SMALL, SmallDiffusionAutoencoder

X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_code_of_gaussian_images_is_their_standardised_value() -> None:
    """x ~ N(m, s^2): the probability-flow path is linear, and of a Gaussian it is known in closed form."""
    schedule, mean, std = CosineSchedule(), 0.3, 0.7

    class Exact(SmallDiffusionAutoencoder):
        def predict(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
            alpha, sigma = (coef[:, None, None, None] for coef in (schedule.alpha(t), schedule.sigma(t)))
            eps = sigma * (x_t - alpha * mean) / (alpha**2 * std**2 + sigma**2)
            return (eps - sigma * x_t) / alpha

    autoencoder = Exact(steps=100, iterations=2).double()
    x, z = X.double(), torch.zeros(4, 8, dtype=torch.float64)
    start = torch.tensor(autoencoder.sampler.t_start, dtype=torch.float64)
    alpha, sigma = schedule.alpha(start), schedule.sigma(start)
    expected = alpha * mean + (alpha**2 * std**2 + sigma**2).sqrt() * (x - mean) / std
    torch.testing.assert_close(autoencoder.stochastic_code(x, z), expected, rtol=0, atol=0.03)
    torch.testing.assert_close(autoencoder.decode(z, expected), x, rtol=0, atol=0.03)


class Bent(SmallDiffusionAutoencoder):
    """A smooth velocity that is not linear, in place of the U-Net's."""

    def predict(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(2 * x_t + z[:, :1, None, None]) * t[:, None, None, None]


def test_the_round_trip_with_the_code_is_tight_and_its_error_falls_with_steps_and_iterations() -> None:
    x, z = X.double(), torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def error(steps: int, iterations: int) -> float:
        autoencoder = Bent(steps=steps, iterations=iterations)
        return float((autoencoder.decode(z, autoencoder.stochastic_code(x, z)) - x).abs().max())

    by_steps = [error(steps, 1) for steps in (10, 40, 160)]
    assert by_steps[0] > 3 * by_steps[1] > 9 * by_steps[2]
    by_iterations = [error(40, iterations) for iterations in (1, 3, 9)]
    assert by_iterations[0] > 10 * by_iterations[1] > 100 * by_iterations[2]


def test_an_image_comes_back_with_its_code_and_not_without() -> None:
    autoencoder = SmallDiffusionAutoencoder()
    z = autoencoder.encode(X)
    own, fixed = (
        (autoencoder.decode(z, code) - X).square().mean().sqrt() for code in (autoencoder.stochastic_code(X, z), None)
    )
    assert own < 0.15 * fixed


def test_decode_without_a_code_is_a_function_of_the_latent() -> None:
    autoencoder = SmallDiffusionAutoencoder()
    assert isinstance(autoencoder, StochasticGenerator) and autoencoder.code_shape == (3, 16, 16)
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    x = autoencoder.decode(z)
    assert x.shape == X.shape and float(x.abs().max()) <= 1
    assert torch.equal(x, autoencoder.decode(z))
    torch.testing.assert_close(torch.cat([autoencoder.decode(row) for row in z.split(1)]), x, rtol=0, atol=1e-4)
    fixed = autoencoder.code.expand(4, 3, 16, 16)
    assert torch.equal(x, autoencoder.decode(z, fixed))
    assert not torch.allclose(x, autoencoder.decode(z, fixed.flip(2)), atol=0.05)


def test_codes_do_not_depend_on_the_batch() -> None:
    autoencoder = SmallDiffusionAutoencoder()
    z = autoencoder.encode(X)
    alone = torch.cat([autoencoder.stochastic_code(x, own) for x, own in zip(X.split(1), z.split(1), strict=True)])
    torch.testing.assert_close(alone, autoencoder.stochastic_code(X, z), rtol=0, atol=1e-3)


def test_the_gradient_through_decode_is_that_of_finite_differences() -> None:
    autoencoder = SmallDiffusionAutoencoder(steps=4).double()
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(2, 8, generator=rng, dtype=torch.float64).requires_grad_()
    code = torch.randn(2, 3, 16, 16, generator=rng, dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 3, 16, 16, generator=rng, dtype=torch.float64)
    along = torch.autograd.grad((autoencoder.decode(z, code) * weight).sum(), (z, code))
    step = 1e-6
    with torch.no_grad():
        for number, (point, slope) in enumerate(zip((z, code), along, strict=True)):
            direction = torch.randn(point.shape, generator=rng, dtype=torch.float64)
            ends = []
            for sign in (1, -1):
                given = [z, code]
                given[number] = point + sign * step * direction
                ends.append((autoencoder.decode(*given) * weight).sum())
            torch.testing.assert_close(
                (ends[0] - ends[1]) / (2 * step), (slope * direction).sum(), rtol=1e-4, atol=1e-6
            )


def test_the_memory_of_a_gradient_does_not_grow_with_the_evaluations() -> None:
    """What a path keeps for its gradient is a few images a step, not the features of the U-Net."""

    def kept(steps: int) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        autoencoder = SmallDiffusionAutoencoder(steps=steps)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            autoencoder.decode(torch.zeros(1, 8, requires_grad=True))
        return total

    assert (kept(12) - kept(4)) / 8 < 10 * 3 * 16 * 16


def test_the_u_net_is_told_the_step_of_the_chain_with_as_much_noise() -> None:
    autoencoder = DiffusionAutoencoder(SMALL, prediction="eps", chain="linear", normalise=False)
    levels = linear_chain()
    steps = torch.tensor([0, 1, 50, 499, 950, 999])
    t = autoencoder.schedule.time(levels[steps] - 0.5 * (-torch.expm1(2 * levels[steps])).log())
    torch.testing.assert_close(autoencoder.index(t), steps.double(), rtol=0, atol=1e-6)
    assert SmallDiffusionAutoencoder().index(torch.tensor([0.25])) == 250


def test_time_features_and_attention_are_the_textbook_ones() -> None:
    features = time_features(torch.tensor([3.0]), 4)
    torch.testing.assert_close(
        features,
        torch.tensor([[3.0, 0.03, 3.0, 0.03]]).cos() * torch.tensor([1.0, 1, 0, 0])
        + torch.tensor([[3.0, 0.03, 3.0, 0.03]]).sin() * torch.tensor([0.0, 0, 1, 1]),
    )
    torch.manual_seed(0)
    attention, h = Attention(4), torch.randn(2, 4, 3, 3)
    torch.nn.init.normal_(attention.projection.weight)
    q, k, v = attention.qkv(attention.norm(h.flatten(2))).chunk(3, dim=1)
    shares = (q.transpose(1, 2) @ k / 2).softmax(-1)  # sqrt(4) = 2
    expected = h + attention.projection(v @ shares.transpose(1, 2)).view_as(h)
    torch.testing.assert_close(attention(h), expected)


def test_a_block_is_adaptive_group_normalisation_of_equation_7() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, embed=3, latent=2)
    torch.nn.init.normal_(block.conv_out.weight)
    h, time, z, silu = torch.randn(2, 4, 5, 5), torch.randn(2, 3), torch.randn(2, 2), torch.nn.functional.silu
    scale, shift = block.time_affine(silu(time))[:, :, None, None].chunk(2, dim=1)
    z_s = 1 + block.latent_affine(silu(z))[:, :, None, None]
    normed = block.norm_out(block.conv_in(silu(block.norm_in(h))))
    expected = h + block.conv_out(silu(z_s * ((1 + scale) * normed + shift)))
    torch.testing.assert_close(block(h, time, z), expected)


def test_a_latent_is_normalised_over_the_images_it_was_trained_on() -> None:
    z = SmallDiffusionAutoencoder().train().encode(X)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(8), rtol=0.05, atol=0)


def test_a_file_gives_the_same_images_with_steps_of_choice(tmp_path: Path) -> None:
    autoencoder, path = SmallDiffusionAutoencoder(), tmp_path / "small.safetensors"
    save_weights(path, autoencoder, autoencoder.config, {"made": "for a test"})
    saved, z = SavedDiffusionAutoencoder(path), torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(saved.decode(z), autoencoder.decode(z), rtol=0, atol=0.02)  # in float16
    assert saved.identity() == SavedDiffusionAutoencoder(path).identity()
    assert saved.provenance == {"made": "for a test"} and saved.config["steps"] == 5
    other = SavedDiffusionAutoencoder(path, steps=9, iterations=2)
    assert (other.sampler.steps, other.iterations, other.identity()["config"]["steps"]) == (9, 2, 9)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "linear.safetensors"
    save_weights(path, torch.nn.Linear(2, 2), {"width": 3}, {})
    with pytest.raises(ValueError, match="does not hold a diffusion autoencoder"):
        SavedDiffusionAutoencoder(path)


def test_what_cannot_be_is_refused_with_advice() -> None:
    autoencoder = SmallDiffusionAutoencoder()
    z, code = torch.zeros(2, 8), torch.zeros(2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"`x` must be of shape \(B, 3, 16, 16\), got \(2, 8\)"):
        autoencoder.encode(z)
    with pytest.raises(ValueError, match=r"`z` must be of shape \(B, 8\)"):
        autoencoder.decode(code)
    with pytest.raises(ValueError, match=r"`code` must be of shape \(B, 3, 16, 16\)"):
        autoencoder.decode(z, code[:, :2])
    with pytest.raises(ValueError, match=r"`code` must have a row for each of 2 latents, got 1"):
        autoencoder.decode(z, code[:1])
    with pytest.raises(ValueError, match=r"`image_size` must be a multiple of 8.*use fewer multipliers"):
        Architecture(image_size=20, multipliers=[1, 2], encoder_multipliers=[1])
    with pytest.raises(ValueError, match="`prediction` must be one of eps, v, got 'x'"):
        DiffusionAutoencoder(SMALL, prediction="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`iterations` must be at least 1, got 0"):
        DiffusionAutoencoder(SMALL, iterations=0)
    with pytest.raises(ValueError, match=r"`spread` must be in \(0, 1\], got 0"):
        DiffusionAutoencoder(SMALL, spread=0)
    with pytest.raises(TypeError, match="abstract"):
        type("NoCode", (StochasticGenerator,), {"decode": Generator.decode})()


def test_the_path_is_that_of_the_projects_ddim() -> None:
    autoencoder, z = SmallDiffusionAutoencoder(), torch.zeros(2, 8)
    code = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = DDIM(CosineSchedule(), 5, 0.995).sample(autoencoder.denoiser(z), code)
    assert torch.equal(autoencoder.decode(z, code), x.clamp(-1, 1))


def test_check_generator_passes(capsys: pytest.CaptureFixture[str]) -> None:
    small = "tests.generators.small_diffusion_autoencoder.SmallDiffusionAutoencoder"
    assert main(["check-generator", "--generator", small, "--generator.steps", "3", "--rows", "4"]) == 0
    told = capsys.readouterr().out
    assert " 0 wrong" in told and "decode: gradient" in told

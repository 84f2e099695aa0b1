"""StyleGANs as generators: the contract, both spaces, truncation, noise, gradients, inversion, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lcg.editing.inversion import invert
from lcg.generators.check import check_generator, table
from lcg.generators.stylegan import StyleGAN2, StyleGAN3
from lcg.generators.stylegan.generator import StyleGAN
from lcg.weights import save_weights
from tests.generators.small_stylegan import STYLEGAN3_R, write_stylegan2, write_stylegan3

Make = Callable[..., StyleGAN]


@pytest.fixture(params=["2", "2, resnet, clamped", "2, orig", "3-t", "3-r"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a small generator, of whose class's options some may be given."""
    path, channels = tmp_path / "weights.safetensors", (12, 12, 8)
    if request.param.startswith("2"):
        architecture = next((name for name in ("resnet", "orig") if name in request.param), "skip")
        clamp = 256.0 if "clamped" in request.param else None
        weights = write_stylegan2(path, channels, 16, architecture, clamp)
        return lambda **options: StyleGAN2(weights, **options)
    weights = write_stylegan3(path, 16, channels, 16, **(STYLEGAN3_R if request.param == "3-r" else {}))
    return lambda **options: StyleGAN3(weights, **options)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return write_stylegan2(tmp_path / "weights.safetensors", (12, 12, 8), 16)


def drawn(generator: StyleGAN, n: int) -> Tensor:
    return generator.sample_latents(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("space", ["w", "w+"])
def test_the_contract_is_kept(make: Make, space: str) -> None:
    findings = list(check_generator(lambda: make(space=space), rows=6))
    assert not [finding for finding in findings if finding.verdict in ("wrong", "warning")], table(findings)


def test_equal_latents_for_all_layers_are_one_latent(make: Make) -> None:
    w, w_plus = make(), make(space="w+")
    z = drawn(w, 3)
    assert w.latent_shape == (16,) and w_plus.latent_shape == (w_plus.synthesis.latents, 16)
    torch.testing.assert_close(w_plus.decode(w.broadcast(z)), w.decode(z), rtol=0, atol=0)
    torch.testing.assert_close(drawn(w_plus, 3), w.broadcast(z), rtol=0, atol=0)


def test_each_latent_of_w_plus_has_its_say(make: Make) -> None:
    generator = make(space="w+")
    z = drawn(generator, 1).requires_grad_()
    generator.synthesise(z).square().sum().backward()
    assert (z.grad.norm(dim=2) > 1e-4).all()


def test_truncation_draws_samples_towards_the_mean(make: Make) -> None:
    mean = make().mapping.w_mean
    z = drawn(make(), 5)
    torch.testing.assert_close(drawn(make(truncation=0.7), 5), mean + 0.7 * (z - mean))
    torch.testing.assert_close(drawn(make(truncation=0.0), 5), mean.expand(5, -1))
    torch.testing.assert_close(drawn(make(), 2000).mean(0), mean, atol=0.2, rtol=0)


def test_the_length_of_z_does_not_matter_to_the_mapping(make: Make) -> None:
    mapping, z = make().mapping, torch.randn(3, 16)
    torch.testing.assert_close(mapping(3 * z), mapping(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_gradients_are_finite_differences(make: Make, space: str) -> None:
    generator = make(space=space).double()
    z, random = drawn(generator, 2), torch.Generator().manual_seed(1)
    u = torch.randn(z.shape, dtype=z.dtype, generator=random)
    v = torch.randn(2, *generator.image_shape, dtype=z.dtype, generator=random)

    def f(z: Tensor) -> Tensor:
        return (v * generator.synthesise(generator.broadcast(z) if space == "w" else z)).flatten(1).sum(1)

    (grad,) = torch.autograd.grad(f(z.requires_grad_()).sum(), z)
    z = z.detach()
    slopes = [(f(z + h * u) - f(z - h * u)) / (2 * h) for h in (1e-6, 1e-7)]
    error = min(float(((grad * u).flatten(1).sum(1) - slope).abs().max() / slope.abs().max()) for slope in slopes)
    assert error < 1e-6


def test_a_saturated_pixel_has_no_gradient(weights: str) -> None:
    generator = StyleGAN2(weights)
    z = (8 * drawn(generator, 4)).requires_grad_()
    with torch.no_grad():
        generator.synthesis.blocks[-1].colours.bias.fill_(0.9)
    x = generator.decode(z)
    saturated = x.abs() == 1
    assert 0.02 < saturated.float().mean() < 0.98
    (grad,) = torch.autograd.grad(x[saturated].sum(), z, retain_graph=True)
    assert not grad.any()
    (grad,) = torch.autograd.grad(x[~saturated].sum(), z)
    assert (grad.norm(dim=1) > 0).all()


def test_noise_is_the_stored_one_or_none(weights: str) -> None:
    const, none = StyleGAN2(weights), StyleGAN2(weights, noise="none")
    z = drawn(const, 2)
    assert torch.equal(const.decode(z), const.decode(z)) and not torch.equal(const.decode(z), none.decode(z))
    for layer in const.synthesis.modules():
        if hasattr(layer, "noise_strength"):
            layer.noise_strength.data.zero_()
    torch.testing.assert_close(const.decode(z), none.decode(z))
    assert const.identity()["noise"] == "const" and none.identity()["noise"] == "none"


def test_the_architecture_belongs_to_the_identity(tmp_path: Path) -> None:
    bounds = [StyleGAN2(write_stylegan2(tmp_path / "w.safetensors", (8, 8), 8, clamp=clamp)) for clamp in (None, 256.0)]
    first, second = (generator.identity() for generator in bounds)
    assert first != second and first["weights_sha256"] == second["weights_sha256"]


@pytest.mark.parametrize("space", ["w", "w+"])
def test_images_are_inverted_by_descent(weights: str, space: str) -> None:
    generator = StyleGAN2(weights, space=space)
    truth = drawn(generator, 2)
    found = invert(generator, generator.decode(truth), steps=80, noise=0.0)
    nothing = invert(generator, generator.decode(truth), steps=1, noise=0.0)
    assert found.z.shape == truth.shape and (found.error < 0.25 * nothing.error).all(), (found.error, nothing.error)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_options_out_of_range_are_refused(weights: str) -> None:
    with pytest.raises(ValueError, match=r"`space` must be 'w' or 'w\+', got 'z'"):
        StyleGAN2(weights, space="z")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`truncation` must be in \[0, 1\], got 1.5"):
        StyleGAN2(weights, truncation=1.5)
    with pytest.raises(ValueError, match="`noise` must be 'const' or 'none', got 'random'"):
        StyleGAN2(weights, noise="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`z` must be latents of shape \(16,\), got \(6, 16\)"):
        StyleGAN2(weights).decode(torch.zeros(1, 6, 16))


def test_other_files_are_refused(weights: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make them of an official file with `lcg convert-stylegan`"):
        StyleGAN2(str(tmp_path / "none.safetensors"))
    (tmp_path / "official.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="is a pickle, which can execute code; convert it first"):
        StyleGAN2(str(tmp_path / "official.pkl"))
    with pytest.raises(ValueError, match=r"holds StyleGAN2, not StyleGAN3; use lcg.generators.stylegan.StyleGAN2"):
        StyleGAN3(weights)
    other = tmp_path / "other.safetensors"
    save_weights(other, torch.nn.Linear(1, 1), {}, {})
    with pytest.raises(ValueError, match="holds no StyleGAN, not StyleGAN2; give what `lcg convert-stylegan` wrote"):
        StyleGAN2(str(other))
    save_weights(other, torch.nn.Linear(1, 1), {"network": "StyleGAN2", "mapping": {}, "synthesis": {}}, {})
    with pytest.raises(ValueError, match=r"does not hold a StyleGAN2 .*; convert the official file again"):
        StyleGAN2(str(other))

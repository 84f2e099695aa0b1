"""The embedded generator, small and untrained: what training cannot change."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcg.generators.autoencoder import AvatarAutoencoder, PCAAutoencoder
from lcg.weights import save_weights

SHAPE = (3, 8, 8)


def images(n: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def low_rank(n: int = 60, rank: int = 5) -> Tensor:
    """Images about a mean in `rank` directions, within [-1, 1]."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(rank, 3 * 8 * 8, generator=generator)
    x = 0.2 + 0.1 * rank**-0.5 * torch.randn(n, rank, generator=generator) @ directions
    assert x.abs().max() < 1
    return x.unflatten(1, SHAPE)


@pytest.fixture
def net() -> PCAAutoencoder:
    torch.manual_seed(0)
    net = PCAAutoencoder(latent_dim=4, components=6, width=16, blocks=1, image_shape=SHAPE)
    net.fit_basis(low_rank())
    net.train()
    for _ in range(3):
        net.encode(low_rank())  # gives the normalisation its statistics
    return net.eval()


def test_shapes_and_range(net: PCAAutoencoder) -> None:
    assert net.latent_shape == (4,) and net.image_shape == SHAPE
    z = net.encode(images())
    assert z.shape == (12, 4)
    x = net.decode(100 * z)
    assert x.shape == (12, *SHAPE)
    assert x.min() == -1 and x.max() == 1


def test_the_basis_holds_low_rank_images_exactly(net: PCAAutoencoder) -> None:
    x = low_rank()
    assert (net.pixels(net.coefficients(x)) - x).abs().max() < 1e-5
    torch.testing.assert_close(net.basis @ net.basis.T, torch.eye(6), rtol=0, atol=1e-5)
    assert (net.mean - x.flatten(1).mean(0)).abs().max() < 1e-6
    assert net.coefficients(x).square().mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("detail", [0.0, 0.5, 1.0])
def test_detail_weighs_faint_components(detail: float) -> None:
    """The scale is std^detail up to a factor that gives the coefficients mean square 1."""
    net = PCAAutoencoder(4, components=5, width=16, blocks=1, detail=detail, image_shape=SHAPE)
    net.fit_basis(low_rank())
    c = net.coefficients(low_rank())
    std = (c * net.scale).square().mean(0).sqrt()
    assert c.square().mean() == pytest.approx(1, rel=1e-4)
    ratio = net.scale / std**detail
    assert ratio.max() / ratio.min() == pytest.approx(1, rel=1e-4)
    assert (net.pixels(c) - low_rank()).abs().max() < 1e-5


def test_the_basis_keeps_the_principal_components() -> None:
    """Of images of full rank it leaves out what the exact decomposition leaves out."""
    x = low_rank(80, 40) + 0.3 * low_rank(80, 3).flip(0)
    net = PCAAutoencoder(latent_dim=4, components=20, width=16, blocks=1, image_shape=SHAPE)
    net.fit_basis(x)
    centred = (x - x.mean(0)).flatten(1)
    left_out = torch.linalg.svdvals(centred)[20:].square().sum()
    error = (net.pixels(net.coefficients(x)) - x).square().sum()
    assert float(error / left_out) == pytest.approx(1, abs=0.02)


def test_the_basis_is_a_function_of_images_and_seed() -> None:
    first, again = (PCAAutoencoder(4, 6, 16, 1, image_shape=SHAPE) for _ in range(2))
    before = torch.random.get_rng_state()
    first.fit_basis(low_rank(), seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random numbers are left alone
    torch.rand(5)
    again.fit_basis(low_rank(), seed=3)
    assert torch.equal(first.basis, again.basis) and torch.equal(first.scale, again.scale)


def test_too_few_images_for_the_basis_are_refused() -> None:
    net = PCAAutoencoder(latent_dim=4, components=20, width=16, blocks=1, image_shape=SHAPE)
    with pytest.raises(
        ValueError, match=r"`x` must be at least 20 images .* for 20 components, got 12 of 192; give more"
    ):
        net.fit_basis(images())
    net.fit_basis(images(21))  # fewer than randomised decomposition likes, and still enough
    assert (net.pixels(net.coefficients(images(21))) - images(21)).abs().max() < 1e-4


def test_rows_are_independent(net: PCAAutoencoder) -> None:
    x = images()
    z = net.encode(x)
    decoded = net.decode(z)
    for i in range(len(x)):
        torch.testing.assert_close(net.encode(x[i : i + 1]), z[i : i + 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(net.decode(z[i : i + 1]), decoded[i : i + 1], rtol=1e-5, atol=1e-5)


def test_gradients_pass_through_decoding(net: PCAAutoencoder) -> None:
    net.requires_grad_(False).double()
    nn.init.normal_(net.decoder[-1].weight, std=0.02)
    z = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert net.decode(z).abs().max() < 1  # gradcheck knows no clamp
    assert torch.autograd.gradcheck(lambda z: net.decode(z).flatten(1)[:, ::17], z)


def test_in_training_latents_are_standardised() -> None:
    net = PCAAutoencoder(latent_dim=4, components=6, width=16, blocks=1, image_shape=SHAPE)
    net.fit_basis(low_rank())
    z = net.train().encode(low_rank())
    torch.testing.assert_close(z.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(4), rtol=0, atol=1e-2)


def test_other_shapes_are_refused(net: PCAAutoencoder) -> None:
    with pytest.raises(ValueError, match=r"`x` must be images of shape \(3, 8, 8\), got \(3, 64, 64\); resize them"):
        net.encode(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"`z` must be latents of shape \(4,\), got \(5,\)"):
        net.decode(torch.zeros(1, 5))


def test_released_weights_build_the_same_generator_frozen(net: PCAAutoencoder, tmp_path: Path) -> None:
    save_weights(tmp_path / "avatars.safetensors", net, net.config, {"trained_on": "nothing"})
    released = AvatarAutoencoder(str(tmp_path / "avatars.safetensors"))
    assert released.provenance == {"trained_on": "nothing"}
    assert released.latent_shape == (4,) and released.image_shape == SHAPE
    assert not released.training and not any(p.requires_grad for p in released.parameters())
    z = net.encode(images())
    torch.testing.assert_close(released.encode(images()), z, rtol=1e-2, atol=1e-2)  # matrices are float16
    torch.testing.assert_close(released.decode(z), net.decode(z), rtol=1e-2, atol=1e-2)


def test_files_that_hold_no_autoencoder_are_refused(net: PCAAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere"):
        AvatarAutoencoder(str(tmp_path / "nowhere.safetensors"))
    path = tmp_path / "other.safetensors"
    for config in ({"features": 3}, net.config, {**net.config, "depth": 2}):
        save_weights(path, nn.Linear(2, 2), config, {})
        with pytest.raises(ValueError, match=r"(?s)other\.safetensors does not hold an autoencoder .*export it again"):
            AvatarAutoencoder(str(path))

"""DCGAN and the faces: the stack that the weights tell of, its contract, and refusals with advice."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lcg import cli
from lcg.generators.base import weights_sha256, x_to_pixels
from lcg.generators.check import check_generator, table
from lcg.generators.dcgan import DCGAN
from lcg.generators.faces import FaceDCGAN

WIDTHS = (10, 16, 8, 3)  # latent, hidden layers, colours: images of 16 x 16


def network(widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> nn.Sequential:
    """The usual way to write such a generator, with statistics of batch normalisation that are not the first ones."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, *((1, 0) if number == 0 else (2, 1)), bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(True)] if number < len(widths) - 2 else [nn.Tanh()]
    random = torch.Generator().manual_seed(seed)
    for tensor in nn.Sequential(*layers).state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=random) - 0.5 * (tensor.ndim > 1))
    return nn.Sequential(*layers).eval()


def write(state: dict[str, Tensor], path: Path) -> str:
    save_file(state, path)
    return str(path)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return write(
        {f"main.{name}": tensor for name, tensor in network().state_dict().items()}, tmp_path / "g.safetensors"
    )


def test_a_dcgan_gives_what_its_network_gives(weights: str, tmp_path: Path) -> None:
    generator, z = DCGAN(weights), torch.randn(5, 10, generator=torch.Generator().manual_seed(1), requires_grad=True)
    x, expected = generator.decode(z), network()(z[:, :, None, None])
    assert generator.latent_shape == (10,) and generator.image_shape == (3, 16, 16) == tuple(x.shape[1:])
    torch.testing.assert_close(x, expected)
    gradient, wanted = (torch.autograd.grad(image.square().sum(), z)[0] for image in (x, expected))
    torch.testing.assert_close(gradient, wanted)
    torch.save({"epoch": 3, "netG": network().state_dict()}, tmp_path / "g.tar")
    assert weights_sha256(DCGAN(str(tmp_path / "g.tar"), key="netG")) == weights_sha256(generator)


def test_a_dcgan_keeps_the_contract(weights: str) -> None:
    findings = list(check_generator(lambda: DCGAN(weights)))
    assert not {finding.verdict for finding in findings} & {"wrong", "warning"}, table(findings)


def test_images_do_not_depend_on_the_batch_in_training_mode_either(weights: str) -> None:
    generator, z = DCGAN(weights).train(), torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    assert generator.training
    torch.testing.assert_close(generator.decode(z)[:1], generator.decode(z[:1]))


def test_its_latents_are_standard_normal_and_decided_by_their_generator(weights: str) -> None:
    generator = DCGAN(weights)
    z = generator.sample_latents(20_000, torch.Generator().manual_seed(0))
    assert torch.equal(z[:3], generator.sample_latents(20_000, torch.Generator().manual_seed(0))[:3])
    torch.testing.assert_close(torch.cov(z.T), torch.eye(10), rtol=0, atol=0.05)
    torch.testing.assert_close(z.mean(0), torch.zeros(10), rtol=0, atol=0.05)


class Rogue:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_files_that_are_no_weights_are_refused(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere.*; give a file of safetensors"):
        DCGAN(str(tmp_path / "nowhere"))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(weights).read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"damaged\.safetensors is damaged or holds no safetensors .*; copy it again"):
        DCGAN(str(damaged))
    torch.save({"netG": Rogue()}, tmp_path / "rogue.pt")
    with pytest.raises(ValueError, match=r"rogue\.pt is damaged or holds more than tensors, which could execute code"):
        DCGAN(str(tmp_path / "rogue.pt"))
    assert "executed" not in capsys.readouterr().out
    torch.save({"netG": network().state_dict(), "loss": torch.zeros(3)}, tmp_path / "g.pt")
    with pytest.raises(ValueError, match=r"`key` must name what .*g\.pt holds, which is loss, netG, got 'netD'"):
        DCGAN(str(tmp_path / "g.pt"), key="netD")
    with pytest.raises(ValueError, match=r"must hold tensors by name, got loss, netG; name the state dictionary in it"):
        DCGAN(str(tmp_path / "g.pt"))


def test_weights_of_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(
        ValueError, match=r"must hold the weights of a .*, named like main\.0\.weight, got bias, weight"
    ):
        DCGAN(write(nn.Linear(3, 4).state_dict(), path))
    with pytest.raises(ValueError, match=r"got tensors of four dimensions \[\(4, 3, 3, 3\)\]; write an adapter"):
        DCGAN(write(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), path))
    state = network().state_dict()
    del state["1.running_mean"]
    with pytest.raises(ValueError, match=r"does not hold the weights of a (.|\n)*running_mean"):
        DCGAN(write(state, path))
    with pytest.raises(ValueError, match=r"must make images of 3 channels, RGB, got 1; use weights of such a one"):
        DCGAN(write(network((10, 8, 1)).state_dict(), path))


def test_a_command_tells_what_the_constructor_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of an argument that may be left out, whose errors the parser wraps in its own."""
    missing = str(tmp_path / "nowhere")
    words = ["--generator", "lcg.generators.dcgan.DCGAN", "--generator.weights", missing]
    assert cli.main(["generate", *words]) == 2
    assert capsys.readouterr().err.startswith(f"lcg generate: no weights at {missing}; give a file of safetensors")


def test_latents_of_another_shape_are_refused(weights: str) -> None:
    with pytest.raises(ValueError, match=r"`z` must be latents of shape \(10,\), got \(9,\)"):
        DCGAN(weights).decode(torch.zeros(2, 9))


def test_images_are_not_encoded_and_what_to_do_is_said(weights: str) -> None:
    with pytest.raises(NotImplementedError, match=r"DCGAN has no encoder.*fill the store from `sample_latents`"):
        DCGAN(weights).encode(torch.zeros(1, 3, 16, 16))


def test_faces_are_faces() -> None:
    """Of images of faces that are lit by day the middle is brighter, and redder than blue, as skin of any colour is."""
    generator = FaceDCGAN()
    assert generator.latent_shape == (100,) and generator.image_shape == (3, 64, 64)
    with torch.no_grad():
        x = generator.decode(generator.sample_latents(64, torch.Generator().manual_seed(0)))
    pixels = x_to_pixels(x).float().mean(0)
    face, corners = pixels[20:48, 20:44].mean((0, 1)), pixels[:6, [0, 1, 2, 61, 62, 63]].mean((0, 1))
    assert face[0] > 1.2 * face[2] and face[0] > corners[0] and float(x.std(0).mean()) > 0.3


def test_faces_name_the_extra_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"need the package gan-face-generate: pip install 'lcg\[faces\]'"):
        FaceDCGAN()

"""Autoencoders of diffusers: they give what diffusers gives, keep the contract, and refuse what is unsafe or wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lcg.cli import main
from lcg.generators.check import check_generator, table
from lcg.generators.diffusers_autoencoder import DiffusersAutoencoder
from tests.generators.small_diffusers import CONFIGS, write_autoencoder

KINDS = pytest.mark.parametrize("kind", CONFIGS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a kind of autoencoder, which no test may change."""
    root = tmp_path_factory.mktemp("autoencoders")
    for kind in CONFIGS:
        write_autoencoder(kind, root / kind)
    return lambda kind: str(root / kind)


def generator_of(path: str) -> DiffusersAutoencoder:
    return DiffusersAutoencoder(path, image_size=32 if path.endswith("RAE") else 16)


def network_of(path: str) -> torch.nn.Module:
    import diffusers

    kind = getattr(diffusers, json.loads(Path(path, "config.json").read_text())["_class_name"])
    return kind.from_pretrained(path, low_cpu_mem_usage=False).eval()


def images(size: int) -> torch.Tensor:
    return 2 * torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) - 1


@KINDS
def test_an_autoencoder_keeps_the_contract(folder: Callable[[str], str], kind: str) -> None:
    findings = list(check_generator(lambda: generator_of(folder(kind)), rows=4))
    verdicts = {finding.name: finding.verdict for finding in findings}
    lossy = {"encode: round trip"} | ({"decode: slope"} if kind == "VQModel" else set())  # random weights, a quantiser
    assert "wrong" not in verdicts.values(), table(findings)
    assert {name for name, verdict in verdicts.items() if verdict == "warning"} <= lossy, table(findings)


@pytest.mark.parametrize(("kind", "shape"), [("AutoencoderKL", (4, 8, 8)), ("AutoencoderTiny", (4, 4, 4))])
def test_raw_latents_are_those_of_the_network_without_scale_or_shift(
    folder: Callable[[str], str], kind: str, shape: tuple[int, ...]
) -> None:
    generator, network, x = generator_of(folder(kind)), network_of(folder(kind)), images(16)
    encoded = network.encode(x, return_dict=False)[0]
    expected = encoded.mean if kind == "AutoencoderKL" else encoded
    torch.testing.assert_close(generator.encode(x), expected)
    torch.testing.assert_close(generator.decode(expected), network.decode(expected)[0].clamp(-1, 1))
    assert generator.latent_shape == shape == tuple(expected.shape[1:]) and generator.image_shape == (3, 16, 16)


def test_a_tiny_one_bends_its_latents_into_three(folder: Callable[[str], str]) -> None:
    generator = generator_of(folder("AutoencoderTiny"))
    far = 60 * torch.ones(1, *generator.latent_shape)
    torch.testing.assert_close(generator.decode(far), generator.decode(1e6 * far))


def test_a_quantising_decoder_gives_the_nearest_codes_and_hands_the_gradient_through(
    folder: Callable[[str], str],
) -> None:
    """decode(z) = D(c(z)) with the nearest codes c, and its gradient is that of D at c(z)."""
    generator, network = generator_of(folder("VQModel")), network_of(folder("VQModel"))
    z = generator.encode(images(16)).detach().requires_grad_()
    codes = network.quantize.embedding.weight.detach()
    nearest = torch.cdist(z.detach().movedim(1, -1).reshape(-1, 3), codes).argmin(1)
    quantised = codes[nearest].view(3, 8, 8, 3).movedim(-1, 1).clone().requires_grad_()
    x, expected = generator.decode(z), network.decode(quantised, force_not_quantize=True)[0].clamp(-1, 1)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((weight * x).sum(), z)
    (wanted,) = torch.autograd.grad((weight * expected).sum(), quantised)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))
    assert float(gradient.abs().min()) > 0


def test_a_representation_autoencoder_normalises_features_of_its_encoder(folder: Callable[[str], str]) -> None:
    """The latents are the patch features of the encoder, standardised by what comes with the weights; no noise."""
    generator, network = generator_of(folder("AutoencoderRAE")).train(), network_of(folder("AutoencoderRAE"))
    assert generator.latent_shape == (64, 4, 4) and generator.image_shape == (3, 32, 32)
    x = images(32)
    large = torch.nn.functional.interpolate((x + 1) / 2, size=(56, 56), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    features = network.encoder((large - mean) / std).last_hidden_state[:, 5:].transpose(1, 2).unflatten(2, (4, 4))
    state = load_file(Path(folder("AutoencoderRAE"), "diffusion_pytorch_model.safetensors"))
    expected = (features - state["_latents_mean"]) / (state["_latents_std"] + 1e-5)
    torch.testing.assert_close(generator.encode(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(generator.decode(expected), (2 * network.decode(expected)[0] - 1).clamp(-1, 1))


def test_shapes_follow_the_size_that_is_asked_for(folder: Callable[[str], str]) -> None:
    generator = DiffusersAutoencoder(folder("AutoencoderKL"), image_size=32)
    assert generator.latent_shape == (4, 16, 16) and generator.encode(images(32)).shape == (3, 4, 16, 16)
    assert DiffusersAutoencoder(folder("VQModel")).image_shape == (3, 16, 16)  # sample_size of its config
    with pytest.raises(ValueError, match="`x` must be images of shape"):
        generator.encode(images(16))
    with pytest.raises(ValueError, match="`z` must be latents of shape"):
        generator.decode(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"`image_size` must be given, as the config\.json of this AutoencoderTiny"):
        DiffusersAutoencoder(folder("AutoencoderTiny"))
    with pytest.raises(ValueError, match="`image_size` must be a multiple of 2 for this AutoencoderKL, got 33"):
        DiffusersAutoencoder(folder("AutoencoderKL"), image_size=33)
    with pytest.raises(ValueError, match="`image_size` of this AutoencoderRAE must be 32, got 64; leave it out"):
        DiffusersAutoencoder(folder("AutoencoderRAE"), image_size=64)


def test_an_autoencoder_in_a_pipelines_folder_is_found_by_its_subfolder(
    folder: Callable[[str], str], tmp_path: Path
) -> None:
    shutil.copytree(folder("AutoencoderKL"), tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    assert DiffusersAutoencoder(str(tmp_path), subfolder="vae").kind == "AutoencoderKL"
    with pytest.raises(FileNotFoundError, match=r"no config\.json in .*give --generator\.subfolder vae"):
        DiffusersAutoencoder(str(tmp_path))


def test_pickled_weights_are_refused(folder: Callable[[str], str], tmp_path: Path) -> None:
    shutil.copy(Path(folder("AutoencoderKL"), "config.json"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights in safetensors in .*; where you trust them"):
        DiffusersAutoencoder(str(tmp_path))
    torch.save(network_of(folder("AutoencoderKL")).state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model\.bin is not loaded, since a pickle can"):
        DiffusersAutoencoder(str(tmp_path))


def test_what_is_missing_or_wrong_is_refused(folder: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder at .*nowhere, and it is no hub's name"):
        DiffusersAutoencoder(str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"cannot read the config\.json of nobody/nothing .*; give another path"):
        DiffusersAutoencoder("nobody/nothing", local_files_only=True)
    broken = shutil.copytree(folder("AutoencoderKL"), tmp_path / "broken")
    config, file = json.loads((broken / "config.json").read_text()), broken / "diffusion_pytorch_model.safetensors"
    (broken / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DModel"}))
    with pytest.raises(ValueError, match="holds UNet2DModel, expected one of AutoencoderKL, AutoencoderTiny, VQModel"):
        DiffusersAutoencoder(str(broken))
    (broken / "config.json").write_text(json.dumps({**config, "in_channels": 1}))
    with pytest.raises(ValueError, match="does not hold the weights of the AutoencoderKL that its config"):
        DiffusersAutoencoder(str(broken))
    (broken / "config.json").write_text(json.dumps(config))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises((OSError, ValueError), match=r"(cannot load|does not hold the weights of)"):
        DiffusersAutoencoder(str(broken))


def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be an autoencoder of RGB images, but fails on one"):
        DiffusersAutoencoder(str(tmp_path))
    AutoencoderKL(out_channels=1, block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must decode the latent of a \(3, 64, 64\) image to that shape, got \(1, 64"):
        DiffusersAutoencoder(str(tmp_path))


def test_the_extra_is_named_where_the_package_is_missing_or_old(
    folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import diffusers

    monkeypatch.setattr(diffusers, "AutoencoderRAE", None, raising=False)
    with pytest.raises(ImportError, match=r"does not know AutoencoderRAE: pip install -U 'lcg\[diffusers\]'"):
        DiffusersAutoencoder(folder("AutoencoderRAE"))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"needs the package diffusers: pip install 'lcg\[diffusers\]'"):
        DiffusersAutoencoder(folder("AutoencoderKL"))
    name = "lcg.generators.diffusers_autoencoder.DiffusersAutoencoder"
    words = ["generate", "--generator", name, "--generator.path", folder("AutoencoderKL")]
    assert main(words) == 2
    assert "pip install 'lcg[diffusers]'" in capsys.readouterr().err

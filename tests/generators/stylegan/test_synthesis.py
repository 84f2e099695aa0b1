"""Layers against other forms of their formulae, numbers of parameters, and what moves when the plane does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg.generators.stylegan import StyleGAN3, stylegan2, stylegan3
from lcg.generators.stylegan.layers import MappingNetwork, demodulation, scaled
from lcg.generators.stylegan.stylegan3 import plan
from tests.generators.small_stylegan import STYLEGAN3_R, write_stylegan3
from tests.generators.stylegan.official3 import signals


def test_scaling_input_and_output_is_scaling_the_weights() -> None:
    random = torch.Generator().manual_seed(0)
    x, weight, style = (
        torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((4, 5, 6, 6), (7, 5, 3, 3), (4, 5))
    )
    y = scaled(F.conv2d(scaled(x, style), weight, padding=1), demodulation(weight, style))
    own = weight * style[:, None, :, None, None]  # (B, O, I, K, K)
    own = own / (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    grouped = F.conv2d(x.reshape(1, 20, 6, 6), own.reshape(28, 5, 3, 3), padding=1, groups=4).reshape(4, 7, 6, 6)
    torch.testing.assert_close(y, grouped, rtol=1e-12, atol=1e-12)


def test_demodulation_takes_the_length_of_a_style_away() -> None:
    weight, style = torch.randn(3, 4, 3, 3), torch.randn(2, 4)
    torch.testing.assert_close(demodulation(weight, 10 * style) * 10, demodulation(weight, style))


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_the_official_stylegan2_of_faces_has_30_million_parameters() -> None:
    channels = [min(2**15 // size, 512) for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024)]
    with torch.device("meta"):
        synthesis, mapping = stylegan2.Synthesis(512, channels), MappingNetwork(512, 512, 8)

    def convolution(inputs: int, outputs: int) -> int:  # weights, bias, strength of noise, style
        return 9 * inputs * outputs + outputs + 1 + 513 * inputs

    expected = 16 * 512
    for k, width in enumerate(channels):
        expected += convolution(channels[k - 1], width) if k else 0
        expected += convolution(width, width) + 3 * width + 3 + 513 * width
    assert count(synthesis) == expected == 28_268_812
    assert count(mapping) == 8 * 513 * 512 == 2_101_248
    assert synthesis.latents == 18 and synthesis.size == 1024


@pytest.mark.parametrize(("most", "options", "expected"), [(512, {}, 22_313_167), (1024, STYLEGAN3_R, 15_093_151)])
def test_the_official_stylegan3_of_faces(most: int, options: dict[str, Any], expected: int) -> None:
    channels = [min(round(32 * most / row["cutoff"]), most) for row in signals(1024, 14)[:-1]]
    with torch.device("meta"):
        synthesis, mapping = stylegan3.Synthesis(512, 1024, channels, **options), MappingNetwork(512, 512, 2)
    area = 1 if options else 9
    formula = channels[0] ** 2 + 4 * 513  # sines
    for inputs, outputs in zip([channels[0], *channels], [*channels, 3], strict=True):
        formula += inputs * outputs * (area if outputs != 3 else 1) + outputs + 513 * inputs
    assert count(synthesis, mapping) == formula + 2 * 513 * 512 == expected
    assert synthesis.latents == 16


@pytest.mark.parametrize(("resolution", "layers"), [(1024, 14), (256, 14), (16, 4)])
def test_signals_are_those_of_the_paper(resolution: int, layers: int) -> None:
    ours = plan(resolution, layers, 2, 2, 2**2.1, 2**0.3, 10)
    for signal, row in zip(ours, signals(resolution, layers), strict=True):
        assert (signal.size, signal.rate) == (row["size"], row["rate"])
        assert signal.cutoff == pytest.approx(row["cutoff"]) and signal.half_width == pytest.approx(row["half_width"])


# --- what moves with the plane ----------------------------------------------------------------------------------------


def moved(generator: StyleGAN3, transform: list[list[float]], w: Tensor) -> Tensor:
    generator.synthesis.waves.transform.copy_(torch.tensor(transform, dtype=torch.float64))
    return generator.synthesise(w)


def signal_to_error(x: Tensor, y: Tensor) -> float:
    """In decibels."""
    return float(10 * torch.log10(x.var() / (x - y).square().mean()))


@pytest.fixture(params=[{}, STYLEGAN3_R], ids=["t", "r"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> StyleGAN3:
    options = {**request.param, "clamp": None, "margin": 20}
    path = write_stylegan3(tmp_path / "w.safetensors", 64, (12, 12, 12, 10, 8, 8), 8, **options)
    return StyleGAN3(path, "w+").double()


def shifted(generator: StyleGAN3) -> tuple[Tensor, Tensor, Tensor]:
    """A part of an image, the same of the image on a plane that has moved, and what would be there had it not."""
    w = generator.sample_latents(2, torch.Generator().manual_seed(0))
    x = moved(generator, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], w)
    y = moved(generator, [[1, 0, 5 / 64], [0, 1, -3 / 64], [0, 0, 1]], w)  # no whole number of samples in early layers
    return x[..., 8:-8, 13:-8], y[..., 11:-5, 8:-13], x[..., 11:-5, 8:-13]


def test_images_move_as_the_plane_does(network: StyleGAN3) -> None:
    here, there, unmoved = shifted(network)
    assert signal_to_error(here, there) > 50 and signal_to_error(here, unmoved) < 10


def test_without_rectifiers_nothing_but_the_filters_is_in_the_way(
    network: StyleGAN3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stylegan3, "SLOPE", 1.0)
    here, there, _ = shifted(network)
    assert signal_to_error(here, there) > 110


def test_images_of_stylegan3_r_turn_as_the_plane_does(network: StyleGAN3) -> None:
    w = network.sample_latents(2, torch.Generator().manual_seed(0))
    x = moved(network, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], w)
    y = moved(network, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], w)
    error = float((torch.rot90(x, 1, (2, 3)) - y).abs().max())
    turns = network.synthesis.layers[0].kernel == 1
    assert error < 1e-12 if turns else error > 0.1  # a quarter of a turn is exact: filters and grid have its symmetry

"""Official pickles become weights that compute the same, without being executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lcg import cli
from lcg.generators.stylegan import StyleGAN2, StyleGAN3
from lcg.generators.stylegan.convert import convert_stylegan_job
from lcg.generators.stylegan.generator import StyleGAN, networks
from lcg.generators.stylegan.isolation import Found
from lcg.generators.stylegan.official import converted
from tests.generators.stylegan.official import Persistent, array, as_official, image2, mapped, pickled, stylegan2
from tests.generators.stylegan.official3 import image3, stylegan3
from tests.generators.stylegan.reading import found_in

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
NETWORKS: dict[str, tuple[Callable[[], Persistent], Callable[..., Any]]] = {
    "skip": (stylegan2, image2),
    "resnet, clamped": (lambda: stylegan2(architecture="resnet", clamp=0.8), image2),
    "orig, no noise": (lambda: stylegan2(architecture="orig", noisy=False), image2),
    "3-t": (stylegan3, image3),
    "3-r, clamped": (lambda: stylegan3(rotates=True, clamp=0.8), image3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_converted_computes_what_the_official_network_does(name: str, tmp_path: Path) -> None:
    make, image = NETWORKS[name]
    official = make()
    kind, architecture, state, _ = converted(found_in(pickled(as_official(official))))
    network = loaded(kind, architecture, state)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3, 5))
    w = network.mapping(torch.from_numpy(z))
    np.testing.assert_allclose(array(w), mapped(official, z), atol=1e-5)
    w_plus = w[:, None] + 0.3 * torch.from_numpy(rng.standard_normal((3, network.synthesis.latents, 7)))
    expected = np.stack([image(official, array(row)) for row in w_plus])
    x = network.synthesis(w_plus)
    assert expected.std() > 0.05
    np.testing.assert_allclose(array(x), expected, atol=2e-5 * np.abs(expected).max())
    if image is image2:
        expected = np.stack([image2(official, array(row), noisy=False) for row in w_plus])
        np.testing.assert_allclose(
            array(network.synthesis(w_plus, False)), expected, atol=1e-5 * np.abs(expected).max()
        )


def loaded(kind: str, architecture: dict[str, Any], state: dict[str, torch.Tensor]) -> Any:
    mapping, synthesis = networks(kind, architecture)
    network = nn.ModuleDict({"mapping": mapping, "synthesis": synthesis})
    network.load_state_dict(state)
    return network.double()


@pytest.mark.parametrize(
    ("make", "generator"),
    [(stylegan2, StyleGAN2), pytest.param(stylegan3, StyleGAN3, marks=pytest.mark.slow)],
)
def test_the_command_converts(
    make: Callable[[], Persistent], generator: type[StyleGAN], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official, out = make(), tmp_path / "weights" / "small.safetensors"
    (tmp_path / "small.pkl").write_bytes(pickled(as_official(official), protocol=3))
    assert cli.main(["convert-stylegan", str(tmp_path / "small.pkl"), str(out)]) == 0
    shown = capsys.readouterr().out
    assert generator.__name__ in shown and "Nothing that small.pkl brings was executed" in shown
    made = generator(str(out), space="w+")
    w = torch.randn(2, *made.latent_shape, generator=torch.Generator().manual_seed(0))
    image = image2 if make is stylegan2 else image3
    expected = np.stack([image(official, array(row)) for row in w]).clip(-1, 1)
    np.testing.assert_allclose(array(made.decode(w)), expected, atol=1e-4)
    assert made.provenance["file"] == "small.pkl" and len(made.provenance["sha256"]) == 64
    assert cli.main(["convert-stylegan", str(tmp_path / "small.pkl"), str(out)]) == cli.USAGE_ERROR
    assert "exists; use another name or --overwrite true" in capsys.readouterr().err


# --- official networks that ours cannot be ----------------------------------------------------------------------------


def without(found: Found, *names: str) -> Found:
    return replace(found, tensors={name: tensor for name, tensor in found.tensors.items() if name not in names})


def with_tensor(found: Found, name: str, tensor: torch.Tensor) -> Found:
    return replace(found, tensors={**found.tensors, name: tensor})


def with_settings(found: Found, module: str, **settings: Any) -> Found:
    about = found.about[module]
    return replace(found, about={**found.about, module: {**about, "settings": {**about["settings"], **settings}}})


ODD: dict[str, tuple[Callable[[Found], Found], str]] = {
    "labels": (lambda f: with_tensor(f, "mapping.embed.weight", torch.ones(1)), "conditioned on labels"),
    "no mapping": (lambda f: without(f, "mapping.w_avg"), "no mapping network"),
    "no synthesis": (lambda f: without(f, "synthesis.b4.const"), "neither StyleGAN2 nor StyleGAN3"),
    "one more": (lambda f: with_tensor(f, "synthesis.new", torch.ones(1)), "that our networks have not: synthesis.new"),
    "one less": (lambda f: without(f, "synthesis.b8.conv0.bias"), "tensor synthesis.b8.conv0.bias is missing"),
    "filter": (
        lambda f: with_tensor(f, "synthesis.b8.resample_filter", torch.ones(4, 4) / 16),
        "synthesis.b8.resample_filter is not 1 3 3 1",
    ),
    "rectifier": (
        lambda f: with_settings(f, "mapping.fc1", activation="relu"),
        "mapping.fc1 has the activation 'relu'",
    ),
    "gain": (lambda f: with_settings(f, "mapping.fc1", weight_gain=None), "mapping.fc1 has no setting weight_gain"),
    "colours": (
        lambda f: with_tensor(f, "synthesis.b4.torgb.weight", torch.ones(4, 6, 1, 1)),
        "images have 4 channels; only RGB",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_official_network_that_ours_cannot_be_is_refused_by_name(name: str) -> None:
    change, message = ODD[name]
    with pytest.raises(ValueError, match=message):
        converted(change(found_in(pickled(as_official(stylegan2())))))


def test_rectifiers_at_another_rate_are_refused() -> None:
    official = stylegan3()
    official["synthesis"].arguments["lrelu_upsampling"] = 4
    with pytest.raises(ValueError, match="rectifiers have 4 times the rate; only 2 is converted"):
        converted(found_in(pickled(as_official(official))))


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "some.pkl"
    path.write_bytes(content)
    return path


# --- the command's options -------------------------------------------------------------------------------------------


def test_options_are_checked_before_the_file_is_read(tmp_path: Path) -> None:
    path, out = str(written(tmp_path, b"")), str(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="no pickle at"):
        convert_stylegan_job(str(tmp_path / "none.pkl"), out)
    with pytest.raises(ValueError, match=r"`out` must be a \.safetensors file"):
        convert_stylegan_job(path, str(tmp_path / "x.pt"))
    with pytest.raises(ValueError, match="`memory` must be > 0 and `seconds` at least 1, got 0 and 600"):
        convert_stylegan_job(path, out, memory=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_cutoff": 3}, "the filter synthesis.layers.0.up is not what its settings say"),
        ({"conv_kernel": 1}, r"cannot be converted: Error\(s\) in loading"),
    ],
)
def test_settings_that_do_not_fit_the_tensors_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = stylegan3()
    official["synthesis"].arguments.update(change)
    found = found_in(pickled(as_official(official)))
    monkeypatch.setattr("lcg.generators.stylegan.convert.read_isolated", lambda *_: found)  # it has tests of its own
    with pytest.raises(ValueError, match=message):
        convert_stylegan_job(str(written(tmp_path, b"")), str(tmp_path / "x.safetensors"))

"""Any network as a generator: by class or function, with weights of its own or from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lcg import cli
from lcg.generators.check import check_generator, table
from lcg.generators.module import ModuleGenerator


class Net(nn.Module):
    """Images in [0, 1] of latents (4, 2), and their inverse up to what a sigmoid loses."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.last = nn.Linear(8, 16 * width)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.last(z.flatten(1))).unflatten(1, (-1, 4, 4))

    def paint(self, z: Tensor) -> Tensor:
        return 2 * self(z) - 1

    def look(self, x: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.lstsq(self.last.weight, (x.clamp(1e-6, 1 - 1e-6).logit()).flatten(1).T).solution
        offset = torch.linalg.lstsq(self.last.weight, self.last.bias[:, None]).solution
        return (solved - offset).T.unflatten(1, (4, 2))

    def pair(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, z


def make_net(width: int) -> nn.Module:
    return Net(width)


def test_a_network_keeps_the_contract() -> None:
    findings = list(check_generator(lambda: ModuleGenerator(Net(), [4, 2], encode="look", black=0)))
    assert not {finding.verdict for finding in findings} & {"wrong", "warning"}, table(findings)


def test_methods_and_range_are_those_that_were_named() -> None:
    z = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    unit, painted = ModuleGenerator(Net(), [4, 2], black=0, encode="look"), ModuleGenerator(Net(), [4, 2], "paint")
    torch.testing.assert_close(unit.decode(z), 2 * Net()(z) - 1)
    torch.testing.assert_close(unit.decode(z), painted.decode(z))
    torch.testing.assert_close(unit.encode(unit.decode(z)), z, rtol=1e-3, atol=1e-3)
    assert unit.image_shape == (3, 4, 4) and unit.identity() != painted.identity()
    with pytest.raises(NotImplementedError, match="ModuleGenerator has no encoder"):
        painted.encode(painted.decode(z))


def test_latents_are_drawn_where_the_prior_is_said_to_be_normal() -> None:
    drawing = ModuleGenerator(Net(), [4, 2], black=0, normal=True)
    z = drawing.sample_latents(10_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cov(z.flatten(1).T), torch.eye(8), rtol=0, atol=0.06)
    with pytest.raises(NotImplementedError, match="ModuleGenerator has no prior of its own"):
        ModuleGenerator(Net(), [4, 2], black=0).sample_latents(3)


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    other = Net()
    nn.init.zeros_(other.last.weight)
    save_file(other.state_dict(), tmp_path / "net.safetensors")
    z = torch.ones(1, 4, 2)
    made = ModuleGenerator(Net(), [4, 2], black=0, weights=str(tmp_path / "net.safetensors"))
    torch.testing.assert_close(made.decode(z), 2 * other(z) - 1)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere; give a state dictionary as safetensors"):
        ModuleGenerator(Net(), [4, 2], weights=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"net\.safetensors is damaged or does not hold the weights of Net"):
        ModuleGenerator(Net(width=6), [4, 2], weights=str(tmp_path / "net.safetensors"))


def test_a_command_makes_the_network_by_class_or_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, arguments in (("Net", {}), ("make_net", {"width": 3})):
        network = {"class_path": f"{__name__}.{path}", "init_args": arguments}
        options = {"network": network, "latent_shape": [4, 2], "black": 0}
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps({"generator": {"class_path": "lcg.generators.module.ModuleGenerator"}}))
        words = [word for name, value in options.items() for word in (f"--generator.{name}", json.dumps(value))]
        assert cli.main(["check-generator", "--config", str(config), *words]) == 0
        assert "ModuleGenerator" in capsys.readouterr().out


def test_what_is_no_generator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`decode` must name a method of Net, got 'draw'"):
        ModuleGenerator(Net(), [4, 2], decode="draw")
    with pytest.raises(ValueError, match=r"Net must decode latents \(2, 5\), but fails \(.*\); check `latent_shape`"):
        ModuleGenerator(Net(), [5])
    with pytest.raises(ValueError, match=r"must decode 2 latents to RGB images \(2, 3, H, W\), got \(2, 6, 4, 4\)"):
        ModuleGenerator(Net(6), [4, 2])
    with pytest.raises(ValueError, match=r"must decode 2 latents to RGB images \(2, 3, H, W\), got tuple"):
        ModuleGenerator(Net(), [4, 2], decode="pair")
    with pytest.raises(ValueError, match=r"must encode 2 images to latents \(2, 4, 2\), got tuple"):
        ModuleGenerator(Net(), [4, 2], encode="pair")
    with pytest.raises(ValueError, match="`black` must be -1 or 0, got 1"):
        ModuleGenerator(Net(), [4, 2], black=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`latent_shape` must be of positive sizes, such as \[128\], got \[0\]"):
        ModuleGenerator(Net(), [0])

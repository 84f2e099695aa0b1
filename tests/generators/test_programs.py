"""Programs as generators: both kinds give what the network gives, keep the contract, and are refused with advice."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from lcg.cli import main
from lcg.generators.base import weights_sha256
from lcg.generators.check import check_generator, table
from lcg.generators.programs import ProgramGenerator

Write = Callable[[nn.Module, tuple[int, ...], Path], str]


class Decoder(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Linear(16, 48)
        random = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.5, generator=random)

    def forward(self, z: Tensor) -> Tensor:
        h = nn.functional.dropout(self.norm(self.first(z)), 0.5, self.training)
        return torch.tanh(self.last(torch.nn.functional.silu(h))).unflatten(1, (3, 4, 4))


class Encoder(nn.Module):
    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        self.register_buffer("basis", torch.eye(48)[:, :outputs].clone())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.basis


class ToUnit(nn.Module):
    """The same images in [0, 1]."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        return (self.decoder(z) + 1) / 2


class Pair(nn.Module):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, z


def export(network: nn.Module, shape: tuple[int, ...], path: Path) -> str:
    program = torch.export.export(network.eval(), (torch.zeros(2, *shape),), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, path)
    return str(path)


def trace(network: nn.Module, shape: tuple[int, ...], path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
        torch.jit.trace(network.eval(), torch.zeros(2, *shape)).save(str(path))
    return str(path)


def script(network: nn.Module, shape: tuple[int, ...], path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network.eval()).save(str(path))
    return str(path)


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
KINDS = pytest.mark.parametrize("write", [export, trace, script])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A decoder and an encoder of each kind."""
    folder = tmp_path_factory.mktemp("programs")
    made = {}
    for write in (export, trace, script):
        made[f"{write.__name__}/decode"] = write(Decoder(), (5,), folder / f"{write.__name__}_decode.pt2")
        made[f"{write.__name__}/encode"] = write(Encoder(), (3, 4, 4), folder / f"{write.__name__}_encode.pt2")
    return made


def generator_of(files: dict[str, str], write: Write) -> ProgramGenerator:
    name = write.__name__
    return ProgramGenerator(files[f"{name}/decode"], files[f"{name}/encode"], latent_shape=[5], trust=True)


@KINDS
def test_a_program_gives_what_its_network_gives(files: dict[str, str], write: Write) -> None:
    generator, network = generator_of(files, write), Decoder().eval()
    z = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    x, expected = generator.decode(z), network(z)
    torch.testing.assert_close(x, expected)
    weight = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((weight * x).sum(), z)
    torch.testing.assert_close(gradient, torch.autograd.grad((weight * expected).sum(), z)[0])
    torch.testing.assert_close(generator.encode(x), Encoder()(x))
    assert generator.latent_shape == (5,) and generator.image_shape == (3, 4, 4)


@KINDS
def test_a_program_keeps_the_contract(files: dict[str, str], write: Write) -> None:
    findings = list(check_generator(lambda: generator_of(files, write)))
    verdicts = {finding.name: finding.verdict for finding in findings}
    assert "wrong" not in verdicts.values(), table(findings)
    assert verdicts["decode: slope"] == verdicts["identity"] == verdicts["encode: determinism"] == "ok"
    assert verdicts["encode: round trip"] == "warning"  # this encoder is no inverse, and that is said
    assert verdicts["sample_latents"] == "not applicable"


@KINDS
def test_train_and_eval_leave_a_program_alone(files: dict[str, str], write: Write) -> None:
    generator, z = generator_of(files, write), torch.ones(4, 5)
    before = generator.decode(z)
    assert torch.equal(generator.train().decode(z), before) and generator.training
    assert torch.equal(generator.eval().decode(z), before) and not generator.training


def test_kinds_may_be_mixed_and_the_exported_one_says_its_latent_shape(files: dict[str, str]) -> None:
    generator = ProgramGenerator(files["export/decode"], files["script/encode"], trust=True)
    assert generator.latent_shape == (5,) and generator.kinds == {"decode": "exported program", "encode": "TorchScript"}


def test_without_an_encoder_images_cannot_become_latents(files: dict[str, str]) -> None:
    with pytest.raises(NotImplementedError, match="ProgramGenerator has no encoder"):
        ProgramGenerator(files["export/decode"], trust=True).encode(torch.zeros(1, 3, 4, 4))


def test_pixels_from_zero_to_one_are_converted_both_ways(files: dict[str, str], tmp_path: Path) -> None:
    unit = trace(ToUnit(Decoder()), (5,), tmp_path / "unit.pt")
    generator = ProgramGenerator(unit, files["script/encode"], [5], black=0, trust=True)
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    x = Decoder().eval()(z)
    torch.testing.assert_close(generator.decode(z), x)
    torch.testing.assert_close(generator.encode(x), Encoder()((x + 1) / 2))
    assert generator.identity()["black"] == 0


def test_the_command_line_takes_what_is_black(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check-generator", "--generator", "lcg.generators.programs.ProgramGenerator"]
    words += ["--generator.decode", trace(ToUnit(Decoder()), (5,), tmp_path / "unit.pt")]
    words += ["--generator.latent_shape", "[5]", "--generator.trust", "true"]
    assert main(words) == 1
    assert "return 2 * x - 1 from `decode`" in capsys.readouterr().out
    assert main([*words, "--generator.black", "0"]) == 0


def test_identity_tells_files_apart_that_share_their_weights(files: dict[str, str], tmp_path: Path) -> None:
    first, again = (ProgramGenerator(files["script/decode"], latent_shape=[5], trust=True) for _ in range(2))
    assert first.identity() == again.identity() == json.loads(json.dumps(first.identity()))
    assert len(first.identity()["programs"]["decode"]["sha256"]) == 64
    other = ProgramGenerator(script(ToUnit(Decoder()), (5,), tmp_path / "unit.pt"), latent_shape=[5], trust=True)
    assert weights_sha256(other) == other.identity()["weights_sha256"] != weights_sha256(first)


def test_nothing_is_loaded_without_trust(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`trust` must be true.*can execute code.*--generator\.trust true"):
        ProgramGenerator(str(tmp_path / "never_opened.pt2"))


def test_files_that_hold_no_program_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    def refused(path: Path) -> ProgramGenerator:
        return ProgramGenerator(str(path), latent_shape=[5], trust=True)

    with pytest.raises(FileNotFoundError, match=r"no program at .*nowhere\.pt2; give a file that"):
        refused(tmp_path / "nowhere.pt2")
    with pytest.raises(IsADirectoryError, match=r"is a folder; give the file"):
        refused(tmp_path)
    content = Path(files["export/decode"]).read_bytes()
    (tmp_path / "half.pt2").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"half\.pt2 is no program or is damaged .*copy or export it again"):
        refused(tmp_path / "half.pt2")
    weight = Decoder().last.weight.detach().numpy().tobytes()
    at = content.index(weight)
    (tmp_path / "bit.pt2").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ValueError, match=r"bit\.pt2 is damaged: .*weight.* is not what was written"):
        refused(tmp_path / "bit.pt2")
    torch.save(Decoder().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"neither TorchScript nor an exported program .*torch\.export\.save"):
        refused(tmp_path / "weights.pt")


def test_a_program_of_another_version_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    with zipfile.ZipFile(files["export/decode"]) as old, zipfile.ZipFile(tmp_path / "new.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"{}" if name.endswith("model.json") else old.read(name))
    with pytest.raises(ValueError, match=r"holds exported program that this PyTorch .* cannot load"):
        ProgramGenerator(str(tmp_path / "new.pt2"), trust=True)


def test_a_fixed_batch_is_refused_with_advice(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Decoder().eval(), (torch.zeros(3, 5),)), tmp_path / "fixed.pt2")
    with pytest.raises(ValueError, match=r"fixed size, export it again with .*torch\.export\.Dim\('batch'\)"):
        ProgramGenerator(str(tmp_path / "fixed.pt2"), trust=True)


def test_shapes_that_do_not_fit_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    decode = files["script/decode"]
    with pytest.raises(ValueError, match=r"does not say the shape of its latents; give `latent_shape`"):
        ProgramGenerator(decode, trust=True)
    with pytest.raises(ValueError, match=r"must decode a batch of shape \(1, 6\).*check `latent_shape`"):
        ProgramGenerator(decode, latent_shape=[6], trust=True)
    with pytest.raises(ValueError, match=r"`image_shape` is \[3, 8, 8\], but .* shape \[3, 4, 4\]; leave it out"):
        ProgramGenerator(decode, latent_shape=[5], image_shape=[3, 8, 8], trust=True)
    with pytest.raises(ValueError, match=r"`black` must be -1 or 0, got 255; wrap programs"):
        ProgramGenerator(decode, latent_shape=[5], black=255, trust=True)  # type: ignore[arg-type]
    encoder = script(Encoder(4), (3, 4, 4), tmp_path / "encode.pt")
    with pytest.raises(ValueError, match=r"must return latents \(1, 5\) for 1 images, got \(1, 4\)"):
        ProgramGenerator(decode, encoder, latent_shape=[5], trust=True)
    with pytest.raises(ValueError, match=r"must return RGB images \(1, 3, H, W\) for 1 latents, got \(1, 5\)"):
        ProgramGenerator(script(nn.Identity(), (5,), tmp_path / "same.pt"), latent_shape=[5], trust=True)
    with pytest.raises(ValueError, match=r"must return one tensor, got tuple"):
        ProgramGenerator(script(Pair(), (5,), tmp_path / "pair.pt"), latent_shape=[5], trust=True)


def test_a_program_exported_in_training_mode_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = torch.export.export(Decoder().train(), (torch.zeros(2, 5),), dynamic_shapes=({0: Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "training.pt2")
    words = ["--generator.decode", str(tmp_path / "training.pt2"), "--generator.trust", "true"]
    assert main(["check-generator", "--generator", "lcg.generators.programs.ProgramGenerator", *words]) == 1
    assert "wrong           decode: determinism" in capsys.readouterr().out


@KINDS
def test_the_command_checks_programs(files: dict[str, str], write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check-generator", "--generator", "lcg.generators.programs.ProgramGenerator"]
    words += ["--generator.decode", files[f"{write.__name__}/decode"], "--generator.latent_shape", "[5]"]
    assert main([*words, "--generator.trust", "true"]) == 0
    assert "0 wrong" in capsys.readouterr().out
    assert main(words) == 1
    assert "`trust` must be true" in capsys.readouterr().out


def test_latents_are_drawn_where_the_prior_is_said_to_be_normal(files: dict[str, str]) -> None:
    drawing = ProgramGenerator(files["export/decode"], trust=True, normal=True)
    z = drawing.sample_latents(10_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cov(z.T), torch.eye(5), rtol=0, atol=0.06)
    assert torch.equal(z[:7], drawing.sample_latents(10_000, torch.Generator().manual_seed(0))[:7])
    with pytest.raises(NotImplementedError, match="ProgramGenerator has no prior of its own"):
        ProgramGenerator(files["export/decode"], trust=True).sample_latents(3)

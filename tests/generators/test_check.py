"""The check of generators: each fault is found, by the check that is meant for it, with a sentence that mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lcg.cli import main
from lcg.generators.base import Generator
from lcg.generators.check import Finding, check_generator, table


class Good(Generator):
    """A linear map with an exact inverse and a prior; the faults below each change one thing."""

    latent_shape, image_shape = (5,), (3, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.register_buffer("basis", 0.5 * torch.linalg.qr(torch.randn(48, 5, generator=random))[0])

    def decode(self, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.basis.T).unflatten(1, (3, 4, 4))

    def encode(self, x: Tensor) -> Tensor:
        return 4 * torch.atanh(x.flatten(1).clamp(-0.999999, 0.999999)) @ self.basis

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 5, generator=generator)


class WrongShape(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z).permute(0, 2, 3, 1)


class ListShape(Good):
    def __init__(self) -> None:
        super().__init__()
        self.image_shape = [3, 4, 4]  # type: ignore[assignment]


class NoLatents(Good):
    latent_shape = (0,)


class Bytes(Good):
    def decode(self, z: Tensor) -> Tensor:
        return ((super().decode(z) + 1) * 127.5).to(torch.uint8)


class Half(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z).half()


class Double(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z).double()


class ZeroToOne(Good):
    def decode(self, z: Tensor) -> Tensor:
        return (super().decode(z) + 1) / 2


class ZeroTo255(Good):
    def decode(self, z: Tensor) -> Tensor:
        return (super().decode(z) + 1) * 127.5


class TooWide(Good):
    def decode(self, z: Tensor) -> Tensor:
        return 3 * super().decode(z)


class NanForSome(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z) * torch.sqrt(6 - z[:, 0])[:, None, None, None] / 6  # only far out


class NanAtZero(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z / z.norm(dim=1, keepdim=True))


class Noisy(Good):
    def decode(self, z: Tensor) -> Tensor:
        return 0.9 * super().decode(z) + 0.05 * torch.rand(len(z), 3, 4, 4)


class Reseeding(Good):
    def decode(self, z: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().decode(z)


class HiddenBatchNorm(Good):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.BatchNorm1d(5, affine=False)]  # a list: `eval` does not reach it

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(self.hidden[0](z))


class HiddenBatchNorm2d(Good):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.BatchNorm2d(3, affine=False)]

    def decode(self, z: Tensor) -> Tensor:
        return self.hidden[0](super().decode(z)).tanh()


class HeldInTraining(Good):
    def train(self, mode: bool = True) -> HeldInTraining:
        return super().train(True)


class KeepsGradients(Good):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def requires_grad_(self, requires_grad: bool = True) -> KeepsGradients:
        return self


class Detached(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z.detach())


class PartlyDetached(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(torch.cat([z[:, :2], z[:, 2:].detach()], 1))


class FaintAndPartlyDetached(PartlyDetached):
    def decode(self, z: Tensor) -> Tensor:
        return 1e-2 * super().decode(z)


class Stepwise(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z).mul(127.5).round() / 127.5


class RootAtZero(Good):
    def decode(self, z: Tensor) -> Tensor:
        x = super().decode(z)
        return x + 0 * (x - x.detach()).square().sum().sqrt()


class EncodesWrongShape(Good):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x)[:, :4]


class EncodesDouble(Good):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x).double()


class EncodesNan(Good):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) / 0


class EncodesSamples(Good):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) + 0.1 * torch.randn(len(x), 5)


class EncodesAnotherScale(Good):
    def encode(self, x: Tensor) -> Tensor:
        return -super().encode(x)


class IgnoresGenerator(Good):
    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 5)


class SamplesTheSame(Good):
    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 5, generator=torch.Generator().manual_seed(0))


class SamplesDouble(Good):
    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return super().sample_latents(n, generator).double()


class Raises(Good):
    def decode(self, z: Tensor) -> Tensor:
        raise RuntimeError("the cat sat on the keyboard")


class ReturnsTuple(Good):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z), None  # type: ignore[return-value]


class Unseeded(Good):
    def __init__(self) -> None:
        super().__init__()
        self.basis += 0.01 * torch.randn(48, 5)


class IdentityNoJson(Good):
    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "path": Path("/")}


class IdentityTuples(Good):
    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "shape": (1, 2)}


class IdentityWithoutHash(Good):
    def identity(self) -> dict[str, Any]:
        return {"name": "mine"}


class WritesWeights(Good):
    def decode(self, z: Tensor) -> Tensor:
        x = super().decode(z)
        self.basis *= 1 + 1e-6
        return x


class Unregistered(Good):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.basis_in_list = [torch.eye(48)[:, :5]]

    def decode(self, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.basis_in_list[0].T + 0.1).unflatten(1, (3, 4, 4))

    def encode(self, x: Tensor) -> Tensor:
        return Generator.encode(self, x)


class BrokenConstructor(Good):
    def __init__(self) -> None:
        raise FileNotFoundError("no weights at weights.pt")


class NoGenerator(nn.Linear):
    def __init__(self) -> None:
        super().__init__(5, 3)


def findings_of(generator: Callable[[], Generator] | Generator) -> dict[str, Finding]:
    return {finding.name: finding for finding in check_generator(generator)}


def test_a_good_generator_passes_every_check() -> None:
    findings = findings_of(Good)
    assert {finding.verdict for finding in findings.values()} == {"ok"}, table(list(findings.values()))
    assert len(findings) == 18 and not any(finding.advice for finding in findings.values())


@pytest.mark.parametrize(
    ("fault", "name", "verdict", "figure", "advice"),
    [
        (WrongShape, "decode: shape", "wrong", "(16, 4, 4, 3), not (16, 3, 4, 4)", "channels first"),
        (ListShape, "image shape", "wrong", "[3, 4, 4]", "a tuple of integers"),
        (NoLatents, "latent shape", "wrong", "(0,)", "tuple of positive integers without the batch"),
        (ReturnsTuple, "decode: shape", "wrong", "decode returns tuple", "Return a torch.Tensor (16, 3, 4, 4)"),
        (Bytes, "decode: type and device", "wrong", "torch.uint8", "x / 127.5 - 1"),
        (Half, "decode: type and device", "wrong", "torch.float16", "with .float()"),
        (Double, "decode: type and device", "wrong", "torch.float64", "with .float()"),
        (ZeroToOne, "decode: range", "wrong", "[0.", "return 2 * x - 1 from `decode`"),
        (ZeroTo255, "decode: range", "wrong", "[", "return x / 127.5 - 1 from `decode`"),
        (TooWide, "decode: range", "wrong", "[-", "Return x.clamp(-1, 1)"),
        (NanForSome, "decode: finite", "wrong", "0 of 16 usual latents", "guidance visits latents far out"),
        (NanAtZero, "decode: finite", "wrong", "0 of 16 usual latents, 1 of 18", "divides by zero"),
        (Noisy, "decode: determinism", "wrong", "between two calls", "fix its noise in a buffer"),
        (Reseeding, "decode: determinism", "warning", "random state has changed", "torch.Generator of its own"),
        (
            HiddenBatchNorm,
            "decode: shape",
            "wrong",
            "16 latents, but not one: Expected more",
            "take a batch of any size",
        ),
        (HiddenBatchNorm2d, "decode: independent rows", "wrong", "alone and in a batch", "register the network"),
        (HeldInTraining, "frozen", "wrong", "itself is in training mode", "pass the mode on"),
        (KeepsGradients, "frozen", "wrong", "bias wants a gradient", "Do not override"),
        (Unregistered, "frozen", "warning", "no weights are registered", "self.network = ..."),
        (Detached, "decode: gradient", "wrong", "does not depend on z", "Remove torch.no_grad"),
        (PartlyDetached, "decode: slope", "wrong", "relative error", ".detach()"),
        (FaintAndPartlyDetached, "decode: slope", "wrong", "relative error", ".detach()"),
        (Stepwise, "decode: gradient", "wrong", "zero for some latent", "Let `decode` be smooth"),
        (RootAtZero, "decode: gradient", "wrong", "NaN or infinite", "Avoid roots and norms at zero"),
        (EncodesWrongShape, "encode", "wrong", "(16, 4), not (16, 5)", "Let `encode` return latents"),
        (EncodesDouble, "encode", "wrong", "torch.float64, cpu", "Return float32 latents"),
        (EncodesNan, "encode", "wrong", "NaN or infinite", "overflows in `encode`"),
        (EncodesSamples, "encode: determinism", "wrong", "standard deviations", "mean of its posterior"),
        (EncodesAnotherScale, "encode: round trip", "warning", "root mean square error", "one scale of latents"),
        (IgnoresGenerator, "sample_latents", "wrong", "not decided by its", "generator=generator"),
        (SamplesTheSame, "sample_latents", "wrong", "not decided by its", "generator=generator"),
        (SamplesDouble, "sample_latents", "wrong", "torch.float64", "Return finite float32 latents"),
        (Raises, "decode: shape", "wrong", "RuntimeError: the cat sat", "Mend decode in "),
        (Unseeded, "identity", "wrong", "between two constructions", "Load all weights in the constructor"),
        (IdentityNoJson, "identity", "wrong", "not JSON serializable", "Return JSON primitives"),
        (IdentityTuples, "identity", "wrong", "changes on its way through JSON", "lists for tuples"),
        (IdentityWithoutHash, "identity", "wrong", "weights_sha256 is not that", "**super().identity()"),
        (WritesWeights, "weights", "wrong", "have changed", "Write to no parameter or buffer"),
        (BrokenConstructor, "construction", "wrong", "FileNotFoundError: no weights", "Mend __init__ in "),
        (NoGenerator, "construction", "wrong", "NoGenerator", "Derive the class from"),
    ],
)
def test_each_fault_is_found_with_a_sentence_that_mends_it(
    fault: Callable[[], Generator], name: str, verdict: str, figure: str, advice: str
) -> None:
    findings = findings_of(fault)
    found = findings[name]
    assert found.verdict == verdict, table(list(findings.values()))
    assert figure in found.figure and advice in found.advice and found.advice.endswith(".")


SINGLE = (
    WrongShape,
    Bytes,
    ZeroToOne,
    NanForSome,
    Noisy,
    HiddenBatchNorm,
    Detached,
    IgnoresGenerator,
    Raises,
    Unseeded,
)


@pytest.mark.parametrize("fault", SINGLE)
def test_one_fault_is_one_finding(fault: Callable[[], Generator]) -> None:
    wrong = [finding.name for finding in findings_of(fault).values() if finding.verdict == "wrong"]
    assert len(wrong) == 1, wrong


def test_an_exception_is_named_by_its_place_in_the_users_code() -> None:
    advice = findings_of(Raises)["decode: shape"].advice
    assert __file__ in advice and f"line {Raises.decode.__code__.co_firstlineno + 1}" in advice


def test_what_is_optional_is_not_missed() -> None:
    class Bare(Good):
        encode, sample_latents = Generator.encode, Generator.sample_latents

    findings = findings_of(Bare)
    assert findings["encode"] == Finding("encode", "not applicable", "it has no encoder")
    assert findings["encode: round trip"].verdict == "not applicable"
    assert findings["sample_latents"].figure == "it has no prior of its own"
    assert {finding.verdict for finding in findings.values()} == {"ok", "not applicable"}


def test_a_generator_itself_can_be_checked() -> None:
    generator = Good()
    assert findings_of(generator)["identity"].verdict == "ok" and not generator.training


def test_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="`rows` must be at least 2, got 1; rows are compared"):
        list(check_generator(Good, rows=1))


# --- the command


ADAPTER = """
import torch
from lcg.generators.base import Generator


class Mine(Generator):
    latent_shape, image_shape = (2,), (3, 2, 2)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.register_buffer("basis", torch.eye(12)[:, :2])

    def decode(self, z):
        return torch.tanh(z @ self.basis.T + 0.1).unflatten(1, (3, 2, 2)) * self.gain

    def encode(self, x):
        return torch.atanh(x.flatten(1).clamp(-.999999, .999999))[:, :2] - 0.1


def mine(gain: float = 1.0) -> Generator:
    return Mine(gain)
"""


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "adapter_for_check.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(tmp_path)
    return "adapter_for_check.Mine"


def test_command_prints_a_table_and_ends_with_zero(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-generator", "--generator", adapter]) == 0
    said = capsys.readouterr().out
    assert "ok              decode: slope" in said and "18 checks, 0 wrong, 0 warnings" in said


def test_command_ends_with_one_where_something_is_wrong(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-generator", "--generator", adapter, "--generator.gain", "2"]) == 1
    said = capsys.readouterr().out
    assert "-> Return x.clamp(-1, 1)" in said and "1 wrong" in said and said.rstrip().endswith("decode: range")


def test_command_takes_a_function(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-generator", "--generator", adapter.replace("Mine", "mine")]) == 0
    assert "Mine" in capsys.readouterr().out


def test_command_takes_the_arguments_of_a_function_from_yaml(
    adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "generator.yaml"
    path.write_text(f"generator:\n  class_path: {adapter.replace('Mine', 'mine')}\n  init_args:\n    gain: 2\n")
    assert main(["check-generator", "--config", str(path)]) == 1
    assert "wrong           decode: range" in capsys.readouterr().out


def test_command_encodes_images_of_a_folder(adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("a.png", (255, 0, 0)), ("b.jpg", (0, 255, 0)), ("notes.txt", None)):
        if colour is None:
            (folder / name).write_text("no image")
        else:
            Image.new("RGB", (7, 5), colour).save(folder / name)
    assert main(["check-generator", "--generator", adapter, "--images", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "(2, 2), standard deviation" in said
    assert "warning         encode: round trip" in said  # two numbers cannot hold a colour


def test_command_refuses_what_cannot_be_checked(
    adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    for expected in ("must be a folder of images, got", "holds none; give PNG or JPEG files"):
        assert main(["check-generator", "--generator", adapter, "--images", str(folder)]) == 2
        assert expected in capsys.readouterr().err
        folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(b"no image")
    assert main(["check-generator", "--generator", adapter, "--images", str(folder)]) == 2
    assert "a.png is not an image that can be read" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_command_refuses_a_device_that_is_not_there(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-generator", "--generator", adapter, "--device", "cuda"]) == 2
    assert "no CUDA device was found; use --device cpu" in capsys.readouterr().err

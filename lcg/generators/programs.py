"""A generator from files that hold programs: TorchScript, or what `torch.export` made.

A program carries its code and its weights, so it needs nothing but PyTorch, and no line of the package that made it:

    x = decode(z),      z = encode(x),      each from a file of its own.

Loading executes code that the file brings: `torch.export.load` unpickles, and TorchScript has not been proven safe. So
nothing is loaded without `trust=True`. Of strangers take weights in safetensors, with an architecture from a package.

Everything happens in the constructor, so that whatever is wrong is found there: the files are read and hashed, which
kind each is told from its contents, loaded, and run with one latent and with three. A program's mode was fixed when it
was made; `train` and `eval` do not reach it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lcg.generators.base import Generator, normal_latents

Kind = Literal["TorchScript", "exported program"]
ROWS = (1, 3)
"""With so many latents a program is tried; no program with a batch of fixed size passes both."""


class ProgramGenerator(Generator):
    """Decodes, and encodes where it can, by programs in files.

    The SHA-256 of the files are buffers, so `weights_sha256` and `identity` tell apart programs that share weights.

    Args:
        decode: file of the decoder, made by `torch.export.save` or `torch.jit.save`.
        encode: file of the encoder, of either kind; None where there is none.
        latent_shape: of one latent without the batch, such as [512]; None where the decoder's program says it, as an
            exported one does.
        image_shape: (3, H, W); None for what the decoder returns.
        black: what a black pixel is to the programs, -1 or 0; white is 1. Images of lcg are in [-1, 1].
        trust: whether these files may execute code on this machine; without it they are not opened.
        normal: whether the generator's own prior is N(0, I), as that of most GANs; without it there is none.

    Raises:
        ValueError: not trusted; a file is damaged or holds no program; a program does not take the latents or images
            of these shapes, one or three at once, or returns others.
        OSError: a file is missing or cannot be read.
    """

    def __init__(
        self,
        decode: str,
        encode: str | None = None,
        latent_shape: list[int] | None = None,
        image_shape: list[int] | None = None,
        black: Literal[-1, 0] = -1,
        trust: bool = False,
        normal: bool = False,
    ) -> None:
        super().__init__()
        if not trust:
            raise ValueError(
                f"`trust` must be true to load {decode}: loading an exported program or TorchScript can execute code "
                "that the file brings; check where it comes from, then give --generator.trust true, or use weights in "
                "safetensors with an architecture from a package"
            )
        if black not in (-1, 0):
            raise ValueError(
                f"`black` must be -1 or 0, got {black!r}; wrap programs of another range before the export"
            )
        self.black, self.normal = black, normal
        self.files, self.kinds = {"decode": decode}, dict[str, Kind]()
        if encode is not None:
            self.files["encode"] = encode
        for role, file in self.files.items():
            content = read_program(file)
            kind, program = load_program(content, file)
            self.kinds[role] = kind
            self.add_module(f"{role}_program", program)
            digest = bytearray(hashlib.sha256(content).digest())
            self.register_buffer(f"{role}_sha256", torch.frombuffer(digest, dtype=torch.uint8).clone())
        shape = exported_shape(self.get_submodule("decode_program")) if latent_shape is None else tuple(latent_shape)
        if shape is None or not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(
                f"{decode} does not say the shape of its latents; give `latent_shape`, such as "
                f"--generator.latent_shape [512], got {latent_shape}"
            )
        self.latent_shape = shape
        self._try(image_shape)
        self.requires_grad_(False).eval()

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.get_submodule("decode_program")(z)
        return 2 * x - 1 if self.black == 0 else x

    def encode(self, x: Tensor) -> Tensor:
        if "encode" not in self.files:
            return super().encode(x)
        z: Tensor = self.get_submodule("encode_program")((x + 1) / 2 if self.black == 0 else x)
        return z

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return normal_latents(self, n, generator) if self.normal else super().sample_latents(n, generator)

    def train(self, mode: bool = True) -> ProgramGenerator:
        """Nothing but the flag: exported programs refuse to be asked, and TorchScript stays as it was loaded."""
        self.training = mode
        return self

    def identity(self) -> dict[str, Any]:
        """As the contract says, with the kind and the SHA-256 of each file, and what is black to them."""
        programs = {
            role: {"kind": kind, "sha256": bytes(self.get_buffer(f"{role}_sha256").tolist()).hex()}
            for role, kind in self.kinds.items()
        }
        return {**super().identity(), "programs": programs, "black": self.black}

    @torch.no_grad()
    def _try(self, image_shape: list[int] | None) -> None:
        """Sets `image_shape` to what the decoder returns; raises ValueError where a program does not do its work."""
        for rows in ROWS:
            x = self._run("decode", torch.zeros(rows, *self.latent_shape))
            if x.ndim != 4 or x.shape[:2] != (rows, 3):
                raise ValueError(
                    f"the decoder {self.files['decode']} must return RGB images ({rows}, 3, H, W) for {rows} latents, "
                    f"got {tuple(x.shape)}; wrap the network so that it does, and export it again"
                )
            channels, height, width = x.shape[1:]
            if image_shape is not None and tuple(image_shape) != (channels, height, width):
                raise ValueError(
                    f"`image_shape` is {list(image_shape)}, but {self.files['decode']} returns images of shape "
                    f"{[channels, height, width]}; leave it out"
                )
            self.image_shape = (channels, height, width)
            if "encode" in self.files:
                z = self._run("encode", x)
                if z.shape != (rows, *self.latent_shape):
                    raise ValueError(
                        f"the encoder {self.files['encode']} must return latents {(rows, *self.latent_shape)} for "
                        f"{rows} images, got {tuple(z.shape)}; give the encoder that belongs to this decoder"
                    )

    def _run(self, role: str, batch: Tensor) -> Tensor:
        try:
            output = self.get_submodule(f"{role}_program")(batch)
        except (AssertionError, RuntimeError, TypeError) as error:  # what the guards of either kind raise
            advice = (
                "if its batch has a fixed size, export it again with dynamic_shapes=({0: torch.export.Dim('batch')},)"
                if self.kinds[role] == "exported program"
                else "check `latent_shape`, and that nothing in the traced code fixes the size of the batch"
            )
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise ValueError(
                f"{self.files[role]} must {role} a batch of shape {tuple(batch.shape)} in float32, but fails "
                f"({reason[0]}); {advice}"
            ) from error
        if not isinstance(output, Tensor):
            raise ValueError(
                f"{self.files[role]} must return one tensor, got {type(output).__name__}; wrap the network so that it "
                "returns nothing else, and export it again"
            )
        return output


def read_program(file: str) -> bytes:
    """The bytes of a file. Raises FileNotFoundError, IsADirectoryError or another OSError."""
    if Path(file).is_dir():
        raise IsADirectoryError(f"{file} is a folder; give the file that `torch.export.save` or `torch.jit.save` wrote")
    if not Path(file).is_file():
        raise FileNotFoundError(f"no program at {file}; give a file that `torch.export.save` or `torch.jit.save` wrote")
    return Path(file).read_bytes()


def kind_of(content: bytes, file: str) -> Kind:
    """What a file holds, from the names in its archive; nothing of it is executed.

    Raises:
        ValueError: it is damaged, or holds no program.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file} is no program or is damaged ({error}); copy or export it again") from error
    if damaged is not None:
        raise ValueError(f"{file} is damaged: {damaged} in it is not what was written; copy or export it again")
    if any(name.endswith("/constants.pkl") for name in names):
        return "TorchScript"
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "exported program"
    raise ValueError(
        f"{file} holds neither TorchScript nor an exported program (a dictionary of weights, perhaps); load it into "
        "its network, then write that with torch.export.save(torch.export.export(...), FILE)"
    )


def load_program(content: bytes, file: str) -> tuple[Kind, nn.Module]:
    """A program that was trusted. Raises ValueError where PyTorch cannot load it."""
    kind = kind_of(content, file)
    try:
        if kind == "TorchScript":
            scripted: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")
            return kind, scripted.eval()
        program: nn.Module = torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # whatever an unpickler meets
        raise ValueError(
            f"{file} holds {kind} that this PyTorch {torch.__version__} cannot load ({error}); export it again with it"
        ) from error
    for module in program.modules():
        module.training = False  # the flag alone: what the program does was fixed when it was exported
    return kind, program


def exported_shape(program: nn.Module) -> tuple[int, ...] | None:
    """Shape of the input of an exported program without the batch; None where it does not say."""
    if not isinstance(program, torch.fx.GraphModule):
        return None
    inputs = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        return None
    shape = tuple(inputs[0].shape[1:])
    return shape if shape and all(type(size) is int for size in shape) else None

"""Autoencoders of the package diffusers as generators, from a folder or a hub's name, by safetensors only:

    z = E(x),   (C, h, w)        x = clamp(D(z), -1, 1).

What kind it is stands in its config.json. Latents are those that the network's encoder gives and its decoder takes;
factors by which diffusion models scale or shift them (`scaling_factor`, `shift_factor`) play no part here, as the
latent store standardises. Apart from that,

    AutoencoderKL      z is the mode of the posterior, so that equal images have equal latents
    AutoencoderTiny    z is near the scaled latents of the large model that it imitates; D bends it into (-3, 3) first
    VQModel            z is not quantised yet; D takes the nearest codes, and hands gradients straight through, as if it
                       did not (van den Oord et al. 2017, arXiv:1711.00937)
    AutoencoderRAE     z are the patch features of a frozen encoder such as DINOv2, normalised by the statistics that
                       come with the weights, (768, 16, 16) for the usual ones (Zheng et al. 2025, arXiv:2510.11690);
                       the noise of its training is left out
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcg.generators.base import Generator

BLACK = {"AutoencoderKL": -1, "AutoencoderTiny": -1, "VQModel": -1, "AutoencoderRAE": 0}
"""The kinds that are known, and what a black pixel is to them; white is 1."""
TRIED = 64
"""Side of the image on which a convolutional network shows its latent; height and width of others are as this."""


class DiffusersAutoencoder(Generator):
    """Encodes and decodes by an autoencoder of diffusers, frozen.

    Attributes:
        kind: name of the network's class.
        straight_through: whether the gradient of `decode` is that of a decoder which does not quantise.

    Args:
        path: folder with config.json and weights in safetensors, or a hub's name, such as madebyollin/taesd.
        subfolder: of these, where the autoencoder lies; `vae` in a folder of a whole pipeline.
        revision: of the hub's repository: a branch, tag or commit.
        local_files_only: take from the hub what has been downloaded before, and nothing else.
        image_size: side of the images; None for what config.json says. Those of AutoencoderRAE have one size only.

    Raises:
        ImportError: diffusers is not installed, or does not know this kind.
        OSError: the folder is missing, holds no safetensors, or the hub cannot be reached.
        ValueError: it is no such autoencoder, is damaged, is not of RGB images, or does not make images of this size.
    """

    network: Any

    def __init__(
        self,
        path: str,
        subfolder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        where = {"subfolder": subfolder, "revision": revision, "local_files_only": local_files_only}
        if Path(path).is_dir():
            check_folder(Path(path, subfolder or ""))
        elif Path(path).is_absolute() or path.startswith(".") or path.count("/") != 1:
            raise FileNotFoundError(
                f"no folder at {path}, and it is no hub's name such as madebyollin/taesd; correct it"
            )
        config = read_config(path, where)
        self.kind = str(config.get("_class_name"))
        if self.kind not in BLACK:
            known = ", ".join(BLACK)
            raise ValueError(f"{path} holds {self.kind}, expected one of {known}; write an adapter of your own for it")
        self.network = load_network(self.kind, path, where)
        self.black, self.straight_through = BLACK[self.kind], self.kind == "VQModel"
        size = self._size(image_size, config)
        self.image_shape = (3, size, size)
        self.requires_grad_(False).eval()
        self.latent_shape = self._latent_shape(path, size)

    def encode(self, x: Tensor) -> Tensor:
        """Latents of images in [-1, 1]. Raises ValueError for images of another shape."""
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(f"`x` must be images of shape {self.image_shape}, got {tuple(x.shape[1:])}; resize them")
        return self._encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images in [-1, 1] of latents. Raises ValueError for latents of another shape."""
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(f"`z` must be latents of shape {self.latent_shape}, got {tuple(z.shape[1:])}")
        return self._decode(z).clamp(-1, 1)

    def train(self, mode: bool = True) -> DiffusersAutoencoder:
        """Nothing but the flag: AutoencoderRAE would add noise to its latents."""
        super().train(False)
        self.training = mode
        return self

    def identity(self) -> dict[str, Any]:
        """As the contract says, with the kind of the network."""
        return {**super().identity(), "kind": self.kind}

    def _encode(self, x: Tensor) -> Tensor:
        encoded = self.network.encode((x + 1) / 2 if self.black == 0 else x, return_dict=False)[0]
        z: Tensor = encoded if isinstance(encoded, Tensor) else encoded.mode()
        return z

    def _decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.network.decode(z, return_dict=False)[0]
        return 2 * x - 1 if self.black == 0 else x

    def _size(self, image_size: int | None, config: dict[str, Any]) -> int:
        """Side of the images. Raises ValueError where it is not known, or cannot be."""
        own = getattr(self.network, "decoder_image_size", None)
        if own is not None and image_size not in (None, own):
            raise ValueError(f"`image_size` of this {self.kind} must be {own}, got {image_size}; leave it out")
        size = own or image_size or config.get("sample_size")
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"`image_size` must be given, as the config.json of this {self.kind} does not say one number, got "
                f"{size}; the side of the images that it was trained on is best"
            )
        return size

    @torch.no_grad()
    def _latent_shape(self, path: str, size: int) -> tuple[int, ...]:
        """Shape of a latent, tried on a small image where the network is convolutional.

        Raises:
            ValueError: images have another number of channels than 3, or a size that no latent decodes to.
        """
        side = size if self.kind == "AutoencoderRAE" else TRIED
        try:
            z = self._encode(torch.zeros(1, 3, side, side))
            x = self._decode(z)
        except RuntimeError as error:
            raise ValueError(f"{path} must be an autoencoder of RGB images, but fails on one: {error}") from error
        if tuple(x.shape) != (1, 3, side, side):
            raise ValueError(
                f"{path} must decode the latent of a (3, {side}, {side}) image to that shape, got {tuple(x.shape[1:])}"
            )
        if side == size:
            return tuple(z.shape[1:])
        factor = side // z.shape[2]
        if size % factor:
            raise ValueError(f"`image_size` must be a multiple of {factor} for this {self.kind}, got {size}")
        return z.shape[1], size // factor, size // factor


def check_folder(folder: Path) -> None:
    """Raises FileNotFoundError or ValueError unless a local folder holds a config and weights in safetensors."""
    if not (folder / "config.json").is_file():
        inside = (
            "; it is that of a pipeline: give --generator.subfolder vae"
            if (folder / "model_index.json").is_file()
            else ""
        )
        raise FileNotFoundError(f"no config.json in {folder}, as `save_pretrained` of diffusers writes it{inside}")
    if not any(folder.glob("*.safetensors*")):
        pickled = sorted(path.name for pattern in ("*.bin", "*.ckpt", "*.pt") for path in folder.glob(pattern))
        refused = f", and {pickled[0]} is not loaded, since a pickle can execute code" if pickled else ""
        raise FileNotFoundError(
            f"no weights in safetensors in {folder}{refused}; where you trust them, load and save them again with "
            "save_pretrained(..., safe_serialization=True)"
        )


def read_config(path: str, where: dict[str, Any]) -> dict[str, Any]:
    """What config.json says. Raises ImportError, OSError or ValueError."""
    try:
        config: dict[str, Any] = diffusers_class("AutoencoderKL").load_config(path, **where)
    except ImportError:
        raise
    except (OSError, ValueError) as error:
        raise OSError(f"cannot read the config.json of {path} ({first_line(error)}); give another path") from error
    return config


def load_network(kind: str, path: str, where: dict[str, Any]) -> nn.Module:
    """The network with its weights, in float32. Raises ImportError, OSError or ValueError."""
    try:
        loaded: nn.Module = diffusers_class(kind).from_pretrained(
            path, use_safetensors=True, torch_dtype=torch.float32, low_cpu_mem_usage=False, **where
        )
    except ImportError:
        raise
    except OSError as error:
        raise OSError(f"cannot load {kind} from {path} ({first_line(error)}); copy or download it again") from error
    except Exception as error:  # SafetensorError, and whatever a config of wrong numbers leads to
        raise ValueError(
            f"{path} does not hold the weights of the {kind} that its config.json tells of ({first_line(error)}); copy "
            "it again"
        ) from error
    return loaded


def diffusers_class(kind: str) -> Any:
    """A class of diffusers. Raises ImportError where it is not installed, or too old for it."""
    try:
        found = getattr(importlib.import_module("diffusers"), kind, None)
    except ImportError as error:
        raise ImportError(f"{kind} needs the package diffusers: pip install 'lcg[diffusers]'") from error
    if found is None:
        raise ImportError(f"this diffusers does not know {kind}: pip install -U 'lcg[diffusers]'")
    return found


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Images on their way to Inception: arrays or folders, looked through for what would spoil figures in silence."""

from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Images = Tensor | NDArray[np.uint8] | str | Path
"""uint8 images (N, H, W, 3), or a folder of them."""

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = ("RGB", "L", "P")
"""Pillow's modes of 8 bits without transparency, which have one meaning as RGB."""

SHOWN = 3
"""How many offending files a message names."""

READERS = 8
"""Threads that decode and resize: Pillow lets others run meanwhile."""


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, in the order that torch-fidelity sees them; subfolders are not looked into."""
    return sorted((file.resolve() for file in folder.iterdir() if file.suffix.lower() in SUFFIXES), key=str)


def image_batches(images: Images, resize: int | None, size: int) -> Iterator[Tensor]:
    """uint8 (B, 3, H, W), B <= size, as torch-fidelity has them of the same images.

    Args:
        images: as `checked_images` has found them good.
        resize: bring the shorter side to so many pixels and crop the centre; None to leave them as they are.
        size: of a batch, >= 1.
    """
    if isinstance(images, str | Path):
        pictures = _pictures_of(Path(images), resize)
    elif resize is None:
        for batch in torch.as_tensor(images).detach().split(size):
            yield batch.permute(0, 3, 1, 2).contiguous()
        return
    else:
        pictures = _ResizedArray(torch.as_tensor(images).detach().cpu(), resize)
    with ThreadPool(READERS) as pool:
        for start in range(0, len(pictures), size):
            yield torch.stack(pool.map(pictures.__getitem__, range(start, min(start + size, len(pictures)))))


class _ResizedArray:
    """Images (N, H, W, 3) as torch-fidelity wants them, (3, H, W) one by one, resized as it does those of a folder."""

    def __init__(self, images: Tensor, resize: int) -> None:
        self.images, self.resize = images, resize

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        from torchvision.transforms import functional

        picture = functional.resize(Image.fromarray(self.images[index].numpy()), self.resize)
        return torch.from_numpy(np.array(functional.center_crop(picture, self.resize))).permute(2, 0, 1)


def _pictures_of(folder: Path, resize: int | None) -> Any:
    from torch_fidelity.utils import prepare_input_from_id

    name = str(folder.resolve())  # never one of the names for which torch-fidelity downloads a data set
    return prepare_input_from_id(1, input1=name, samples_resize_and_crop=resize or 0, verbose=False)


def checked_images(images: Images, name: str, resize: int | None) -> int:
    """How many there are.

    Args:
        images: (N, H, W, 3) uint8 in 0..255, or a folder of .png, .jpg or .jpeg.
        name: what messages call them.
        resize: whether images of several sizes are brought to one.

    Raises:
        FileNotFoundError: no such folder.
        TypeError: images that are not uint8.
        ValueError: images of another shape or range, or with NaN; files of different sizes or modes, or none.
    """
    if isinstance(images, str | Path):
        return _checked_folder(Path(images), name, resize)
    if not isinstance(images, Tensor | np.ndarray):
        raise TypeError(f"`{name}` must be uint8 images (N, H, W, 3) or a folder, got {type(images).__name__}")
    x = torch.as_tensor(images)
    if x.is_floating_point() and (wrong := int(x.isnan().sum())):
        raise ValueError(f"`{name}` must be uint8 images without NaN, got {wrong} of {x.numel()} values that are NaN")
    if x.dtype != torch.uint8:
        seen = f" with values in [{float(x.min()):.4g}, {float(x.max()):.4g}]" if x.numel() else ""
        raise TypeError(
            f"`{name}` must be uint8 in 0..255, got {x.dtype}{seen}; from [-1, 1]: "
            "((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)"
        )
    if x.ndim != 4 or x.shape[3] != 3 or 0 in x.shape[1:]:
        advice = "; permute(0, 2, 3, 1)" if x.ndim == 4 and x.shape[1] == 3 else ""
        raise ValueError(f"`{name}` must be (N, H, W, 3), got shape {tuple(x.shape)}{advice}")
    if x.numel() and int(x.max()) <= 1:
        raise ValueError(
            f"`{name}` must use the range 0..255, got no value above 1; multiply images in [0, 1] by 255 before "
            "the cast"
        )
    return len(x)


def _checked_folder(folder: Path, name: str, resize: int | None) -> int:
    if not folder.is_dir():
        raise FileNotFoundError(f"`{name}` must be a folder of images, {folder} is none")
    files = image_files(folder)
    if not files:
        raise ValueError(f"`{name}` must hold {', '.join(SUFFIXES)} files, {folder} has none; subfolders are not read")
    sizes: dict[tuple[int, int], str] = {}
    modes: list[str] = []
    for file in files:
        with Image.open(file) as image:  # reads the header only
            sizes.setdefault(image.size, file.name)
            if image.mode not in MODES or "transparency" in image.info:
                modes.append(f"{file.name} ({image.mode})")
    if modes:
        raise ValueError(
            f"`{name}` must hold 8-bit images without transparency, {', '.join(MODES)}, got {first_of(modes)}; "
            "convert them, since transparency would be dropped and 16 bits cut off"
        )
    if resize is None and len(sizes) > 1:
        seen = [f"{width}x{height} ({file})" for (width, height), file in sizes.items()]
        raise ValueError(f"`{name}` must hold images of one size, got {first_of(seen)}; pass `resize`")
    return len(files)


def first_of(items: Sequence[str]) -> str:
    """Some items for a message, and how many more there are."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more

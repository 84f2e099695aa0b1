"""`lcg check-generator`: whether an adapter keeps the contract of a generator, before anything is built on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lcg.generators.base import Generator, pixels_to_x
from lcg.generators.check import check_generator, table

MOST_IMAGES = 16


def check_generator_job(
    generator: Callable[[], Generator],
    images: str | None = None,
    rows: int = 16,
    seed: int = 0,
    device: str = "cpu",
) -> int:
    """Tries a generator on a few latents: lcg check-generator --generator my_package.MyGenerator.

    Prints what was found and, where something is wrong, how to mend it, and ends with exit code 1 if something is.
    Warnings alone end with 0.

    Args:
        generator: class_path of a class of generators, or of a function that returns one; the arguments of a function,
            if there are any, go into a YAML file, as init_args.
        images: folder of images to encode, of which the first 16 are cut to the generator's size; without it the
            generator encodes images of its own.
        rows: how many latents are decoded at once, at least 2; lower it where memory is short.
        seed: of the random numbers.
        device: where, such as cpu or cuda.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"`device` is {device!r}, but no CUDA device was found; use --device cpu")
    files = [] if images is None else image_files(images)
    findings = list(check_generator(generator, partial(read, files) if files else None, rows, seed, device))
    print(table(findings))
    wrong = [finding.name for finding in findings if finding.verdict == "wrong"]
    warned = sum(finding.verdict == "warning" for finding in findings)
    print(f"\n{len(findings)} checks, {len(wrong)} wrong, {warned} warnings{': ' if wrong else ''}{', '.join(wrong)}")
    return 1 if wrong else 0


def image_files(folder: str) -> list[Path]:
    """The first images in a folder, by name. Raises NotADirectoryError, or ValueError where there is none."""
    if not Path(folder).is_dir():
        raise NotADirectoryError(f"`images` must be a folder of images, got {folder}")
    known = Image.registered_extensions()
    files = [path for path in sorted(Path(folder).iterdir()) if path.suffix.lower() in known][:MOST_IMAGES]
    if not files:
        raise ValueError(f"`images` must be a folder of images, but {folder} holds none; give PNG or JPEG files")
    for path in files:
        try:
            with Image.open(path) as image:
                image.verify()
        except (OSError, SyntaxError, UnidentifiedImageError) as error:  # SyntaxError: a broken PNG
            raise ValueError(f"{path} is not an image that can be read ({error}); remove or convert it") from error
    return files


def read(files: list[Path], image_shape: tuple[int, int, int]) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1], resized and cropped about their centre."""
    height, width = image_shape[1:]
    pixels = [ImageOps.fit(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), (width, height)) for path in files]
    return pixels_to_x(torch.from_numpy(np.stack([np.asarray(image) for image in pixels])))

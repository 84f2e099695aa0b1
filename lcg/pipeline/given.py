"""Images as people have them, as the pixels that a generator knows: arrays, pictures, files, results, lists of these.

Nothing is resized, cropped or rescaled in silence: an image that is not what the generator makes is refused, with the
line that makes it so. How an image should be framed is a choice (`lcg encode` and `lcg.data.reading` have several).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lcg.results.edited import Edits
from lcg.results.samples import Sample, Samples

Images: TypeAlias = Union[
    NDArray[np.uint8], Image.Image, str, PathLike[str], Sample, Samples, Edits, "Sequence[Images]"
]
"""One image or several; see `as_pixels`."""


def as_pixels(images: Images, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Images as one array.

    Args:
        images: uint8 arrays (H, W, C) or (N, H, W, C), PIL images, paths of image files, samples, edits (their last
            images), or a list of these.
        image_shape: (C, H, W) of the generator's images.

    Returns:
        (N, H, W, C) uint8, N >= 1.

    Raises:
        TypeError: something else; an array that is not uint8.
        ValueError: an array of another shape, a picture of another size, a file that is no image; or there is none.
        FileNotFoundError: there is no such file.

    Example:
        >>> image = Image.new("RGB", (64, 64), "white")
        >>> as_pixels([image, np.asarray(image)], (3, 64, 64)).shape
        (2, 64, 64, 3)
        >>> as_pixels(np.asarray(image) / 255, (3, 64, 64))
        Traceback (most recent call last):
            ...
        TypeError: the images must be uint8 in 0..255, got float64; of values in [0, 1]: (images * 255)...
    """
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` must hold at least one image, got an empty list; give an image, or a path")
        return np.concatenate([as_pixels(image, image_shape) for image in images])
    if isinstance(images, (Samples, Edits)):
        return _of_array(images.images, image_shape)
    if isinstance(images, Sample):
        return _of_array(images.image, image_shape)
    if isinstance(images, (str, PathLike)):
        return _of_file(Path(images), image_shape)
    if isinstance(images, Image.Image):
        return _of_picture(images, "the image", image_shape)
    if isinstance(images, np.ndarray):
        return _of_array(images, image_shape)
    raise TypeError(f"`images` must be uint8 arrays, PIL images, paths or samples, got {_kind(images)}")


def _of_array(array: NDArray[Any], image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    channels, height, width = image_shape
    if array.dtype != np.uint8:
        raise TypeError(f"the images must be uint8 in 0..255, got {array.dtype}; {_to_uint8(array)}")
    one = array[None] if array.ndim == 3 else array
    if one.ndim == 4 and not len(one):
        raise ValueError("`images` must hold at least one image, got an array of none; give an image, or a path")
    if one.ndim != 4 or one.shape[1:] != (height, width, channels):
        shape = one.shape[1:] if one.ndim == 4 else array.shape
        raise ValueError(
            f"the images must be {height}x{width} with {channels} channels, got {shape}; "
            f"{_to_shape(tuple(shape), image_shape)}"
        )
    return one


def _of_picture(image: Image.Image, name: str, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    _, height, width = image_shape
    upright = ImageOps.exif_transpose(image)
    if upright.size != (width, height):
        got = f"{upright.width}x{upright.height}"
        crop = "" if upright.width * height == upright.height * width else "crop it to the same proportions, then "
        raise ValueError(
            f"{name} must be {width}x{height} pixels for this generator, got {got}; "
            f"{crop}image.resize(({width}, {height}), Image.Resampling.LANCZOS)"
        )
    return np.asarray(upright.convert("RGB"))[None]


def _of_file(path: Path, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    if path.is_dir():
        files = f"sorted(Path({str(path)!r}).glob('*.png'))"
        raise IsADirectoryError(f"{path} is a folder; give a list of its files, such as {files}")
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}; give the path of an image file")
    try:
        with Image.open(path) as image:
            image.load()
            return _of_picture(image, str(path), image_shape)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: what PIL calls a broken PNG
        raise ValueError(f"{path} is not an image that can be read ({error}); convert it to PNG") from error


def _to_uint8(array: NDArray[Any]) -> str:
    """The line that makes pixels of other numbers."""
    if not np.issubdtype(array.dtype, np.floating):
        return "use images.astype(np.uint8)"
    if array.size and float(array.min()) < 0:
        return "of values in [-1, 1]: ((images + 1) * 127.5).round().clip(0, 255).astype(np.uint8)"
    if array.size and float(array.max()) > 1:
        return "use images.round().clip(0, 255).astype(np.uint8)"
    return "of values in [0, 1]: (images * 255).round().astype(np.uint8)"


def _to_shape(shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> str:
    """The line that makes images of another shape fit."""
    channels, height, width = image_shape
    if shape == image_shape:
        return "channels come last: np.moveaxis(images, -3, -1)"
    if shape == (height, width):
        return f"give grey images {channels} channels: np.stack([image] * {channels}, -1)"
    if shape[:2] == (height, width) and shape[2:] == (4,):
        return "leave out the transparency: images[..., :3]"
    return f"resize them: np.asarray(Image.fromarray(image).resize(({width}, {height}), Image.Resampling.LANCZOS))"


def _kind(images: object) -> str:
    """What was given, and for a tensor what to do."""
    kind = type(images)
    if kind.__module__.partition(".")[0] == "torch":
        return (
            "a tensor; of x (N, C, H, W) in [-1, 1] use lcg.generators.base.x_to_pixels(x).cpu().numpy(), and of "
            "latents `edit_latents` or `session`"
        )
    return kind.__name__

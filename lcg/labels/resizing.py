"""Images brought to the size that a network looks at, whatever size they come in."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from lcg.labels.base import Images

Resampling = Literal["bilinear", "bicubic", "box"]


def resized(images: Images, height: int, width: int, resampling: Resampling = "bilinear") -> Images:
    """The images (N, height, width, 3), each squeezed or stretched as a whole; those of this size as they are.

    Smaller ones are averaged over what a pixel covers, so that nothing flickers through (Pillow's resampling).
    """
    if images.shape[1:3] == (height, width):
        return images
    method = Image.Resampling[resampling.upper()]
    out = np.empty((len(images), height, width, 3), np.uint8)
    for target, image in zip(out, images, strict=True):
        target[:] = np.asarray(Image.fromarray(image).resize((width, height), method))
    return out


def cropped(images: Images, share: float) -> Images:
    """The middle of each image, `share` of its height and width, in (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"`crop` must be in (0, 1], got {share}; 1 keeps all of the image")
    height, width = images.shape[1:3]
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return images[:, top : top + rows, left : left + columns]

"""Faces in the frame of a face generator: a square around eyes and mouth, turned and scaled, by landmarks.

Let e_0, e_1 be the eyes on the left and the right of the image, m the middle of the corners of the mouth, and

    e = (e_0 + e_1) / 2,      u = e_1 - e_0  (along the eyes),      v = m - e  (down the face).

The square has its centre at c and half a side along the vector a:

    c = e + v / 10,      a = (u - R v) / |u - R v| * max(2 |u|, 1.8 |v|),      R v = (-v_y, v_x),

so both u and the perpendicular of v say how the head is tilted, and the larger of two lengths says how large it is.
This is the frame of CelebA-HQ (Karras et al. 2018, arXiv:1710.10196, appendix C) and of FFHQ (arXiv:1812.04948), in
which StyleGAN and its successors were trained.

An output pixel is the mean of k x k samples of the image by cubic interpolation, k = ceil(side / size), so that nothing
aliases. Beyond its edges the image is mirrored; FFHQ blurs these mirrored parts as well, here they stay sharp.

Landmarks are five points in the columns of CelebA's own lists, `lefteye_x lefteye_y righteye_x ... rightmouth_y` (left
and right in the image), or 68 in the order of iBUG 300-W and dlib as `x_0 ... x_67 y_0 ... y_67`. Units are pixels of
the upright image; whole numbers are the centres of pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lcg.data.lists import open_any
from lcg.data.tables import Block, Table

FIVE = tuple(f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy")
SIXTY_EIGHT = tuple(f"{axis}_{i}" for i in range(68) for axis in "xy")
LARGEST = 8
"""Times the longer side of an image that a square may measure; beyond, landmarks are of another image."""


def square_of(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The squares around faces.

    Args:
        landmarks: (..., P, 2), x and y of P = 5 or 68 points, in pixels.

    Returns:
        (..., 4): c_x, c_y, a_x, a_y; NaN where a landmark is, or where eyes and mouth are one point.

    Raises:
        ValueError: there are other than 5 or 68 points.
    """
    points = landmarks.shape[-2]
    if points == 5:
        left, right, mouth = landmarks[..., 0, :], landmarks[..., 1, :], landmarks[..., 3:5, :].mean(-2)
    elif points == 68:
        left, right = landmarks[..., 36:42, :].mean(-2), landmarks[..., 42:48, :].mean(-2)
        mouth = landmarks[..., [48, 54], :].mean(-2)
    else:
        raise ValueError(f"`landmarks` must be 5 or 68 points, got {points}")
    eyes, along, down = (left + right) / 2, right - left, mouth - (left + right) / 2
    axis = along + np.stack([down[..., 1], -down[..., 0]], -1)
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    half = np.maximum(2 * np.linalg.norm(along, axis=-1), 1.8 * np.linalg.norm(down, axis=-1))[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate([eyes + 0.1 * down, axis / length * half], -1)


def cut(image: Image.Image, square: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """The pixels (size, size, 3) of a square of an RGB image.

    Args:
        image: RGB.
        square: (4,), see `square_of`.
        size: of the result, in pixels.

    Raises:
        ValueError: the square lies outside the image, or is far larger than it.
    """
    centre, across = square[:2] + 0.5, square[2:]  # Pillow counts from the corners of pixels
    down = np.array([-across[1], across[0]])
    reach = np.abs(across) + np.abs(down)
    low, high = np.floor(centre - reach).astype(int) - 3, np.ceil(centre + reach).astype(int) + 3
    limits = np.array(image.size)
    side = 2 * float(np.linalg.norm(across))
    if side > LARGEST * max(image.size) or (low >= limits).any() or (high <= 0).any():
        raise ValueError(
            f"its landmarks ask for a square of {side:.0f} pixels at ({centre[0]:.0f}, {centre[1]:.0f}), the image is "
            f"{image.height} x {image.width} (height x width)"
        )
    first, before, after = np.maximum(low, 0), np.maximum(-low, 0), np.maximum(high - limits, 0)
    part = np.asarray(image.crop((*first.tolist(), *np.minimum(high, limits).tolist())))
    pads = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    if any(map(any, pads)):
        part = np.pad(part, pads, mode="symmetric")
    k = max(1, int(np.ceil(side / size - 1e-6)))
    step = np.stack([across, down], 1) * 2 / (size * k)
    start = centre - (first - before) - across - down
    rows = (*step[0], start[0], *step[1], start[1])
    sampled = Image.fromarray(part).transform(
        (size * k, size * k), Image.Transform.AFFINE, tuple(map(float, rows)), Image.Resampling.BICUBIC
    )
    return np.asarray(sampled.reduce(k) if k > 1 else sampled)


def read_squares(path: str | os.PathLike[str], files: Sequence[str], root: Path) -> NDArray[np.float64]:
    """The squares (N, 4) of files, NaN for a file without landmarks.

    Args:
        path: a table with a column `file` and the landmarks' columns (CSV, Parquet or CelebA's list format).
        files: names as in the table.
        root: folder of the files, for messages.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: it lacks columns, or a cell is no number, or it knows none of the files.
    """
    table = open_any(Path(path))
    names = next((names for names in (FIVE, SIXTY_EIGHT) if {"file", *names} <= set(table.names)), None)
    if names is None:
        raise ValueError(
            f"{table.path}: landmarks need the columns `file` and {FIVE[0]}, {FIVE[1]}, ..., {FIVE[-1]}, or x_0, y_0, "
            f"..., y_67; got {', '.join(table.names[:12])}"
        )
    places = {name: i for i, name in enumerate(files)}
    squares = np.full((len(files), 4), np.nan)
    for block in table.blocks({"file", *names}):
        _fill(squares, places, block, names, table)
    if np.isnan(squares).all():
        raise ValueError(f"{table.path} has landmarks of no image below {root}, such as {files[0]}; name files alike")
    return squares


def _fill(
    squares: NDArray[np.float64], places: Mapping[str, int], block: Block, names: Sequence[str], table: Table
) -> None:
    """Puts the squares of a block of rows into their places."""
    rows = [i for i, name in enumerate(block.columns["file"]) if name in places]
    points = np.empty((len(rows), len(names)))
    for j, name in enumerate(names):
        cells = block.columns[name]
        for k, i in enumerate(rows):
            try:
                points[k, j] = float(cells[i] or "nan")
            except ValueError as error:
                raise ValueError(
                    f"{table.where(block.lines[i])}: {name!r} must be a number of pixels, got {cells[i]!r}"
                ) from error
    squares[[places[block.columns["file"][i]] for i in rows]] = square_of(points.reshape(len(rows), len(names) // 2, 2))

"""What a user brings: latents of a GAN with 100 dimensions in an .npz, and a table of labels in a .csv.

    python experiments/14_own_generator/data.py

The attributes are properties of the pixels, so that truth can be measured on any image, by nobody's opinion:

    light   mean brightness above .32
    warm    red minus blue above .10, in the mean
    busy    neighbouring pixels differ by more than .025, in the mean
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lcg.generators.base import x_to_pixels
from lcg.generators.faces import FaceDCGAN

COUNT = 20_000
NAMES = ("light", "warm", "busy")
OUT = Path("runs/own")


def measured(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Brightness, warmth and contrast (N, 3) of images (N, H, W, 3)."""
    x = images / 255
    grey = x.mean(-1)
    contrast = (np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2))) / 2
    return np.stack([grey.mean((1, 2)), (x[..., 0] - x[..., 2]).mean((1, 2)), contrast], axis=1)


THRESHOLDS = np.array([0.32, 0.10, 0.025])


def labels(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether images (N, H, W, 3) are light, warm and busy, (N, 3)."""
    return measured(images) > THRESHOLDS


def main() -> None:
    """Writes latents.npz and labels.csv."""
    gan = FaceDCGAN()
    z = gan.sample_latents(COUNT, torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = np.concatenate([x_to_pixels(gan.decode(part)).numpy() for part in z.split(500)])
    OUT.mkdir(parents=True, exist_ok=True)
    np.savez(OUT / "latents.npz", z=z.numpy())
    with open(OUT / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(NAMES)
        rows.writerows(labels(images).astype(int).tolist())
    print(dict(zip(NAMES, labels(images).mean(0).round(3), strict=True)), np.median(measured(images), 0).round(4))


if __name__ == "__main__":
    main()

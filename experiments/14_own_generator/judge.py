"""How many of the images that `lcg generate` drew are what was asked for, measured on their pixels.

python experiments/14_own_generator/judge.py runs/own/samples
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from data import NAMES, labels
from PIL import Image


def main(folder: str) -> None:
    """Prints the shares of images that are light, warm and not busy, and of those that are all three."""
    files = sorted(Path(folder, "images").glob("*.png"))
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    right = labels(images) == np.array([True, True, False])
    shares = {name: float(share) for name, share in zip(NAMES, right.mean(0), strict=True)}
    joint = right.all(1).mean()
    error = np.sqrt(joint * (1 - joint) / len(right))
    print(f"{len(right)} images: {shares}; all three: {joint:.3f} (standard error {error:.3f})")


if __name__ == "__main__":
    main(*sys.argv[1:])

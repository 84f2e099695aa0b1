"""Latent Classifier Guidance: compositional generation and editing in the latent space of any frozen generator.

A diffusion prior over a generator's latents is steered by the gradients of classifiers of noised latents, to generate
images that satisfy a logical formula over attributes and to edit a given image while everything else stays:

    s(z_t) = s_theta(z_t, t) + sum_i w_i grad_{z_t} log p_phi(y_i | z_t, t)

Reference: Shi et al., "Exploring Compositional Visual Generation with Latent Classifier Guidance", CVPRW 2023
(arXiv:2304.12536).

Importing this package imports nothing heavy; `lcg.load` brings in torch when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lcg.torchvision_operators import arm

if TYPE_CHECKING:
    from lcg.pipeline import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

arm()  # before anything that may import torchvision, such as Lightning


def __getattr__(name: str) -> Any:
    """`lcg.load` is `lcg.pipeline.load`, imported on first use (PEP 562)."""
    if name == "load":
        from lcg.pipeline import load

        return load
    raise AttributeError(f"module 'lcg' has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Latent Classifier Guidance: compositional generation and editing in the latent space of any frozen generator.

A diffusion prior over a generator's latents is steered by the gradients of classifiers of noised latents, to generate
images that satisfy a logical formula over attributes and to edit a given image while everything else stays:

    s(z_t, t) = s_theta(z_t, t) + sum_i w_i grad_{z_t} log p_phi(y_i | z_t, t)

Reference: Shi et al., "Exploring Compositional Visual Generation with Latent Classifier Guidance", CVPRW 2023
(arXiv:2304.12536).

Importing this package imports nothing heavy; `lcg.load` and whatever else is named here bring in torch when they are
first used.

    >>> import lcg
    >>> pipeline = lcg.load("avatars")
    >>> samples = pipeline.generate("glasses & ~beard", n=2)
    >>> edits = pipeline.edit(samples, "+smile")
    >>> edits.images.shape
    (2, 64, 64, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lcg.torchvision_operators import arm

if TYPE_CHECKING:
    from lcg.data.store import LatentStore
    from lcg.editing import EditSession
    from lcg.generators.base import Generator
    from lcg.guidance import Formula, parse
    from lcg.pipeline import Pipeline, load
    from lcg.results.beliefs import Beliefs
    from lcg.results.edited import Edits
    from lcg.results.samples import Sample, Samples
    from lcg.schema import Attribute, Schema
    from lcg.settings import Editing, Guidance, Inverting, Sampling

__version__ = "0.1.0"
__all__ = [
    "Attribute",
    "Beliefs",
    "EditSession",
    "Editing",
    "Edits",
    "Formula",
    "Generator",
    "Guidance",
    "Inverting",
    "LatentStore",
    "Pipeline",
    "Sample",
    "Samples",
    "Sampling",
    "Schema",
    "__version__",
    "load",
    "parse",
]

_HOME = {
    "lcg.results.beliefs": ("Beliefs",),
    "lcg.data.store": ("LatentStore",),
    "lcg.results.edited": ("Edits",),
    "lcg.editing": ("EditSession",),
    "lcg.generators.base": ("Generator",),
    "lcg.guidance": ("Formula", "parse"),
    "lcg.pipeline": ("Pipeline", "load"),
    "lcg.results.samples": ("Sample", "Samples"),
    "lcg.schema": ("Attribute", "Schema"),
    "lcg.settings": ("Editing", "Guidance", "Inverting", "Sampling"),
}
"""Where each name of the package lives; it is imported when it is first asked for (PEP 562)."""

arm()  # before anything that may import torchvision, such as Lightning


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(module), name)
    if name.startswith("__"):  # what Python itself asks modules for, and modules need not have
        raise AttributeError(f"module 'lcg' has no attribute {name!r}")
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise AttributeError(f"module 'lcg' has no attribute {name!r}{hint} it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

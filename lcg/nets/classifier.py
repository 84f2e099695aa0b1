"""The time-conditioned classifier: attributes of z_0 from the noised latent z_t.

Trained with cross-entropy on z_t at t ~ U(0, 1), its optimum is the exact noisy posterior

    p_phi(y | z_t, t) = E[p(y | z_0) | z_t],

whose gradient is what Bayes' rule adds to the prior's score (Dhariwal & Nichol 2021, arXiv:2105.05233, section 4). All
attributes share one trunk; each has a head (see `lcg.nets.heads`).
"""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lcg.nets.blocks import SkipPerceptron
from lcg.nets.heads import HeadOutputs, split_outputs
from lcg.schema import Schema


class TimeConditionedClassifier(nn.Module):
    """All attributes of a schema from (z_t, t).

    Args:
        latent_shape: shape of one standardised latent.
        schema: one head per attribute.
        width: hidden width.
        depth: residual blocks.
        dropout: in training.
    """

    def __init__(
        self, latent_shape: tuple[int, ...], schema: Schema, width: int = 256, depth: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "latent_shape": list(latent_shape),
            "schema": schema.to_dict(),
            "width": width,
            "depth": depth,
            "dropout": dropout,
        }
        self.latent_shape, self.schema = tuple(latent_shape), schema
        outputs = sum(attribute.outputs for attribute in schema)
        self.net = SkipPerceptron(math.prod(latent_shape), outputs, width, depth, dropout=dropout)
        nn.init.zeros_(self.net.output.weight)
        nn.init.zeros_(self.net.output.bias)

    def forward(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> HeadOutputs:
        """Raw head outputs by attribute. Raises ValueError when the latents have another shape than the network."""
        if tuple(z_t.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the classifier was trained on latents of shape {self.latent_shape}, got {tuple(z_t.shape[1:])}; "
                "use the classifier that was fitted on this store"
            )
        return split_outputs(self.schema, self.net(z_t.flatten(1), t))

"""The judge's feature maps, for `lcg.metrics.perceptual`: a network that ships with the package."""

from __future__ import annotations

from copy import deepcopy

from jaxtyping import Float
from torch import Tensor, nn

from lcg.metrics.judge import Judge


class JudgeMaps(nn.Module):
    """What each convolutional block of a judge makes of images; a frozen copy that is always in eval mode.

    Args:
        judge: whose blocks are copied.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = deepcopy(judge).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> JudgeMaps:
        """Stays in eval mode, also within a module that trains: there the maps of one image depend on the others."""
        return super().train(False)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """Maps of images in [-1, 1], the finest first: (B, C_l, H / 2^l, W / 2^l) for l = 1, 2, 3, 4.

        Raises:
            ValueError: images that are neither of the judge's shape (C, H, W) nor larger by a whole factor.
        """
        x = self.judge.shrunk(x)
        maps = []
        for layer in self.judge.trunk:
            if isinstance(layer, nn.Flatten):
                break
            x = layer(x)
            maps.append(x)
        return maps

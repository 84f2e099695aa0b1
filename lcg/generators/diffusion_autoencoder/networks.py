"""The two networks of a diffusion autoencoder: the semantic encoder, and the U-Net that removes noise, told z_sem.

Both see an image cut into patches of p x p pixels, each a vector of channels (p = 1 in the paper): a fourth of the
resolution makes them sixteen times as cheap. Two more things are for small aligned images and absent from the paper,
whose z_sem says what there is and never where: the encoder may keep the positions of its last features instead of
averaging over them, and the U-Net may be shown a map that a perceptron makes of z_sem, beside the noised image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcg.generators.diffusion_autoencoder.blocks import Attention, ResidualBlock, Stage, group_norm, time_features


@dataclass(frozen=True)
class Architecture:
    """Sizes of a diffusion autoencoder; by default those of the avatars' one.

    Args:
        image_size: height and width of the images.
        latent_dim: dimension of z_sem.
        patch: pixels along the side of a patch.
        channels: of the first features.
        multipliers: times these, at each resolution of the U-Net, the first being image_size / patch.
        encoder_channels: of the encoder's first features.
        encoder_multipliers: times these, at each resolution of the encoder.
        blocks: residual blocks at each resolution.
        attention: resolutions at which features attend to each other; in the middle they always do.
        embed: dimension of the embedded time.
        dropout: of the blocks, in training.
        average: whether the encoder averages over positions, as the paper's does.
        map_channels: of the map of z_sem that the U-Net is shown; 0 for none, as in the paper.

    Raises:
        ValueError: the image cannot be cut into patches and halved so often.
    """

    image_size: int = 64
    latent_dim: int = 64
    patch: int = 4
    channels: int = 48
    multipliers: list[int] = field(default_factory=lambda: [1, 2])
    encoder_channels: int = 32
    encoder_multipliers: list[int] = field(default_factory=lambda: [1, 2, 2])
    blocks: int = 1
    attention: list[int] = field(default_factory=list)
    embed: int = 128
    dropout: float = 0.0
    average: bool = False
    map_channels: int = 12

    def __post_init__(self) -> None:
        for multipliers in (self.multipliers, self.encoder_multipliers):
            smallest = self.patch * 2 ** (len(multipliers) - 1)
            if not multipliers or self.image_size % smallest:
                raise ValueError(
                    f"`image_size` must be a multiple of {smallest}, the patch doubled for each multiplier but the "
                    f"first, got {self.image_size}; use fewer multipliers, or another `patch`"
                )

    @property
    def side(self) -> int:
        """Patches along the side of an image."""
        return self.image_size // self.patch

    @property
    def patch_channels(self) -> int:
        """Numbers in a patch."""
        return 3 * self.patch**2


def descending(
    inputs: int, channels: int, multipliers: Sequence[int], a: Architecture, conditional: bool
) -> tuple[nn.ModuleList, list[int]]:
    """The stages from the image down to the lowest resolution, and how many channels each gives."""
    embed, latent = (a.embed, a.latent_dim) if conditional else (0, 0)
    width, side = multipliers[0] * channels, a.side
    stages, widths = [Stage([nn.Conv2d(inputs, width, 3, padding=1)])], [width]
    for level, multiplier in enumerate(multipliers):
        for _ in range(a.blocks):
            layers: list[nn.Module] = [ResidualBlock(width, multiplier * channels, embed, latent, a.dropout)]
            width = multiplier * channels
            if side in a.attention:
                layers.append(Attention(width))
            stages.append(Stage(layers))
            widths.append(width)
        if level + 1 < len(multipliers):
            stages.append(Stage([ResidualBlock(width, width, embed, latent, a.dropout, "down")]))
            widths.append(width)
            side //= 2
    return nn.ModuleList(stages), widths


def middle(width: int, a: Architecture, conditional: bool) -> Stage:
    """A block, attention, a block."""
    sizes = (a.embed, a.latent_dim, a.dropout) if conditional else ()
    return Stage([ResidualBlock(width, width, *sizes), Attention(width), ResidualBlock(width, width, *sizes)])


class SemanticEncoder(nn.Module):
    """z_sem (B, latent) of images (B, 3, H, W) in [-1, 1]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.inputs, widths = descending(a.patch_channels, a.encoder_channels, a.encoder_multipliers, a, False)
        self.middle, self.norm = middle(widths[-1], a, False), group_norm(widths[-1])
        lowest = a.side // 2 ** (len(a.encoder_multipliers) - 1)
        self.last = nn.Conv2d(widths[-1], a.latent_dim, 1 if a.average else lowest)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.pixel_unshuffle(x, self.architecture.patch)
        for stage in self.inputs:
            h = stage(h)
        h = functional.silu(self.norm(self.middle(h)))
        if self.architecture.average:
            h = h.mean((2, 3), keepdim=True)
        z: Tensor = self.last(h).flatten(1)
        return z


class ConditionalUNet(nn.Module):
    """What is predicted of noised images (B, 3, H, W), given the step in [0, 1000] and z_sem."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.time = nn.Sequential(nn.Linear(a.channels, a.embed), nn.SiLU(), nn.Linear(a.embed, a.embed))
        if a.map_channels:
            self.map = nn.Sequential(
                nn.Linear(a.latent_dim, 2 * a.embed), nn.SiLU(), nn.Linear(2 * a.embed, a.map_channels * a.side**2)
            )
        self.inputs, widths = descending(a.patch_channels + a.map_channels, a.channels, a.multipliers, a, True)
        self.middle = middle(widths[-1], a, True)
        self.outputs, width = self._ascending(widths)
        self.norm, self.last = group_norm(width), nn.Conv2d(width, a.patch_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type] # it has one

    def _ascending(self, widths: list[int]) -> tuple[nn.ModuleList, int]:
        """The stages back up, each of which is given what a stage on the way down made."""
        a, stages, left = self.architecture, [], list(widths)
        sizes, width = (a.embed, a.latent_dim, a.dropout), widths[-1]
        side = a.side // 2 ** (len(a.multipliers) - 1)
        for level, multiplier in reversed(list(enumerate(a.multipliers))):
            for number in range(a.blocks + 1):
                layers: list[nn.Module] = [ResidualBlock(width + left.pop(), multiplier * a.channels, *sizes)]
                width = multiplier * a.channels
                if side in a.attention:
                    layers.append(Attention(width))
                if level and number == a.blocks:
                    layers.append(ResidualBlock(width, width, *sizes, "up"))
                    side *= 2
                stages.append(Stage(layers))
        return nn.ModuleList(stages), width

    def forward(self, x_t: Tensor, index: Tensor, z: Tensor) -> Tensor:
        a = self.architecture
        time = self.time(time_features(index, a.channels))
        h = functional.pixel_unshuffle(x_t, a.patch)
        if a.map_channels:
            h = torch.cat([h, self.map(z).unflatten(1, (a.map_channels, a.side, a.side))], dim=1)
        beside = []
        for stage in self.inputs:
            h = stage(h, time, z)
            beside.append(h)
        h = self.middle(h, time, z)
        for stage in self.outputs:
            h = stage(torch.cat([h, beside.pop()], dim=1), time, z)
        prediction: Tensor = functional.pixel_shuffle(self.last(functional.silu(self.norm(h))), a.patch)
        return prediction.to(x_t.dtype)

"""The judge: an image classifier that sees only pixels and shares neither data nor weights with what guides.

A small convolutional network with one head per attribute. Its penultimate features, standardised on real images, are
the space in which Frechet distance and the nearest real image are measured.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcg.nets.heads import HeadOutputs, predict_labels, split_outputs
from lcg.schema import Schema
from lcg.weights import load_weights

SHIPPED = Path(__file__).parent / "weights" / "avatars-judge.safetensors"


class Judge(nn.Module):
    """Attributes and features of images.

    Args:
        schema: one head per attribute.
        image_shape: (channels, height, width); height and width divisible by 16.
        width: channels of the first block; the later ones have twice and four times as many.
        features: dimension of the penultimate layer.
    """

    def __init__(
        self, schema: Schema, image_shape: tuple[int, int, int] = (3, 64, 64), width: int = 32, features: int = 128
    ) -> None:
        super().__init__()
        channels, height, columns = image_shape
        if height % 16 or columns % 16:
            raise ValueError(
                f"`image_shape` must have sides divisible by 16, got {tuple(image_shape)}; resize the images"
            )
        self.schema, self.image_shape = schema, tuple(image_shape)
        self.config: dict[str, Any] = {
            "schema": schema.to_dict(),
            "image_shape": list(image_shape),
            "width": width,
            "features": features,
        }

        def block(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())

        widths = (channels, width, 2 * width, 4 * width, 4 * width)
        self.trunk = nn.Sequential(
            *(block(i, o) for i, o in pairwise(widths)),
            nn.Flatten(),
            nn.Linear(widths[-1] * (height // 16) * (columns // 16), features),
        )
        self.heads = nn.Sequential(nn.SiLU(), nn.Dropout(0.1), nn.Linear(features, sum(a.outputs for a in schema)))

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Penultimate features of images in [-1, 1]."""
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"the judge expects images of shape {self.image_shape}, got {tuple(x.shape[1:])}; resize them"
            )
        return self.trunk(x)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> HeadOutputs:
        """Raw head outputs by attribute for images in [-1, 1]."""
        return split_outputs(self.schema, self.heads(self.features(x)))

    @torch.no_grad()
    def judge(
        self, x: Float[Tensor, "batch channels height width"], batch_size: int = 512
    ) -> tuple[Float[Tensor, "batch attributes"], Float[Tensor, "batch features"]]:
        """Predicted labels (NaN where a detail does not apply) and features, in batches."""
        labels, features = [], []
        for part in x.split(batch_size):
            f = self.features(part)
            features.append(f)
            labels.append(predict_labels(self.schema, split_outputs(self.schema, self.heads(f))))
        return torch.cat(labels), torch.cat(features)


class AvatarJudge(Judge):
    """The judge of the avatars, with the weights that ship with the package, frozen.

    Trained on uniform renders of its own split, drawn independently of what prior, classifiers and generator were
    trained on; it has seen every combination of attributes.

    Args:
        weights: another file exported by `lcg fit --config configs/judge/avatars.yaml`; None for the shipped one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other weights.
    """

    def __init__(self, weights: str | None = None) -> None:
        state, config, self.provenance = load_weights(SHIPPED if weights is None else weights)
        try:
            schema = Schema.from_dict(config["schema"])
            super().__init__(schema, tuple(config["image_shape"]), config["width"], config["features"])
            self.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{weights or SHIPPED} does not hold a judge ({error}); export it again") from error
        self.eval().requires_grad_(False)

"""The judge: an image classifier that sees only pixels and shares neither data nor weights with what guides.

A small convolutional network with one head per attribute. Its penultimate features, standardised on real images, are
the space in which Frechet distance and the nearest real image are measured. Images that are larger by a whole factor
are averaged down to the judge's size first, so that one judge serves generators of several sizes.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.heads import HeadOutputs, predict_labels, split_outputs
from lcg.schema import Schema
from lcg.weights import load_weights

SHIPPED = Path(__file__).parent / "weights" / "avatars-judge.safetensors"


@dataclass(frozen=True)
class Judgement:
    """What a judge sees in images.

    Attributes:
        labels: (N, A) the most probable ones, NaN where a detail does not apply.
        features: (N, F) of the penultimate layer.
        probabilities: (N, A) of binary attributes being 1, in [0, 1]; NaN for other kinds.
    """

    labels: Tensor
    features: Tensor
    probabilities: Tensor


class Judge(nn.Module):
    """Attributes and features of images.

    Args:
        schema: one head per attribute.
        image_shape: (channels, height, width); height and width divisible by 16.
        width: channels of the first block; the later ones have twice and four times as many.
        features: dimension of the penultimate layer.

    Attributes:
        provenance: what it was trained on and with; empty when nobody said.
        file_sha256: of the file that its weights are from; empty when there is none.
        networks: SHA-256 of further networks that it goes by; none but for a judge that asks others.
    """

    provenance: dict[str, Any]
    file_sha256: str = ""
    networks: frozenset[str] = frozenset()

    def __init__(
        self, schema: Schema, image_shape: tuple[int, int, int] = (3, 64, 64), width: int = 32, features: int = 128
    ) -> None:
        super().__init__()
        channels, height, columns = image_shape
        if height % 16 or columns % 16:
            raise ValueError(
                f"`image_shape` must have sides divisible by 16, got {tuple(image_shape)}; resize the images"
            )
        self.schema, self.image_shape, self.provenance = schema, tuple(image_shape), {}
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

    def factor(self, image_shape: tuple[int, ...]) -> int:
        """By how much images of this shape (C, H, W) are averaged down; 1 for the judge's own.

        Raises:
            ValueError: height and width are not the same multiple of the judge's.
        """
        channels, height, width = self.image_shape
        factor = image_shape[1] // height
        if factor < 1 or tuple(image_shape) != (channels, factor * height, factor * width):
            raise ValueError(
                f"the judge expects images of shape {self.image_shape}, or height and width the same whole multiple of "
                f"these, got {tuple(image_shape)}; resize them"
            )
        return factor

    def shrunk(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Images averaged down to the judge's size, block by block; as they are when they have it. Raises as above."""
        factor = self.factor(tuple(x.shape[1:]))
        return x if factor == 1 else functional.avg_pool2d(x, factor)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Penultimate features of images in [-1, 1], of the judge's size or a whole multiple of it."""
        return self.trunk(self.shrunk(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> HeadOutputs:
        """Raw head outputs by attribute for images in [-1, 1]."""
        return split_outputs(self.schema, self.heads(self.features(x)))

    @torch.no_grad()
    def judge(self, x: Float[Tensor, "batch channels height width"], batch_size: int = 512) -> Judgement:
        """What the judge sees in images (N, C, H, W) in [-1, 1], in batches."""
        parts = []
        for part in x.split(batch_size):
            f = self.features(part)
            outputs = split_outputs(self.schema, self.heads(f))
            parts.append((predict_labels(self.schema, outputs), f, binary_probabilities(self.schema, outputs)))
        labels, features, probabilities = (torch.cat(column) for column in zip(*parts, strict=True))
        return Judgement(labels, features, probabilities)


def binary_probabilities(schema: Schema, outputs: HeadOutputs) -> Float[Tensor, "batch attributes"]:
    """sigmoid(logit) of binary attributes, each by itself; NaN for those of other kinds."""
    columns = []
    for attribute in schema:
        output = outputs[attribute.name].float()
        columns.append(output.sigmoid() if attribute.kind == "binary" else output.new_full(output.shape[:1], torch.nan))
    return torch.stack(columns, dim=1)


class TrainedJudge(Judge):
    """A judge of any images, from a file that `lcg fit` exported, frozen.

    Args:
        weights: the file, such as `lcg fit --config configs/judge/folder.yaml` writes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other weights.
    """

    def __init__(self, weights: str) -> None:
        state, config, provenance = load_weights(weights)
        try:
            schema = Schema.from_dict(config["schema"])
            super().__init__(schema, tuple(config["image_shape"]), config["width"], config["features"])
            self.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{weights} does not hold a judge ({error}); export it again") from error
        self.provenance, self.file_sha256 = provenance, hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        self.eval().requires_grad_(False)


class AvatarJudge(TrainedJudge):
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
        super().__init__(str(SHIPPED) if weights is None else weights)

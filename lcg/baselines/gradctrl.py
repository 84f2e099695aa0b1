"""GradCtrl: short steps along the gradient of a small classifier, leaving out the channels that other attributes need.

    z <- z + (length / steps) sum_i w_i (m * g_i) / |m * g_i|,        g_i = grad log-odds P(y_i | z)

(Chen, Jiang, Duke, Zhao & Aarabi, "Exploring Gradient-based Multi-directional Controls in GANs", ECCV 2022,
arXiv:2209.00698, and its public code). The classifier has one hidden layer per attribute, so that its gradient is
another one wherever the latent is: directions are computed anew at each of the `steps`, and the path bends. The mask m
is 0 in the channels in which some other attribute j is salient, the `masked` share with the largest |d y_j / d z|, and
1 elsewhere. It is applied before the gradient is scaled to length 1, so that every step has the same length. For a
linear classifier the path is a straight line along the masked normal: InterFaceGAN with a hard mask in the place of its
projection.

Departures from the authors' code:

- They differentiate the probability, we the log-odds log p - log(1 - p). Of one value of an attribute that is the same
  direction and the same order of channels, as grad p = p (1 - p) grad log-odds; but it does not vanish in float32 where
  the classifier is certain already, where theirs would divide 0 by 0.
- They edit one attribute at a time. Here several are edited at once, each with a step of its own; channels are masked
  for the attributes that no edit touches, details of an edited one excepted (the style of glasses that are to come).
- Which attributes are protected, and by how many of 512 channels each, they tuned by hand for every edit: 50 to 300
  for each of two or three binary attributes. Here it is one share for all, by default their smallest, 0.1, and the
  attributes are the binary ones that are not edited: there are more of them and fewer channels, of which larger masks
  leave hardly any.
- Salience of a categorical attribute, which they do not have, is that of its most probable value; of a continuous one,
  that of its mean.
- They change some layers of W+ only (2 to 10 of 18 for glasses); other latents have no layers.
- Their steps, 9 of length 4/9, are measured in StyleGAN2's W; ours in standardised latents.
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.clean import FollowsClassifier, conjunction
from lcg.baselines.contract import Literal, Mover, Training, check_shape, literals, strength_per_row
from lcg.diffusion import Randomness
from lcg.guidance import CompiledFormula, Formula, Not
from lcg.guidance.terms import leaf, refuse_inference_mode
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute


class GradCtrl(FollowsClassifier, Mover):
    """Edits and generates by masked gradient steps on clean latents.

    Strength multiplies `length`.

    Args:
        checkpoint: of the classifier of clean latents, `lcg fit --config configs/baseline/gradctrl.yaml`.
        steps: of the path; the direction is computed anew at each.
        length: of the whole path, in standard deviations of one channel.
        masked: share in [0, 1) of the channels that each protected attribute masks; 0 for no mask.
        protected: names of the attributes whose channels are left out unless they are edited; None for the binary ones.

    Raises:
        ValueError: a number is out of range.
    """

    name = "gradctrl"
    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)

    def __init__(
        self,
        checkpoint: str | PathLike[str] = "runs/demo/baselines/gradctrl.ckpt",
        steps: int = 9,
        length: float = 4.0,
        masked: float = 0.1,
        protected: Sequence[str] | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {steps}; the authors take 9")
        if not 0 < length < float("inf"):
            raise ValueError(f"`length` must be positive and finite, got {length}; the authors take 4")
        if not 0 <= masked < 1:
            raise ValueError(f"`masked` must be in [0, 1), got {masked}; it is a share of the channels, 0 for no mask")
        super().__init__(checkpoint)
        self.steps, self.length, self.masked = steps, length, masked
        self.protected = None if protected is None else tuple(protected)

    def fit(self, training: Training) -> Self:
        """Reads the classifier. Raises as `pretrained`, and ValueError for an unknown attribute to be protected."""
        for name in self.protected or ():
            training.schema.index(name)
        return super().fit(training)

    def move(
        self,
        z_0: Float[Tensor, "batch *latent"],
        formulas: Sequence[Formula],
        strength: float | Tensor | None = None,
        randomness: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """The end of the path; see `Mover`.

        Weights multiply the steps, a strength `length`; nothing is drawn. Raises ValueError also for literals that
        contradict each other.
        """
        check_shape(z_0, self.classifier.latent_shape)
        wanted = literals(formulas, self.classifier.schema, self.name)
        if not CompiledFormula(conjunction(wanted)).satisfiable:
            raise ValueError(f"the edits contradict each other: {' & '.join(map(str, wanted))}; take one back")
        step = self.length / self.steps * strength_per_row(strength, z_0)
        z = z_0
        for _ in range(self.steps):
            z = z + step * sum(w.weight * n for w, n in zip(wanted, self.directions(z, wanted), strict=True))
        return z

    def directions(
        self, z_0: Float[Tensor, "batch *latent"], wanted: Sequence[Literal]
    ) -> list[Float[Tensor, "batch *latent"]]:
        """(m * g_i) / |m * g_i| for every literal, each (B, *latent) of length 1; 0 where nothing is left of g_i.

        Raises:
            RuntimeError: before `fit`, or under torch.inference_mode.
        """
        refuse_inference_mode()
        with torch.enable_grad():
            z = leaf(z_0)
            outputs = self.classifier(z)
            gradients = [_gradient(log_odds(literal, outputs), z) for literal in wanted]
            kept = torch.ones_like(z_0, dtype=torch.bool)
            for attribute in self.others(wanted):
                kept &= ~salient(_gradient(salience(attribute, outputs[attribute.name]), z), self.masked)
        return [_unit(kept * gradient) for gradient in gradients]

    def others(self, wanted: Sequence[Literal]) -> Iterator[Attribute]:
        """The attributes for which channels are masked."""
        schema = self.classifier.schema
        free = schema.freed_by(literal.atom.name for literal in wanted)
        for attribute in schema:
            chosen = attribute.kind == "binary" if self.protected is None else attribute.name in self.protected
            if chosen and attribute.name not in free:
                yield attribute


def log_odds(literal: Literal, outputs: HeadOutputs) -> Float[Tensor, " batch"]:
    """log P(literal | z_0) - log P(not literal | z_0), (B,)."""
    atom = literal.atom
    return literal.sign * (CompiledFormula(atom)(outputs) - CompiledFormula(Not(atom))(outputs))


def salience(attribute: Attribute, head: Tensor) -> Float[Tensor, " batch"]:
    """What is differentiated for the mask of an attribute that shall stay, (B,).

    A logit; the log-odds of the most probable value; or the mean.
    """
    if attribute.kind == "binary":
        return head
    if attribute.kind == "continuous":
        return head[:, 0]
    value = head.argmax(1, keepdim=True)
    others = head.scatter(1, value, -torch.inf)
    return head.gather(1, value)[:, 0] - others.logsumexp(1)


def salient(gradient: Float[Tensor, "batch *latent"], share: float) -> Bool[Tensor, "batch *latent"]:
    """The channels with the largest |gradient|, round(share * channels) in every row."""
    flat = gradient.abs().flatten(1)
    top = flat.topk(round(share * flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, top, True).view_as(gradient)


def _gradient(value: Float[Tensor, " batch"], z_0: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value.sum(), z_0, retain_graph=True)  # rows are independent
    return gradient


def _unit(direction: Tensor) -> Tensor:
    length = direction.flatten(1).norm(dim=1).clamp_min(torch.finfo(direction.dtype).tiny)
    return direction / length.reshape(-1, *(1,) * (direction.ndim - 1))

"""Latent arithmetic: an attribute is a direction, an edit adds it.

    z' = z_0 + strength * sum_i w_i s_i d_i,        s = +1 for a, -1 for ~a

"Smiling woman - neutral woman + neutral man" (Radford et al. 2016, arXiv:1511.06434, section 6.3.2). Of the two ways to
a direction, `means` takes the attribute vector as a difference of means over labelled latents (White 2016,
arXiv:1609.04468),

    d_a = E[z_0 | a] - E[z_0 | not a],

and `probe` the normal of a linear classifier trained by binary cross-entropy on standardised latents of D elements, as
Diffusion Autoencoders edit (Preechakul et al. 2022, arXiv:2111.15640),

    d_a = 0.3 sqrt(D) w_a / |w_a|.

For a flat prior and linear classifiers latent classifier guidance is arithmetic too, so this is the baseline that lcg
has to beat. One step for all rows: a source that has already half of what is asked moves as far as any other. It knows
no density, so far steps leave the data; and what is correlated comes along: who gets a beard gets something of the hat
that goes with it.

Departures of `probe`: its authors train one layer for all attributes by Adam, 300,000 samples long; ours are separate
fits, run to their minimum, with a ridge of one observation (1 / 2N per mean loss) because classes that can be separated
have no minimum without. Their labels are binary; here a categorical value is set against all others, and `age>0.6`
against its negation. Their step 0.3 sqrt(512) is kept relative to sqrt(D), the length of a standard normal latent.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.contract import Mover, Training, check_shape, literals, strength_per_row, when_fitted
from lcg.diffusion import Randomness
from lcg.guidance import Atom, Formula
from lcg.guidance.formula import Near

Direction = Literal["means", "probe"]
"""How a direction is found: a difference of means, or the normal of a linear probe."""

PROBE_STEP = 0.3
"""The step of a probe in units of sqrt(D)."""


class Directional(Mover):
    """A method for which every atom has a step, and whose edits add steps: z_0 + strength * sum_i w_i s_i step_i.

    Steps are computed when they are asked for, in float64, and kept; latents and labels are kept, not copied.
    """

    _training: Training | None = None

    def fit(self, training: Training) -> Self:
        self._training, self._steps = training, dict[str, Tensor]()
        return self

    @property
    def training(self) -> Training:
        """What the method was fitted on. Raises RuntimeError before that."""
        return when_fitted(self._training, self)

    def move(
        self,
        z_0: Float[Tensor, "batch *latent"],
        formulas: Sequence[Formula],
        strength: float | Tensor | None = None,
        randomness: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """One step for all rows, whatever their labels; draws nothing. Raises as `Mover.move` and as `direction`."""
        check_shape(z_0, self.training.latent_shape)
        strength = strength_per_row(strength, z_0)
        return z_0 + (strength * self.direction(*formulas).to(z_0.device)).to(z_0.dtype)

    def direction(self, *formulas: Formula) -> Float[Tensor, "*latent"]:
        """sum_i w_i s_i step_i: where latents go at strength 1.

        Args:
            formulas: literals or conjunctions of literals; weights multiply steps.

        Returns:
            (*latent) float64.

        Raises:
            RuntimeError: before `fit`.
            ValueError: something is no literal, or an atom for which the method finds no direction, such as one that
                holds for no or for every labelled latent, or a target such as `age=0.7`.
        """
        training = self.training
        total = torch.zeros(training.latent_shape, dtype=torch.float64, device=training.z_0.device)
        for literal in literals(formulas, training.schema, self.name):
            total += literal.weight * literal.sign * self.step(literal.atom)
        return total

    def step(self, atom: Atom) -> Float[Tensor, "*latent"]:
        """The step towards an atom, (*latent) float64, computed once. Raises as `direction` does."""
        (literal,) = literals([atom], self.training.schema, self.name)  # refuses atoms of another schema
        if isinstance(atom, Near):
            raise ValueError(
                f"a direction has no place to stop, so {self.name} has none for the target {str(atom)!r}; "
                f"ask for {atom.name}>{atom.value:g} or {atom.name}<{atom.value:g}"
            )
        if str(atom) not in self._steps:
            self._steps[str(atom)] = self._find_step(literal.atom)
        return self._steps[str(atom)]

    @abstractmethod
    def _find_step(self, atom: Atom) -> Float[Tensor, "*latent"]:
        """The step towards an atom of the training's schema."""


class LatentArithmetic(Directional):
    """Edits and generates by adding directions.

    Args:
        direction: `means` adds differences of means, under the name arithmetic; `probe` normals of linear probes.

    Raises:
        ValueError: another direction.
    """

    name: str  # by the direction
    strengths: ClassVar[tuple[float, ...]] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)

    def __init__(self, direction: Direction = "means") -> None:
        if direction not in get_args(Direction):
            raise ValueError(f"`direction` must be one of {', '.join(get_args(Direction))}, got {direction!r}")
        self.kind = direction
        self.name = "arithmetic" if direction == "means" else "probe"

    def _find_step(self, atom: Atom) -> Float[Tensor, "*latent"]:
        true, false = sides(atom, self.training)
        z_0 = self.training.z_0
        if self.kind == "means":
            return z_0[true].double().mean(dim=0) - z_0[false].double().mean(dim=0)
        normal = probe(torch.cat((z_0[true], z_0[false])), int(true.sum()))
        return PROBE_STEP * math.sqrt(normal.numel()) * normal


def sides(atom: Atom, training: Training) -> tuple[Tensor, Tensor]:
    """The labelled latents for which an atom holds, and for which it does not, masks (N,).

    Raises:
        ValueError: it holds for none or for all of them.
    """
    true, false = atom.verdict(training.labels)
    for rows, what in ((true, "holds"), (false, "does not hold")):
        if not bool(rows.any()):
            raise ValueError(f"there is no labelled latent for which {str(atom)!r} {what}, so it has no direction")
    return true.to(training.z_0.device), false.to(training.z_0.device)


def probe(z_0: Float[Tensor, "n *latent"], positives: int) -> Float[Tensor, "*latent"]:
    """The unit normal of a linear classifier by logistic regression, towards the first rows.

    Args:
        z_0: (N, *latent), positive rows first.
        positives: how many they are.

    Returns:
        (*latent) float64.
    """
    from sklearn.linear_model import LogisticRegression

    y = torch.arange(len(z_0)) < positives
    fitted = LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit(z_0.flatten(1).double().cpu().numpy(), y.numpy())
    w = torch.tensor(fitted.coef_[0], dtype=torch.float64, device=z_0.device)
    return (w / w.norm()).reshape(z_0.shape[1:])

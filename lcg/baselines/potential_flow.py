"""Traversal by potentials: an edit goes along the gradients of learnt functions of latent and time.

    z_{t+1} = z_t + strength * sum_i w_i s_i grad_z u_{k_i}(z_t, t),      t = 0, ..., T - 1

(Song, Keller, Sebe & Welling 2023, "Latent Traversals in Generative Models as Potential Flows", ICML,
arXiv:2304.12944; the strength is the release's `eps`, the length of a step, 1 in training). The potentials u_k and what
they are trained for are in `lcg.nets.potential_flow` and `lcg.modules.potential_flow`.

Which potential is which attribute. Potentials that were trained for attributes, the default, say so; s = +1 raises, -1
lowers, and a threshold of a continuous attribute is approached from below or above. What has no potential of its own
(`hair in {blond, red}`), and everything where training was unsupervised as the authors', gets the potential and sign
whose whole path raises log P(literal) most, on average over some training latents, by the time-conditioned classifier
at little noise. The authors look at the images and name the paths by eye.

Departures: several literals move together, by the sum of their velocities, where the authors go along one potential at
a time; the order of edits does then not matter. As theirs, a path does not stop where the literal already holds.
"""

import math
from collections.abc import Sequence
from os import PathLike, fspath
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.contract import (
    Literal,
    Mover,
    Training,
    check_shape,
    literals,
    pretrained,
    strength_per_row,
    when_fitted,
)
from lcg.diffusion import Randomness
from lcg.guidance import Atom, Formula, FormulaReadout
from lcg.guidance.formula import Beyond, Has, OneOf
from lcg.nets.heads import Outputs
from lcg.nets.potential_flow import PotentialFlow, traverse


class PotentialFlowTraversal(Mover):
    """Edits and generates by following gradients of learnt potentials.

    Args:
        checkpoint: of the potentials.
        rows: training latents on which a potential is looked for where none was trained for a literal.
        level: noise level t at which the classifier then judges.

    Raises:
        ValueError: rows < 1, or a level that is not in [0, 1].
    """

    name = "potential_flow"
    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.375, 0.5, 0.625, 0.75, 1.0, 1.5, 2.0, 3.0)

    _fitted: tuple[PotentialFlow, Training] | None = None

    def __init__(
        self,
        checkpoint: str | PathLike[str] = "runs/demo/baselines/potential_flow.ckpt",
        rows: int = 256,
        level: float = 0.02,
    ) -> None:
        if rows < 1:
            raise ValueError(f"`rows` must be at least 1, got {rows}; some hundreds tell potentials apart")
        if not 0 <= level <= 1:
            raise ValueError(f"`level` must be in [0, 1], got {level}; 0.02 is hardly any noise")
        self.checkpoint, self.rows, self.level = fspath(checkpoint), rows, level

    def fit(self, training: Training) -> Self:
        """Loads the potentials. Raises FileNotFoundError and ValueError as `pretrained`."""
        self._fitted = pretrained(self.checkpoint, "potential_flow", training), training
        self._found: dict[str, tuple[int, float]] = {}
        self._ends: dict[tuple[int, float], Outputs] = {}
        return self

    @property
    def fitted(self) -> tuple[PotentialFlow, Training]:
        """The potentials, and what they are matched to literals by. Raises RuntimeError before `fit`."""
        return when_fitted(self._fitted, self)

    def move(
        self,
        z_0: Float[Tensor, "batch *latent"],
        formulas: Sequence[Formula],
        strength: float | Tensor | None = None,
        randomness: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """The end of the path; see `Mover`.

        Weights multiply velocities, a strength is the length of a step; nothing is drawn. Raises ValueError also for a
        literal that always or never holds and has no potential.
        """
        flow, training = self.fitted
        check_shape(z_0, flow.latent_shape)
        parts = literals(formulas, training.schema, self.name)
        chosen = [(self.potential_of(part), part.weight) for part in parts]
        length = strength_per_row(strength, z_0)
        if not len(z_0):
            return z_0

        def field(z: Tensor, step: int) -> Tensor:
            return sum((w * s * self._velocity(z, step, k) for (k, s), w in chosen), torch.zeros_like(z))

        with torch.inference_mode(False), torch.no_grad():  # velocities are gradients, which take what they need
            return traverse(field, z_0.clone(), flow.steps, length.clone())[-1]

    def potential_of(self, literal: Literal) -> tuple[int, float]:
        """The potential k and the sign s whose path leads to a literal.

        Raises:
            RuntimeError: before `fit`.
            ValueError: no potential was trained for it, and it always or never holds, so none can be found.
        """
        flow, _ = self.fitted
        name, sign = trained_name(literal.atom)
        if name in flow.atoms:
            return flow.atoms.index(name), sign * literal.sign
        key = str(literal)
        if key not in self._found:
            self._found[key] = self._best(literal)
        return self._found[key]

    def _best(self, literal: Literal) -> tuple[int, float]:
        """The potential and sign with the largest mean log P(literal) at the end of its path."""
        flow, _ = self.fitted
        readout = FormulaReadout(literal.atom if literal.positive else ~literal.atom, "independent")
        ways = [(k, sign) for k in range(flow.count) for sign in (1.0, -1.0)]
        reached = {way: float(readout(self._end(*way)).mean()) for way in ways}
        return max(reached, key=reached.__getitem__)

    def _end(self, k: int, sign: float) -> Outputs:
        """What the classifier says where one potential leads; kept, as it is the same for all literals."""
        flow, training = self.fitted
        if (k, sign) not in self._ends:
            count = min(self.rows, len(training.z_0))
            with torch.inference_mode(False), torch.no_grad():
                z_0 = training.z_0[torch.linspace(0, len(training.z_0) - 1, count).long()].float()
                z_0 = traverse(lambda z, step: self._velocity(z, step, k), z_0, flow.steps, sign)[-1]
                self._ends[k, sign] = training.classifier(z_0, z_0.new_tensor(self.level).expand(count))
        return self._ends[k, sign]

    def _velocity(self, z: Tensor, step: int, k: int) -> Tensor:
        flow, _ = self.fitted
        place = z.to(flow.speed)
        return flow.velocity(place, place.new_tensor(float(step)).expand(len(place)), k).to(z)


def trained_name(atom: Atom) -> tuple[str, float]:
    """The name that a supervised potential for an atom goes by, and the sign that raises the atom."""
    if isinstance(atom, Beyond):
        return atom.name, 1.0 if atom.above else -1.0
    if isinstance(atom, Has) or (isinstance(atom, OneOf) and len(atom.indices) == 1):
        return str(atom), 1.0
    return "", math.nan

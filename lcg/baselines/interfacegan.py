"""InterFaceGAN: an attribute is a hyperplane, an edit moves along its normal.

    z' = z_0 + strength * alpha * sum_i w_i s_i n_i,        s = +1 for a, -1 for ~a

with n the unit normal of a linear support vector machine between the latents that score highest and those that score
lowest for the attribute (Shen et al. 2020, arXiv:1907.10786, and its journal version arXiv:2005.09635). Conditional
manipulation keeps other attributes: the primal normal loses its projection onto the span of theirs,

    n_1 | n_2, n_3, ...  =  n_1 - sum_j (n_1 . q_j) q_j,  normalised,    q an orthonormal basis of n_2, n_3, ...

(Gram-Schmidt), so that moving along it leaves every score n_j . z_0 as it is. The authors' numbers: the upper and the
lower 2 % by score, 70 % of either for training and the rest for validation (`accuracy`), C = 1, |alpha| <= 3.

Where we differ, and why:

* Their scores are the logits of attribute networks on generated images. Labels here are hard, so scores are the
  log-odds that the classifier of noised latents gives at t = 0.02: the classifier that every method is given. Where it
  does not know the attribute, or with `scores="labels"`, labels take its place: the two sides are then random subsets
  of those for which the attribute holds and does not, of the same size.
* Rows to which a detail does not apply, such as the style of no glasses, are left out, as theirs with `invalid_value`.
* A categorical value and `age>0.6` are attributes like any other: what is asked against all else.
* They condition on one or two attributes, chosen by hand; their code knows no more. Nobody chooses them here, so
  `condition="all"` keeps every other binary attribute. All of theirs are binary; the values of categorical ones are
  so many normals that little or nothing of the primal one is left, but they can be named.
* What is a detail of the edited attribute, or exists only with it, is not kept: a beard that comes must get a colour.
* Their code puts a latent at the signed distance alpha from the boundary; their papers add alpha n, and so do we.
* alpha is a length in standardised latents, where D elements of a source have length sqrt(D) as theirs had: 3 is
  further in 64 dimensions than in their 512.
"""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.contract import Training
from lcg.baselines.latent_arithmetic import Directional, sides
from lcg.guidance import Atom, log_probability
from lcg.guidance.formula import Has, OneOf
from lcg.nets.heads import HeadOutputs, in_float, independent
from lcg.schema import Attribute

Condition = Literal["none", "all"]
Scores = Literal["classifier", "labels"]

TIME = 0.02
"""The noise level at which the classifier scores latents: nearly none, and one it was trained at."""

NOTHING_LEFT = 1e-4
"""Length of a conditional direction below which the primal one lies in the span of the conditions."""


class InterFaceGAN(Directional):
    """Edits and generates by moving along normals of separating hyperplanes.

    Args:
        alpha: how far to move at strength 1.
        condition: the attributes whose scores no other edit may change: `none`, `all` that are binary, or their names.
        scores: what latents are ranked by.
        share: of all latents that make up either side, in (0, 0.5].
        train_share: of a side that is trained on, in (0, 1].
        seed: of the split.

    Attributes:
        accuracy: of each normal on its validation rows, by atom; NaN where there are none. Filled as normals are found.

    Raises:
        ValueError: alpha is not positive, a share is out of its range, or there are no such scores or condition.
    """

    name = "interfacegan"
    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)

    def __init__(
        self,
        alpha: float = 3.0,
        condition: Condition | Sequence[str] = "all",
        scores: Scores = "classifier",
        share: float = 0.02,
        train_share: float = 0.7,
        seed: int = 0,
    ) -> None:
        if not 0 < alpha < math.inf:
            raise ValueError(f"`alpha` must be finite and > 0, got {alpha}; to go the other way, negate the edit")
        for name, value, most in (("share", share, 0.5), ("train_share", train_share, 1.0)):
            if not 0 < value <= most:
                raise ValueError(f"`{name}` must be in (0, {most}], got {value}")
        if scores not in get_args(Scores):
            raise ValueError(f"`scores` must be one of {', '.join(get_args(Scores))}, got {scores!r}")
        if isinstance(condition, str) and condition not in get_args(Condition):
            raise ValueError(f"`condition` must be none, all or a list of attributes, got {condition!r}")
        self.condition = condition if isinstance(condition, str) else list(condition)
        self.alpha, self.scores = alpha, scores
        self.share, self.train_share, self.seed = share, train_share, seed
        self.accuracy: dict[str, float] = {}

    def fit(self, training: Training) -> Self:
        """See `Baseline`. Raises ValueError for a condition that the schema does not have."""
        if not isinstance(self.condition, str):
            for name in self.condition:
                training.schema.index(name)
        self.accuracy, self._normals = {}, dict[str, Tensor]()
        self._outputs: HeadOutputs | None = None
        return super().fit(training)

    def normal(self, atom: Atom) -> Float[Tensor, "*latent"]:
        """The unit normal of the hyperplane between an atom and its negation, (*latent) float64, found once.

        Raises:
            RuntimeError: before `fit`.
            ValueError: either side has too few latents to train on, or, by labels, none.
        """
        training = self.training
        if str(atom) not in self._normals:
            upper, lower = self._extremes(atom)
            normal, accuracy = support_vector_normal(upper, lower, self.train_share, self.seed)
            self._normals[str(atom)] = normal.to(training.z_0.device).reshape(training.latent_shape)
            self.accuracy[str(atom)] = accuracy
        return self._normals[str(atom)]

    def conditions(self, attribute: Attribute) -> Iterator[Atom]:
        """The atoms whose scores an edit of an attribute shall not change."""
        schema = self.training.schema
        for column, other in enumerate(schema):
            if attribute.name in (other.name, *other.detail_of, *other.applies_if):
                continue
            if self.condition == "none" or (self.condition != "all" and other.name not in self.condition):
                continue
            if other.kind == "binary":
                yield Has(other, column)
            elif other.kind == "categorical" and self.condition != "all":
                yield from (OneOf(other, column, (index,)) for index in range(len(other.values)))
            elif self.condition != "all":
                raise ValueError(
                    f"`condition` names the continuous {other.name!r}, for which there is no one hyperplane; "
                    "give binary and categorical attributes"
                )

    def _find_step(self, atom: Atom) -> Float[Tensor, "*latent"]:
        primal = self.normal(atom)
        given = [self.normal(other) for other in self.conditions(atom.attribute)]
        if not given:
            return self.alpha * primal
        direction = conditional(primal.flatten(), torch.stack([n.flatten() for n in given]))
        if not bool(direction.any()):
            raise ValueError(
                f"nothing is left of the direction of {str(atom)!r} when {len(given)} others are kept; "
                "name fewer in `condition`, or 'none'"
            )
        return self.alpha * direction.reshape(primal.shape)

    def _extremes(self, atom: Atom) -> tuple[Tensor, Tensor]:
        """The latents that score highest and those that score lowest, as many of either."""
        training = self.training
        if self.scores == "labels" or atom.name not in training.classifier.schema:
            true, false = sides(atom, training)
            rows, score = (true | false).nonzero()[:, 0], true.double()
            most = min(int(true.sum()), int(false.sum()))
        else:
            rows, score = _applicable(atom, training), self._log_odds(atom)
            most = len(rows) // 2
        count = min(int(self.share * len(rows)), most)
        if int(count * self.train_share) < 1:
            raise ValueError(
                f"`share` {self.share} of {len(rows)} latents leaves {count} on either side of {str(atom)!r}, "
                "too few to train on; raise it, or give more latents"
            )
        # Scores from labels are equal on either side: shuffled first, the rows taken are a random subset.
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed)).to(rows.device)]
        ranked = rows[score[rows].argsort(descending=True, stable=True)]
        return training.z_0[ranked[:count]], training.z_0[ranked[-count:]]

    def _log_odds(self, atom: Atom) -> Float[Tensor, " n"]:
        """log P(atom) - log P(not atom) of all latents, as the classifier of noised latents has it at t = 0.02."""
        if self._outputs is None:
            self._outputs = score_latents(self.training)
        return log_probability(atom, self._outputs) - log_probability(~atom, self._outputs)


def _applicable(atom: Atom, training: Training) -> Tensor:
    """The rows to which the atom's attribute applies, all where it is no detail."""
    every = torch.arange(len(training.z_0), device=training.z_0.device)
    if not atom.attribute.applies_if:
        return every
    return every[~training.labels[:, atom.column].isnan().to(every.device)]


@torch.no_grad()
def score_latents(training: Training, batch_size: int = 4096) -> HeadOutputs:
    """What the classifier of noised latents says of each attribute of all latents, taken to be at t = 0.02."""
    parts = []
    for z_0 in training.z_0.split(batch_size):
        t = torch.full((1,), TIME, device=z_0.device).expand(len(z_0))
        parts.append(independent(in_float(training.classifier(z_0, t))))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def support_vector_normal(
    upper: Float[Tensor, "n *latent"], lower: Float[Tensor, "n *latent"], train_share: float = 0.7, seed: int = 0
) -> tuple[Float[Tensor, " elements"], float]:
    """The unit normal of a linear support vector machine, towards the first set, and its accuracy on what is held out.

    Args:
        upper: (N, *latent) one side.
        lower: (N, *latent) the other, as many.
        train_share: of either that is trained on.
        seed: of the split.

    Returns:
        (D,) float64 on the CPU, and a number in [0, 1], NaN when nothing is held out.
    """
    from sklearn.svm import SVC

    generator = torch.Generator().manual_seed(seed)
    train = int(len(upper) * train_share)
    shuffled = [
        side.flatten(1).double().cpu()[torch.randperm(len(side), generator=generator)] for side in (upper, lower)
    ]
    machine = SVC(kernel="linear", C=1.0)
    machine.fit(torch.cat([side[:train] for side in shuffled]).numpy(), [1] * train + [0] * train)
    held_out = len(upper) - train
    accuracy = math.nan
    if held_out:
        rows = torch.cat([side[train:] for side in shuffled]).numpy()
        accuracy = float(machine.score(rows, [1] * held_out + [0] * held_out))
    w = torch.tensor(machine.coef_[0], dtype=torch.float64)
    return w / w.norm(), accuracy


def conditional(primal: Float[Tensor, " elements"], given: Float[Tensor, "conditions elements"]) -> Tensor:
    """The unit direction nearest to the primal one that is orthogonal to all given, (D,).

    Given ones that depend on each other, such as the normals of all values of an attribute, count once. Zero where the
    primal direction lies in their span.
    """
    _, singular, basis = torch.linalg.svd(given, full_matrices=False)
    q = basis[singular > 1e-9 * singular.max()]
    rest = primal - q.T @ (q @ primal)
    rest = rest - q.T @ (q @ rest)  # what rounding has left of the first time
    return rest / rest.norm() if float(rest.norm()) > NOTHING_LEFT else torch.zeros_like(rest)

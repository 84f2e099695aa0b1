"""LACE: energies of classifiers of clean latents, climbed by an ordinary differential equation or by Langevin steps.

    dz/dt = -beta(t)/2 grad_z E(z, c),      beta(t) = 0.1 + 19.9 t,      t from 1 to 1e-3          (sampler "ode")
    z'    = z + 0.01 grad_z (E(z, c) - |z|^2 / 2) + 0.01 xi,     100 steps,     xi ~ N(0, I)       (sampler "langevin")

"Controllable and Compositional Generation with Latent-Space Energy-Based Models" (Nie, Vahdat & Anandkumar 2021,
arXiv:2110.10873). E is the log-probability of the condition c = (c_1, ..., c_n), and its own logic composes it:

    discrete     E(c_i) = f(z)_{c_i} / T - log sum_c e^{f(z)_c}        AND   E = sum_i w_i E(c_i)
    continuous   E(c_i) = -(f(z) - c_i)^2 / (2 s^2),   s = 0.1         OR    E = log(20 e^{E_1} + e^{E_2})
    NOT          E = -a E_1,    a = min(1, 0.1 / |E_1|) without gradient

Where the latent's prior is N(0, I) and the classifier is the same at all times, the prior's score cancels in the
probability flow of the variance preserving diffusion, and what is left is the equation above: gradient ascent for a
time of (integral of beta/2) = 5.0, which ends near a maximum and has not the spread of the conditional. OR prefers its
left side twentyfold. Editing climbs what shall hold and stays near the source z_src in latent and in all other logits,

    E(z, c) - 0.04 (|w - w_src|^2 + |z - z_src|^2) - 0.01 sum_{j not in S} |f_j(z) - f_j(z_src)|^2.

The temperature T is 1, where E is a cross-entropy, which has no gradient left once the classifiers are content. As they
are perfectly so long before an image has changed, T < 1 is what strengthens LACE ("adjust discrete control" in the
code): the gradient gains (1/T - 1) grad f_{c_i} everywhere. A strength above 1 is 1/T, one below 1 a weight of E.

Defaults are those of the authors' FFHQ scripts. Departures:

- With a StyleGAN, z ~ N(0, I) is sampled and w = map(z) classified. Here both are the standardised latent, whose prior
  LACE takes to be N(0, I), which it is not; lcg's learnt prior is not used. |w - w_src|^2 is |z - z_src|^2 once more.
- A binary attribute has one logit instead of two, and continuous classifiers are fitted by likelihood; of their outputs
  the mean is f. Labels of continuous attributes are in [0, 1] there; s is in the label's own unit.
- A target `age=0.7` is LACE's continuous condition, times 1/T. Atoms that LACE has not: a threshold has the
  log-probability log Phi((f - c) / s) that LACE's density gives it, times 1/T; a set of values has the sum of their
  softmax.
- `~glasses` asks for the value 0, as their scripts ask for no glasses, and so any other negated atom for the values
  that remain; NOT is for what is no atom. With `negation="energy"` it is for atoms too. ~~a is a.
- All edits start from the original source, where theirs go on from the last result; the code's optional weights for
  earlier edits (off in its scripts) are left out. Details of an edited attribute are not kept: they could not be.
- Step sizes of the equation are controlled row by row, at the same tolerance: theirs are those of a batch, and a row's
  result depended on its neighbours. Langevin edits use the same noise for all rows, for the same reason.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os import PathLike
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.baselines.clean import FollowsClassifier
from lcg.baselines.contract import check_atom, check_shape, strength_per_row
from lcg.baselines.dormand_prince import integrate
from lcg.diffusion import Randomness
from lcg.diffusion.noise import randn
from lcg.diffusion.schedule import expand
from lcg.editing.contract import EditRequest, EditResult
from lcg.guidance import And, Atom, Formula, Not, Or
from lcg.guidance.formula import Beyond, Has, Near, OneOf
from lcg.guidance.terms import gradient
from lcg.nets.heads import HeadOutputs
from lcg.nets.latent_classifier import LatentClassifier
from lcg.schema import unknown_name

SamplerName = Literal["ode", "langevin"]
Negation = Literal["value", "energy"]

LEFT = 20.0  # what OR multiplies the probability of its left side by
NEGATED = 0.1  # what NOT bounds the absolute energy by
STOP = 1e-3  # the time at which the equation ends; it starts at 1
AT_ONCE = 128  # rows that are differentiated together: what they leave for the way back fits a processor's cache

Energy = Callable[[Tensor, Tensor], Tensor]
"""E (R,) of z (R, *latent), larger is better, where `rows` (R,) tells which of the batch they are."""


class LACE(FollowsClassifier):
    """Edits and generates by climbing the energies of classifiers of clean latents.

    A strength s <= 1 multiplies E(z, c), not the prior and not what keeps the source; s >= 1 is the inverse of LACE's
    temperature. At 0 nothing is asked for: sources stay as they are.

    Args:
        checkpoint: of the classifiers, from `lcg fit --config configs/baseline/lace.yaml`.
        sampler: `ode` or `langevin`.
        keep_latent: weight of |w - w_src|^2 + |z - z_src|^2 in edits.
        keep_logits: weight of the squared change of the logits of what is not edited.
        spread: s of continuous attributes, in the label's unit.
        negation: of atoms, `value` asks for the other values, `energy` is LACE's NOT.
        beta_min: beta at t = 0.
        beta_max: beta at t = 1.
        tolerance: absolute and relative, of the equation.
        steps: of Langevin.
        step_size: of Langevin.
        noise: standard deviation of the noise of a Langevin step.
        seed: of the noise of Langevin edits.

    Raises:
        ValueError: an unknown sampler or negation, or a number that is out of range.
    """

    name = "lace"
    strengths: ClassVar[tuple[float, ...]] = (0.5, 1.0, 1.2, 1.35, 1.5, 2.0, 2.5, 3.0, 4.0)

    def __init__(
        self,
        checkpoint: str | PathLike[str] = "runs/demo/baselines/lace.ckpt",
        sampler: SamplerName = "ode",
        keep_latent: float = 0.04,
        keep_logits: float = 0.01,
        spread: float = 0.1,
        negation: Negation = "value",
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        tolerance: float = 1e-3,
        steps: int = 100,
        step_size: float = 0.01,
        noise: float = 0.01,
        seed: int = 0,
    ) -> None:
        if sampler not in get_args(SamplerName):
            raise unknown_name("sampler", sampler, get_args(SamplerName), "LACE")
        if negation not in get_args(Negation):
            raise unknown_name("negation", negation, get_args(Negation), "LACE")
        for option, value in (("keep_latent", keep_latent), ("keep_logits", keep_logits), ("noise", noise)):
            if not 0 <= value < math.inf:
                raise ValueError(f"`{option}` must be finite and >= 0, got {value}; 0 leaves it out")
        for option, value in (("spread", spread), ("tolerance", tolerance), ("step_size", step_size)):
            if not 0 < value < math.inf:
                raise ValueError(f"`{option}` must be finite and > 0, got {value}; the authors have 0.1, 1e-3 and 0.01")
        if not 0 <= beta_min <= beta_max < math.inf:
            raise ValueError(
                f"`beta_min` and `beta_max` must be 0 <= beta_min <= beta_max, got {beta_min} and {beta_max}; "
                "the authors have 0.1 and 20"
            )
        if steps < 1:
            raise ValueError(f"`steps` must be >= 1, got {steps}; the authors have 100")
        super().__init__(checkpoint)
        self.sampler, self.negation, self.spread = sampler, negation, spread
        self.keep_latent, self.keep_logits = keep_latent, keep_logits
        self.beta_min, self.beta_max, self.tolerance = beta_min, beta_max, tolerance
        self.steps, self.step_size, self.noise, self.seed = steps, step_size, noise, seed

    def edit(self, z_0: Float[Tensor, "batch *latent"], request: EditRequest) -> EditResult:
        """See `Editor`. Labels are not used: what shall be kept are the classifiers' outputs at the source.

        Raises:
            ValueError: latents of another shape, a formula of another schema or one that cannot hold, or a strength as
                `strength_per_row` refuses.
            RuntimeError: before `fit`, or under torch.inference_mode.
        """
        schema = self.classifier.schema
        check_shape(z_0, self.classifier.latent_shape)
        strength = strength_per_row(request.strength, z_0)
        self._check(*request.edits)
        freed = schema.freed_by(request.attributes)
        others = [name for name in schema.names if name not in freed] if self.keep_logits else []
        classifier = self.classifier.restricted((*request.attributes, *others))  # of freed details nothing is asked
        with torch.no_grad():
            source = self.kept(_outputs(classifier, z_0), others)
        conjuncts = [pair for formula in request.edits for pair in formula.conjuncts]

        def energy(z: Tensor, rows: Tensor) -> Tensor:
            outputs = _outputs(classifier, z)
            preservation = self.preservation(z - z_0[rows], self.kept(outputs, others) - source[rows])
            return self.condition(conjuncts, outputs, strength.flatten()[rows]) + preservation

        rng = torch.Generator().manual_seed(self.seed)

        def draw() -> Tensor:
            return randn((1, *z_0.shape[1:]), rng, dtype=z_0.dtype, device=z_0.device).expand_as(z_0)

        return EditResult(torch.where(strength > 0, self._climb(energy, z_0, draw), z_0), request)

    def can_generate(self, formula: Formula) -> bool:
        """Every formula has an energy."""
        return True

    def generate(
        self,
        formula: Formula,
        z_0: Float[Tensor, "batch *latent"],
        randomness: Randomness = None,
        strength: float | Tensor = 1.0,
    ) -> Float[Tensor, "batch *latent"]:
        """See `Baseline`. It starts from N(0, I), which is LACE's prior; of `z_0` only the shape is used.

        Raises:
            ValueError: as `edit`.
            RuntimeError: before `fit`, or under torch.inference_mode.
        """
        check_shape(z_0, self.classifier.latent_shape)
        weight = strength_per_row(strength, z_0).flatten()
        self._check(formula)
        classifier = self.classifier.restricted(formula.attributes)

        def energy(z: Tensor, rows: Tensor) -> Tensor:
            return self.condition(formula.conjuncts, _outputs(classifier, z), weight[rows])

        def draw() -> Tensor:
            return randn(z_0.shape, randomness, dtype=z_0.dtype, device=z_0.device)

        return self._climb(energy, draw(), draw)

    def condition(
        self, conjuncts: Iterable[tuple[Formula, float]], outputs: HeadOutputs, strength: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """sum_i w_i E(c_i), (B,); a strength (B,) weighs the sum up to 1, and sharpens its energies from 1 on."""
        sharpness = strength.clamp(min=1.0)
        total = torch.stack([weight * self.energy(formula, outputs, sharpness) for formula, weight in conjuncts]).sum(0)
        return strength.clamp(max=1.0) * total

    def energy(
        self, formula: Formula, outputs: HeadOutputs, sharpness: Tensor | float = 1.0
    ) -> Float[Tensor, " batch"]:
        """E of a formula without weights, (B,), by LACE's logic; larger is better.

        Args:
            formula: any; the operands of OR are taken from left to right.
            outputs: of the classifiers.
            sharpness: of the atoms' energies, one number or (B,); see the module.

        Raises:
            ValueError: an atom that no value can satisfy.
        """
        if isinstance(formula, Atom):
            return atom_energy(formula, True, outputs[formula.name], self.spread, sharpness)
        if isinstance(formula, Not):
            inner = formula.operand
            if isinstance(inner, Not):
                return self.energy(inner.operand, outputs, sharpness)
            if isinstance(inner, Atom) and self.negation == "value":
                return atom_energy(inner, False, outputs[inner.name], self.spread, sharpness)
            return negated(self.energy(inner, outputs, sharpness))
        if not isinstance(formula, And | Or):
            raise TypeError(f"LACE knows atoms, ~, & and |, got {type(formula).__name__}; build formulas with `parse`")
        total, *others = (self.energy(operand, outputs, sharpness) for operand in formula.operands)
        for other in others:
            total = total + other if isinstance(formula, And) else either(total, other)
        return total

    def kept(self, outputs: HeadOutputs, names: Sequence[str]) -> Float[Tensor, "batch kept"]:
        """The logits of attributes that shall be kept, side by side; of a continuous one the mean: LACE has no more."""
        first, *_ = outputs.values()
        parts = [first.new_zeros(len(first), 0)]
        for name in names:
            logits = outputs[name].unsqueeze(-1).flatten(1)  # also where there is one output a row
            parts.append(logits[:, :1] if self.classifier.schema[name].kind == "continuous" else logits)
        return torch.cat(parts, 1)

    def preservation(
        self, moved: Float[Tensor, "batch *latent"], changed: Float[Tensor, "batch kept"]
    ) -> Float[Tensor, " batch"]:
        """-0.04 (|w - w_src|^2 + |z - z_src|^2) - 0.01 sum_j |f_j(z) - f_j(z_src)|^2, at most 0.

        Args:
            moved: z - z_src.
            changed: the difference of the logits that shall be kept.
        """
        near = 2 * moved.square().flatten(1).sum(1)  # w is z
        return -self.keep_latent * near - self.keep_logits * changed.square().sum(1)

    def beta(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Linear from `beta_min` at t = 0 to `beta_max` at t = 1."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def velocity(
        self, energy: Energy, z: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"], rows: Tensor
    ) -> Float[Tensor, "batch *latent"]:
        """dz/dt = -beta(t)/2 grad_z energy. Raises ValueError for a gradient that is not finite."""
        return -0.5 * expand(self.beta(t), z) * slope(energy, z, rows)

    def _climb(self, energy: Energy, z: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        """From z to where the sampler ends."""
        if self.sampler == "ode":
            return integrate(partial(self.velocity, energy), z, 1.0, STOP, self.tolerance)
        rows = torch.arange(len(z), device=z.device)
        return langevin(
            lambda z: slope(energy, z, rows) - z, z, self.steps, self.step_size, self.noise, draw
        )  # here the prior does not cancel

    def _check(self, *formulas: Formula) -> None:
        for atom in (atom for formula in formulas for atom in formula.atoms()):
            check_atom(atom, self.classifier.schema)


def atom_energy(
    atom: Atom, holds: bool, output: Tensor, spread: float, sharpness: Tensor | float = 1.0
) -> Float[Tensor, " batch"]:
    """E of an atom, or of its negation by the values that remain, (B,): at sharpness 1 its log-probability.

    Args:
        atom: which.
        holds: whether it shall.
        output: of its attribute's head, binary (B,), categorical (B, C), continuous (B, 2).
        spread: s of a continuous attribute.
        sharpness: of discrete energies the inverse of LACE's temperature, of continuous ones a factor.

    Raises:
        ValueError: no value is left, or a target such as `age=0.7` is negated.
    """
    if isinstance(atom, Near):
        if not holds:
            raise ValueError(f"'~{atom}' leaves open where to; ask for a side, such as {atom.name}>{atom.value:g}")
        return -0.5 * sharpness * ((output[:, 0] - atom.value) / spread).square()
    if isinstance(atom, Beyond):
        above = (output[:, 0] - atom.threshold) / spread
        return sharpness * torch.special.log_ndtr(above if atom.above == holds else -above)
    if isinstance(atom, Has):
        logits = torch.stack((-output, output), 1) / 2  # the two logits that LACE has
        values = [int(holds)]
    elif isinstance(atom, OneOf):
        logits = output
        values = [i for i in range(output.shape[1]) if (i in atom.indices) == holds]
    else:
        raise TypeError(f"LACE knows the atoms that `parse` gives, got {type(atom).__name__}")
    if not values:
        raise ValueError(f"the formula must be one that can hold, got '~{atom}', which leaves {atom.name!r} no value")
    return sharpness * logits[:, values].logsumexp(1) - logits.logsumexp(1)


def either(left: Float[Tensor, " batch"], right: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """LACE's OR, log(20 e^left + e^right): not symmetric."""
    return torch.logaddexp(left + math.log(LEFT), right)


def negated(energy: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """LACE's NOT, -min(1, 0.1 / |E|) E, whose factor is not differentiated: else the gradient would mostly be zero."""
    return -(NEGATED / energy.detach().abs()).clamp(max=1.0) * energy


def langevin(
    score: Callable[[Tensor], Tensor],
    z: Float[Tensor, "batch *latent"],
    steps: int,
    step_size: float,
    noise: float,
    draw: Callable[[], Tensor],
) -> Float[Tensor, "batch *latent"]:
    """z' = z + step_size score(z) + noise xi, again and again; xi comes from `draw`.

    Langevin dynamics at the temperature noise^2 / (2 step_size), which with the authors' numbers is 0.005.
    """
    for _ in range(steps):
        z = z + step_size * score(z) + noise * draw()
    return z


def _outputs(classifier: LatentClassifier, z: Tensor) -> HeadOutputs:
    """In the precision of z."""
    outputs = classifier(z.to(next(classifier.parameters()).dtype))
    return {name: output.to(z.dtype) for name, output in outputs.items()}


def slope(energy: Energy, z: Float[Tensor, "batch *latent"], rows: Tensor) -> Float[Tensor, "batch *latent"]:
    """grad_z of the energy. Raises ValueError where it is not finite."""
    parts = zip(z.split(AT_ONCE), rows.split(AT_ONCE), strict=True)
    grad = torch.cat([_gradient(energy, part, own) for part, own in parts])
    if not bool(torch.isfinite(grad).all()):
        row = int(rows[~torch.isfinite(grad.flatten(1)).all(1)][0])
        raise ValueError(
            f"the energy's gradient must be finite, got NaN or infinity in row {row}; check that the latents and the "
            "classifiers' weights are finite"
        )
    return grad


def _gradient(energy: Energy, z: Tensor, rows: Tensor) -> Tensor:
    return gradient(lambda z: energy(z, rows), z)

"""Composable Diffusion: classifier-free guidance by several conditions at once, each with its own score.

    eps_hat = eps(z_t) + sum_i w_i (eps(z_t | c_i) - eps(z_t)),          NOT c_i: -w_i for w_i

(Liu et al. 2022, arXiv:2206.01714), the score of q(z_t) prod_i (q(z_t | c_i) / q(z_t))^{w_i}, from one network trained
with labels dropped (Ho & Salimans 2022, arXiv:2207.12598; `lcg.nets.conditional`). There is no OR: a sum of scores is a
product of densities. At t > 0 that product is not what noising makes of the product at t = 0, so that already w = 1 is
biased for two dependent conditions; one condition with w = 1 is exact. A negative weight divides by q(z_t | c), which
repels from c and does not say where to: it is not the density of "not c".

Markov chains at each level, as in Reduce, Reuse, Recycle (Du et al. 2023, arXiv:2302.11552), take that bias away
(`mcmc`; `lcg.diffusion.correctors`). Its MALA needs log-densities, for which its networks are energies. The network of
a checkpoint here is a score and no gradient of anything, so that MALA is refused for it and left to models that know
their density; ULA needs scores only. The authors' published MALA has 2 h^2 for the 4 h in the proposal's exponent and
takes one decision for the whole batch, so that it samples another density; lcg's has and does neither.

Editing is not in these papers. We do what users of such models do: the source is inverted deterministically by DDIM
(Song et al. 2021, arXiv:2010.02502, section 4.3), or noised to t_start (SDEdit, Meng et al. 2022, arXiv:2108.01073),
and sampled again with the edits as conditions of the formula, beside one of w = 1 that holds all labels of the source
that no edit touches. The inversion is given that one too, so that without edits the path leads back.

Departures: latents of a generator for pixels; the network's size and training (`lcg.modules.conditional`). Labels are
one network's separate conditions, where the authors encode one object or one sentence. A continuous atom (`age>0.6`,
`age=0.7`) is the condition that the attribute has the mean of all training labels for which the atom holds. A negated
atom is a negative weight in samples, as in the source, but in edits the condition that a binary attribute is 0: the
network was trained on it, and on the avatars -w changes more of what should stay. Steps per level are the 20 published
with Du et al.; their step size is 2 beta_t, relative to sigma_t^2 largest where noise is least, ours is the same
everywhere. Edits have no chains, which would forget the source. Samples are not clipped, as latents have no bounds.
"""

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from typing import Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.contract import (
    Baseline,
    Training,
    check_shape,
    is_conjunction,
    literals,
    pretrained,
    strength_per_row,
    when_fitted,
)
from lcg.baselines.contract import Literal as Condition
from lcg.diffusion import (
    DDIM,
    MALA,
    Corrector,
    Langevin,
    PredictorCorrector,
    Randomness,
    Sampler,
    Schedule,
    diffuse,
    expand,
    generators,
    randn,
    score_from_eps,
)
from lcg.editing.contract import EditRequest, EditResult
from lcg.editing.guided import CLEAN
from lcg.guidance import Formula
from lcg.guidance.formula import Has, OneOf
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import predict_labels
from lcg.schema import Schema, unknown_name

Chain = Literal["none", "ula", "mala"]
Negation = Literal["weight", "label"]
Start = Literal["inversion", "noising"]
Keep = Literal["context", "concept", "none"]


class ConditionalModel(Protocol):
    """eps_hat of z_t given labels, such as `lcg.nets.conditional.ConditionalDenoiser`.

    Attributes:
        latent_shape: of one latent.
        schema: the labels' columns.
        schedule: of the noise.
    """

    latent_shape: tuple[int, ...]
    schema: Schema
    schedule: Schedule

    def __call__(self, z_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """eps_hat (B, *latent); labels (B, A), NaN where z_t is not conditioned on the attribute."""
        ...


@runtime_checkable
class ConditionalDensity(Protocol):
    """A conditional model that also knows log q(z_t | labels), (B,), up to a constant that may depend on t."""

    def log_prob(self, z_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor: ...


class ComposedDenoiser:
    """A `Denoiser`: eps(z_t | base) + sum_i w_i (eps(z_t | c_i) - eps(z_t | base)), by one evaluation of the model.

    Args:
        model: eps_hat given labels.
        base: labels (B, A) or (1, A) of the score that all others are compared with; all NaN in the source.
        conditions: the labels c_i of each condition, (B, A) or (1, A).
        weights: w_i of each, a number or one per row (B,).
    """

    def __init__(
        self, model: ConditionalModel, base: Tensor, conditions: Sequence[Tensor], weights: Sequence[float | Tensor]
    ) -> None:
        self.model, self.labels, self.weights = model, (base, *conditions), tuple(weights)

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self._compose(self.model, z_t, t)

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        """log q(z_t | base) + sum_i w_i (log q(z_t | c_i) - log q(z_t | base)) (B,), for a `ConditionalDensity`."""
        return self._compose(self.model.log_prob, z_t, t)  # type: ignore[attr-defined]  # `use` sees to it

    def score(self, z_t: Tensor, t: Tensor) -> Tensor:
        """-eps_hat / sigma_t (B, *latent)."""
        return score_from_eps(self.model.schedule, z_t, t, self(z_t, t))

    def _compose(self, what: Callable[[Tensor, Tensor, Tensor], Tensor], z_t: Tensor, t: Tensor) -> Tensor:
        """The same linear combination of whatever the model says given labels."""
        count, batch = len(self.labels), len(z_t)
        labels = torch.cat([y.to(z_t).expand(batch, -1) for y in self.labels])
        times = t[:1].expand(count * batch) if t.stride(0) == 0 else t.repeat(count)
        base, *given = what(z_t.repeat(count, *(1,) * (z_t.ndim - 1)), times, labels).unflatten(0, (count, batch))
        total = base
        for weight, value in zip(self.weights, given, strict=True):
            w = expand(weight, value) if isinstance(weight, Tensor) else weight
            total = total + w * (value - base)
        return total


class ComposableDiffusion(Baseline):
    """See the module. Edits and generates conjunctions of literals.

    The unit of strength is `weight`: every w_i is weight * strength * the conjunct's own weight.

    Args:
        checkpoint: the conditional prior that `lcg fit --config configs/baseline/conditional.yaml` wrote.
        weight: w of each condition; 7.5 with the authors' composition of Stable Diffusion, 10 elsewhere.
        negation: in samples, `weight` for the source's -w, `label` for the condition that a binary attribute is 0, or
            that a categorical one has the only other value; where there is no such label, -w.
        steps: noise levels; 50 as with Stable Diffusion, the authors' other examples take 100.
        eta: of DDIM in samples, in [0, 1]; 1 is ancestral sampling, as in the authors' other examples.
        mcmc: chain at each noise level in samples; edits have none, as it forgets the source.
        mcmc_steps: of the chain at each level.
        mcmc_step_size: in units of sigma_t^2.
        start: of edits, the deterministic inversion of the source or the source noised.
        t_start: where edits start, in (0, 1).
        keep: labels of the source that no edit touches, in edits: `concept` makes them together one more condition of
            the formula, with w = 1; `context` gives them to all scores; `none` leaves them out. The inversion is given
            them in either case.
        seed: of the noise of `start="noising"`, the same for every row.

    Raises:
        ValueError: an unknown option, or a number out of range.
    """

    name = "composable"
    strengths: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.5, 2.0)

    def __init__(
        self,
        checkpoint: str | PathLike[str] = "runs/demo/baselines/conditional.ckpt",
        weight: float = 7.5,
        negation: Negation = "weight",
        steps: int = 50,
        eta: float = 0.0,
        mcmc: Chain = "none",
        mcmc_steps: int = 20,
        mcmc_step_size: float = 0.1,
        start: Start = "inversion",
        t_start: float = 0.995,
        keep: Keep = "concept",
        seed: int = 0,
    ) -> None:
        options: tuple[tuple[str, str, Any], ...] = (
            ("negation", negation, Negation),
            ("mcmc", mcmc, Chain),
            ("start", start, Start),
            ("keep", keep, Keep),
        )
        for option, value, known in options:
            if value not in get_args(known):
                raise unknown_name(option, value, get_args(known), "Composable Diffusion")
        if not 0 < weight < float("inf"):
            raise ValueError(f"`weight` must be positive and finite, got {weight}; the authors' is 7.5")
        if not 0 < t_start < 1:
            raise ValueError(f"`t_start` must be in (0, 1), got {t_start}; 0.995 inverts the source to noise")
        Langevin(mcmc_steps, mcmc_step_size)  # refuses wrong numbers now rather than when sampling
        self.checkpoint, self.weight, self.negation = fspath(checkpoint), weight, negation
        self.steps, self.eta = steps, eta
        self.mcmc, self.mcmc_steps, self.mcmc_step_size = mcmc, mcmc_steps, mcmc_step_size
        self.start, self.t_start, self.keep, self.seed = start, t_start, keep, seed
        self._model: ConditionalModel | None = None
        self._labels = torch.zeros(0, 0)
        self._classifier: TimeConditionedClassifier | None = None

    def fit(self, training: Training) -> Self:
        """Reads the checkpoint.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: it was trained on another store, or `mcmc` is "mala".
        """
        network = pretrained(self.checkpoint, "conditional_denoiser", training)
        return self.use(network, training.labels, training.classifier)

    def use(
        self,
        model: ConditionalModel,
        labels: Tensor | None = None,
        classifier: TimeConditionedClassifier | None = None,
    ) -> Self:
        """Takes a conditional model in the place of the checkpoint's; returns itself.

        Args:
            model: eps_hat given labels; for MALA also a `ConditionalDensity`.
            labels: (N, A) of training, which continuous atoms take their value from.
            classifier: reads labels of sources that have none; None to keep what is known of them only.

        Raises:
            ValueError: `mcmc` is "mala" and the model has no density.
        """
        if self.mcmc == "mala" and not isinstance(model, ConditionalDensity):
            raise ValueError(
                "`mcmc`='mala' needs the density of z_t given labels, which a network of scores has not; use 'ula', or "
                "a model with `log_prob`"
            )
        self._model, self._classifier = model, classifier
        self._labels = torch.zeros(0, len(model.schema)) if labels is None else labels
        return self

    @property
    def model(self) -> ConditionalModel:
        """The conditional model. Raises RuntimeError before `fit`."""
        return when_fitted(self._model, self)

    # --- samples ---

    def can_generate(self, formula: Formula) -> bool:
        """Whether it is a conjunction of literals that are single values: nothing else is a product of conditionals."""
        return is_conjunction(formula) and all(not isinstance(a, OneOf) or len(a.indices) == 1 for a in formula.atoms())

    @torch.no_grad()
    def generate(
        self, formula: Formula, z_0: Tensor, randomness: Randomness = None, strength: float | Tensor = 1.0
    ) -> Tensor:
        """See `Baseline`; of z_0 only the number counts. Strength 0 samples the prior.

        Raises:
            ValueError: the formula has an OR or several values in it, or as `condition`.
        """
        check_shape(z_0, self.model.latent_shape)
        wanted = literals([formula], self.model.schema, self.name)
        composed = self.composed(wanted, strength_per_row(strength, z_0).flatten(), negation=self.negation)
        sampler = self._sampler(composed)
        noise = randn(z_0.shape, randomness, dtype=z_0.dtype, device=z_0.device)
        return sampler.sample(composed, noise, randomness)

    def composed(
        self,
        wanted: Sequence[Condition],
        strength: Tensor | float = 1.0,
        context: Tensor | None = None,
        negation: Negation = "weight",
    ) -> ComposedDenoiser:
        """The composed score.

        Args:
            wanted: literals.
            strength: multiplies `weight`, a number or one per row (B,).
            context: labels (B, A) that all scores are given; None for none.
            negation: of negated literals, see the class.

        Raises:
            ValueError: as `condition`.
        """
        base = self._nothing() if context is None else context
        conditions, weights = [], []
        for literal in wanted:
            value, sign = self.condition(literal, negation)
            given = base.clone()
            given[:, literal.atom.column] = value
            conditions.append(given)
            weights.append(sign * literal.weight * self.weight * strength)
        return ComposedDenoiser(self.model, base, conditions, weights)

    def condition(self, literal: Condition, negation: Negation = "weight") -> tuple[float, float]:
        """The label that a literal conditions on, and the sign of its weight.

        Raises:
            ValueError: a categorical atom of several values, which would be an OR; or a continuous one that holds for
                no training label.
        """
        atom = literal.atom
        if isinstance(atom, Has):
            return (0.0, 1.0) if not literal.positive and negation == "label" else (1.0, literal.sign)
        if isinstance(atom, OneOf):
            others = {*range(len(atom.attribute.values))} - {*atom.indices}
            if not literal.positive and negation == "label" and len(others) == 1:
                return float(others.pop()), 1.0
            if len(atom.indices) > 1:
                raise ValueError(
                    f"Composable Diffusion has no OR, and so no condition for {str(literal)!r}; ask for one value, "
                    "or use lcg"
                )
            return float(atom.indices[0]), literal.sign
        true, false = atom.verdict(self._labels)
        turned = not literal.positive and negation == "label"
        values = self._labels[false if turned else true, atom.column]
        if len(values) == 0:
            raise ValueError(f"there is no training label for which {str(literal)!r} holds, so it has no condition")
        return float(values.double().mean()), 1.0 if turned else literal.sign

    def _sampler(self, composed: ComposedDenoiser) -> Sampler:
        schedule = self.model.schedule
        if self.mcmc == "none":
            return DDIM(schedule, self.steps, eta=self.eta)
        corrector: Corrector = Langevin(self.mcmc_steps, self.mcmc_step_size)
        if self.mcmc == "mala":
            corrector = MALA(composed.log_prob, composed.score, self.mcmc_steps, self.mcmc_step_size)
        return PredictorCorrector(schedule, self.steps, eta=self.eta, corrector=corrector)

    # --- edits ---

    @torch.no_grad()
    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        """See `Editor`. Sources of strength 0 come back as they are.

        Raises:
            ValueError: as `condition`, or labels or a strength that do not fit the sources.
        """
        check_shape(z_0, self.model.latent_shape)
        strength = strength_per_row(request.strength, z_0)
        wanted = literals(request.edits, self.model.schema, self.name)
        kept = self.kept_labels(z_0, request)
        context = None if self.keep == "concept" else kept
        guided = self.composed(wanted, strength.flatten(), context, "label")
        if self.keep == "concept":
            nothing, *conditions = guided.labels
            guided = ComposedDenoiser(self.model, nothing, [*conditions, kept], [*guided.weights, 1.0])
        sampler = DDIM(self.model.schedule, self.steps)
        edited = sampler.sample(guided, self._noised(z_0, kept, sampler), t_start=self.t_start)
        return EditResult(torch.where(strength > 0, edited, z_0), request)

    def kept_labels(self, z_0: Tensor, request: EditRequest) -> Tensor:
        """(B, A): the source's labels, known or read by the classifier; NaN for what the edits set free."""
        schema = self.model.schema
        labels = self._nothing().to(z_0).repeat(len(z_0), 1)
        if self.keep == "none":
            return labels
        if self._classifier is not None:
            t = torch.full((len(z_0),), CLEAN, dtype=z_0.dtype, device=z_0.device)
            labels = predict_labels(schema, self._classifier(z_0, t)).to(z_0)
        if request.labels is not None:
            known = request.labels.to(labels)
            if known.shape != labels.shape:
                raise ValueError(
                    f"`labels` of the request must have shape {tuple(labels.shape)}, one row per source, got "
                    f"{tuple(known.shape)}"
                )
            labels = torch.where(known.isnan(), labels, known)
        for j, attribute in enumerate(schema):  # the classifier's beard colour of a beard that is known not to be there
            for parent, value in attribute.applies_if.items():
                parents = labels[:, schema.index(parent)]
                labels[~parents.isnan() & (parents != float(value)), j] = torch.nan
        labels[:, [schema.index(name) for name in schema.freed_by(request.attributes)]] = torch.nan
        return labels

    def _noised(self, z_0: Tensor, kept: Tensor, sampler: DDIM) -> Tensor:
        """Where an edit starts, (B, *latent) at t_start; inverted by what the unguided path would be."""
        if self.start == "inversion":
            return self._inverted(z_0, kept, sampler)
        noise = randn(z_0.shape, generators([self.seed] * len(z_0)), dtype=z_0.dtype, device=z_0.device)
        t = torch.full((len(z_0),), self.t_start, dtype=z_0.dtype, device=z_0.device)
        return diffuse(self.model.schedule, z_0, t, noise)

    def _inverted(self, z_0: Tensor, kept: Tensor, sampler: DDIM) -> Tensor:
        """The noise of each source; one that comes several times, as with several strengths, is inverted once."""
        both = torch.cat((z_0.flatten(1), kept.nan_to_num(torch.inf)), 1)  # NaN would be unlike NaN
        both, back = both.unique(dim=0, return_inverse=True)
        sources, labels = both.tensor_split((-kept.shape[1],), 1)
        labels = labels.where(labels.isfinite(), torch.nan)
        noise = sampler.invert(
            ComposedDenoiser(self.model, labels, (), ()), sources.unflatten(1, z_0.shape[1:]), self.t_start
        )
        return noise[back]

    def _nothing(self) -> Tensor:
        """(1, A): no condition."""
        return torch.full((1, len(self.model.schema)), torch.nan)

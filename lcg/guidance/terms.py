"""Terms: the log-probabilities that guidance climbs.

    s(z_t) = s_theta(z_t, t) + sum_i w_i grad_{z_t} log p_phi(y_i | z_t, t)

(Shi et al. 2023, arXiv:2304.12536; Dhariwal & Nichol 2021, arXiv:2105.05233, section 4.2). A classifier of noised
latents is evaluated once per step; readouts turn its outputs into log-probabilities, of a formula or of labels to
keep; their weighted sum is differentiated once, whatever their number. Nets may run under autocast: from the outputs
on, everything is in float32 at least.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lcg.diffusion.process import Denoiser, prepare
from lcg.guidance.formula import Formula
from lcg.guidance.probability import CompiledFormula
from lcg.nets.heads import (
    HeadOutputs,
    Outputs,
    expected_log_likelihood,
    in_float,
    independent,
    log_likelihood,
    tensors,
)
from lcg.schema import Attribute, Schema, unknown_name

Classifier = Callable[[Tensor, Tensor], Outputs]
"""classifier(z_t, t) -> outputs of its heads, independent or joint; such as `lcg.nets.TimeConditionedClassifier`."""

Readout = Callable[[Outputs], Tensor]
"""readout(outputs) -> log-probability (B,)."""

Dependence = Literal["joint", "independent"]
"""How several attributes are read: from a joint head where there is one, or each by itself."""


@dataclass(frozen=True)
class TermAt:
    """A term at one time.

    Attributes:
        log_prob: (B, *latent) -> (B,), differentiable.
        score: its gradient, (B, *latent), where the term knows it; None where it is to be differentiated.
    """

    log_prob: Callable[[Tensor], Tensor]
    score: Callable[[Tensor], Tensor] | None = None


class Term(ABC):
    """A log-probability of something given z_t; larger is better.

    A term that knows its gradient overrides `score`. All others are added up and differentiated together by the guided
    denoiser. One that can compute something beforehand when it knows the times overrides `prepare`.
    """

    @abstractmethod
    def log_prob(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The log-probability of each row, differentiable in z_t; row i depends on row i only."""

    def score(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch *latent"]:
        """grad_{z_t} log_prob, (B, *latent), detached.

        Raises:
            RuntimeError: called under torch.inference_mode.
        """
        return gradient(lambda z: self.log_prob(z, t), z_t)

    def at(self, t: Float[Tensor, " batch"]) -> TermAt:
        """The term at a time for each row."""
        own = partial(self.score, t=t) if type(self).score is not Term.score else None
        return TermAt(partial(self.log_prob, t=t), own)

    def prepare(self, times: Float[Tensor, " steps"]) -> list[TermAt]:
        """The term at each of a sampler's times, at which all rows are."""
        own = prepare(self.score, times) if type(self).score is not Term.score else [None] * len(times)
        return [TermAt(*both) for both in zip(prepare(self.log_prob, times), own, strict=True)]


class PriorTerm(ABC):
    """A term that conditions the prior itself, through the denoiser's own prediction at z_t.

    Args:
        denoiser: the prior's; the guided denoiser shares its evaluation when it guides the same object.
        needs_jacobian: whether `condition` differentiates eps_hat.
    """

    def __init__(self, denoiser: Denoiser, needs_jacobian: bool) -> None:
        self.denoiser, self.needs_jacobian = denoiser, needs_jacobian

    @abstractmethod
    def condition(
        self,
        z_t: Float[Tensor, "batch *latent"],
        alpha: float | Tensor,
        sigma: float | Tensor,
        eps_hat: Float[Tensor, "batch *latent"],
        guidance: Float[Tensor, "batch *latent"],
    ) -> Float[Tensor, "batch *latent"]:
        """The guidance with this term, given that without it.

        Args:
            z_t: noised latents.
            alpha: alpha_t of all rows, or of each (B, 1, ...).
            sigma: sigma_t likewise.
            eps_hat: the denoiser's prediction, with its graph back to z_t if `needs_jacobian`.
            guidance: the weighted sum of the other terms' scores.

        Returns:
            What is to be added to the prior's score.
        """


class ClassifierTerm(Term):
    """sum_i w_i log p_i(z_t), all read from one evaluation of a classifier of noised latents.

    Args:
        classifier: maps (z_t, t) to raw outputs by attribute.
        readouts: pairs of a readout and its weight w >= 0, a number or one per row (B,).

    Raises:
        ValueError: no readouts, or a negative weight; while sampling, outputs that are not finite.
    """

    def __init__(self, classifier: Classifier, readouts: Sequence[tuple[Readout, float | Tensor]]) -> None:
        if not readouts:
            raise ValueError("`readouts` must hold at least one (readout, weight), got none; leave the term out")
        for _, weight in readouts:
            refuse_negative(weight, "weight")
        self.classifier, self.readouts = classifier, tuple(readouts)

    def log_prob(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The weighted sum (B,) in float32 at least.

        Raises:
            ValueError: it is not finite for some row.
            RuntimeError: the classifier's outputs are cut off from z_t.
        """
        total, outputs = self._read(self.classifier(z_t, t), z_t)
        if not torch.isfinite(total).all():
            raise ValueError(self._not_finite(outputs, total.detach(), t))
        return total

    def prepare(self, times: Float[Tensor, " steps"]) -> list[TermAt]:
        """See `Term`. Values that are not finite are left to the guided denoiser to notice."""
        return [TermAt(partial(self._read_at, outputs)) for outputs in prepare(self.classifier, times)]

    def _read_at(self, outputs: Callable[[Tensor], Outputs], z_t: Tensor) -> Tensor:
        return self._read(outputs(z_t), z_t)[0]

    def _read(self, outputs: Outputs, z_t: Tensor) -> tuple[Tensor, Outputs]:
        """The weighted sum of all readouts, and the outputs in the precision that they were read in."""
        if torch.is_grad_enabled() and z_t.requires_grad and not any(o.requires_grad for _, o in tensors(outputs)):
            raise RuntimeError("the classifier's outputs have no gradient; run it without torch.no_grad() or detach()")
        with torch.autocast(z_t.device.type, enabled=False):
            outputs = in_float(outputs)
            total: Tensor = sum(
                (weighted(readout(outputs), weight) for readout, weight in self.readouts), z_t.new_zeros(())
            )
        return total, outputs

    def _not_finite(self, outputs: Outputs, total: Tensor, t: Tensor) -> str:
        row = int(torch.nonzero(~torch.isfinite(total))[0])
        bad = [repr(name) for name, output in tensors(outputs) if not torch.isfinite(output[row]).all()]
        cause = (
            f"the classifier's output for {', '.join(bad)} is not finite" if bad else "the log-probability overflows"
        )
        return (
            f"the log-probability must be finite, got {float(total[row])} in row {row} at t = {float(t[row]):.4g}: "
            f"{cause}; check the classifier's weights, and that the latents are standardised"
        )


class LayeredTerm(Term):
    """Another term whose gradient acts on the layers of a latent (L, ...) with a weight each.

    For latents such as StyleGAN's W+, of which coarse, middle and fine layers may be steered apart (Karras et al. 2019,
    arXiv:1812.04948, section 3.1). Layers of weight 0 are left to the prior and to what keeps the source.

    Args:
        term: what is climbed.
        layers: (L,) weights >= 0.

    Raises:
        ValueError: a negative weight; while sampling, latents of another number of layers.
    """

    def __init__(self, term: Term, layers: Float[Tensor, " layers"]) -> None:
        refuse_negative(layers, "layers")
        self.term, self.layers = term, layers

    def log_prob(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return self.term.log_prob(z_t, t)

    def score(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch *latent"]:
        return self._weighted(self.term.at(t), z_t)

    def prepare(self, times: Float[Tensor, " steps"]) -> list[TermAt]:
        return [TermAt(inner.log_prob, partial(self._weighted, inner)) for inner in self.term.prepare(times)]

    def _weighted(self, inner: TermAt, z_t: Tensor) -> Tensor:
        if z_t.ndim < 3 or z_t.shape[1] != len(self.layers):
            raise ValueError(
                f"`layers` must be one weight for each layer of the latents, got {len(self.layers)} for latents of "
                f"shape {tuple(z_t.shape[1:])}; leave it out for latents without layers"
            )
        score = gradient(inner.log_prob, z_t) if inner.score is None else inner.score(z_t)
        return self.layers.to(z_t).reshape(-1, *(1,) * (z_t.ndim - 2)) * score


class FormulaReadout:
    """log P(formula | z_t), exact for what the classifier models; see `lcg.guidance.probability`.

    Args:
        formula: what should hold.
        dependence: `joint` reads a joint head. `independent` reads the heads for single attributes, as if these were
            independent given z_t: the usual sum of classifiers, an approximation that is biased wherever they are not.
            A classifier that has no joint head is read alike by both.

    Raises:
        ValueError: the formula, or one of its weighted conjuncts, can never hold; or it always does.
    """

    def __init__(self, formula: Formula, dependence: Dependence = "joint") -> None:
        if dependence not in get_args(Dependence):
            raise unknown_name("dependence", dependence, get_args(Dependence), "a formula's readout")
        self.formula, self.dependence, self.compiled = formula, dependence, CompiledFormula(formula)
        if not self.compiled.satisfiable:
            raise ValueError(f"the formula must be one that can hold, got {str(formula)!r}, which contradicts itself")
        if self.compiled.tautological:
            raise ValueError(
                f"the formula must be one that can fail, got {str(formula)!r}, which always holds or has no weight; "
                "sample without a formula instead"
            )

    def __call__(self, outputs: Outputs) -> Float[Tensor, " batch"]:
        return self.compiled(independent(outputs) if self.dependence == "independent" else outputs)


class LabelReadout:
    """sum_j w_j log p(y_j | z_t): keeps labels as they are, each by itself.

    Args:
        schema: the labels' columns.
        labels: y (B, A), or (1, A) for all rows: binary 0 or 1, categorical the value's index, continuous the value;
            NaN where nothing is asked.
        weights: w >= 0, one number or one per attribute (A,).

    Raises:
        ValueError: a wrong number of columns or weights, a negative weight, or a label that its attribute cannot have.
    """

    def __init__(
        self, schema: Schema, labels: Float[Tensor, "rows attributes"], weights: Float[Tensor, "..."] | float = 1.0
    ) -> None:
        if labels.shape[1] != len(schema):
            raise ValueError(
                f"`labels` must have {len(schema)} columns, one per attribute of the schema, got {labels.shape[1]}; "
                "mark attributes without a label by NaN"
            )
        weights = torch.as_tensor(weights, dtype=torch.float64).cpu()
        if weights.ndim > 1 or (weights.ndim == 1 and len(weights) != len(schema)):
            raise ValueError(
                f"`weights` must be one number or {len(schema)}, one per attribute, got shape {tuple(weights.shape)}"
            )
        refuse_negative(weights, "weights")
        asked = (~labels.isnan()).any(dim=0).cpu() & (weights > 0)
        self.schema, self.labels = schema, labels
        # Only what is asked is ever computed, and all binary attributes together.
        columns = [(j, attribute) for j, attribute in enumerate(schema) if asked[j]]
        for j, attribute in columns:
            _check_labels(attribute, labels[:, j])
        self._binary = [(j, a) for j, a in columns if a.kind == "binary"]
        self._others = [(j, a) for j, a in columns if a.kind != "binary"]
        self._weights: list[float] = weights.expand(len(schema)).tolist()

    def __call__(self, outputs: Outputs) -> Float[Tensor, " batch"]:
        outputs = independent(outputs)
        for _, attribute in (*self._binary, *self._others):
            if attribute.name not in outputs:
                raise unknown_name("attribute", attribute.name, outputs, "the classifier")
        like = next(iter(outputs.values()))
        if len(self.labels) not in (1, len(like)):
            raise ValueError(f"`labels` must have one row or {len(like)}, one per latent, got {len(self.labels)}")
        labels = self.labels.to(like).expand(len(like), -1)
        total = like.new_zeros(len(like))
        for weight in dict.fromkeys(self._weights[j] for j, _ in self._binary):
            group = [(j, a) for j, a in self._binary if self._weights[j] == weight]
            logits = torch.stack([outputs[a.name] for _, a in group], dim=1)
            wanted = torch.stack([labels[:, j] for j, _ in group], dim=1)
            log_p = log_likelihood(group[0][1], logits.flatten(), wanted.flatten())
            total = total + weight * log_p.view_as(logits).sum(dim=1)
        for j, attribute in self._others:
            total = total + self._weights[j] * log_likelihood(attribute, outputs[attribute.name], labels[:, j])
        return total


class BeliefReadout:
    """sum_j E_{y ~ q_j}[log p(y | z_t)]: keeps attributes as uncertain as they are believed to be, each by itself.

    Its maximum over p is p = q: a sure belief asks for its label, as `LabelReadout` does, and one that is torn between
    two values holds the classifier at that instead of taking a side.

    Args:
        schema: the attributes.
        beliefs: q_j by attribute, in the same form as a classifier's outputs (logits; mean and log-variance).
        asked: (B, A) bool, or (1, A) for all rows: which attributes are kept.

    Raises:
        ValueError: a wrong number of columns, or no belief about an attribute that is asked.
    """

    def __init__(self, schema: Schema, beliefs: HeadOutputs, asked: Bool[Tensor, "rows attributes"]) -> None:
        if asked.shape[1] != len(schema):
            raise ValueError(
                f"`asked` must have {len(schema)} columns, one per attribute of the schema, got {asked.shape[1]}"
            )
        columns = [(j, attribute) for j, attribute in enumerate(schema) if bool(asked[:, j].any())]
        for _, attribute in columns:
            if attribute.name not in beliefs:
                raise unknown_name("attribute", attribute.name, beliefs, "the beliefs")
        # Only what is asked is ever computed, and all attributes of a kind together.
        self._binary = [(j, a.name) for j, a in columns if a.kind == "binary"]
        self._categorical = [(j, a) for j, a in columns if a.kind == "categorical"]
        self._continuous = [(j, a) for j, a in columns if a.kind == "continuous"]
        self.beliefs = {a.name: beliefs[a.name].detach() for _, a in columns}
        self.asked = asked
        if self._binary:
            self._sure = torch.stack([self.beliefs[name] for _, name in self._binary], dim=-1).sigmoid()
            self._wanted = asked[:, [j for j, _ in self._binary]]
        if self._categorical:
            # All of them side by side, (B, attributes, values): those with fewer values have impossible ones beside.
            most = max(a.outputs for _, a in self._categorical)
            place = iter(range(sum(a.outputs for _, a in self._categorical)))
            rows = [[next(place) if v < a.outputs else -1 for v in range(most)] for _, a in self._categorical]
            self._places = torch.tensor(rows, device=asked.device)
            sure = [
                functional.pad(self.beliefs[a.name].softmax(-1) * asked[:, j, None], (0, most - a.outputs))
                for j, a in self._categorical
            ]
            self._shares = torch.stack(sure, dim=1)

    def __call__(self, outputs: Outputs) -> Float[Tensor, " batch"]:
        outputs = independent(outputs)
        like = next(iter(outputs.values()))
        total = like.new_zeros(len(like))
        if self._binary:
            logits = torch.stack([outputs[name] for _, name in self._binary], dim=-1)
            sure = self._sure.to(logits).expand_as(logits)
            surprise = functional.binary_cross_entropy_with_logits(logits, sure, reduction="none")
            total = total - torch.where(self._wanted, surprise, 0.0).sum(-1)
        if self._categorical:
            flat = torch.cat([outputs[a.name] for _, a in self._categorical], dim=1)
            log_p = functional.pad(flat, (0, 1), value=-torch.inf)[:, self._places].log_softmax(-1)
            log_p = torch.where(self._places >= 0, log_p, 0.0)  # 0 times -inf is NaN
            total = total + (self._shares.to(log_p) * log_p).sum((1, 2))
        for j, attribute in self._continuous:
            expected = expected_log_likelihood(attribute, outputs[attribute.name], self.beliefs[attribute.name])
            total = total + torch.where(self.asked[:, j], expected, 0.0)
        return total


def weighted(log_p: Float[Tensor, " batch"], weight: float | Tensor) -> Float[Tensor, " batch"]:
    """w log p, row by row where the weight is one per row (B,), and in the precision of log p.

    Raises:
        ValueError: there is neither one weight nor one per row.
    """
    if not isinstance(weight, Tensor):
        return weight * log_p
    if weight.ndim > 1 or (weight.ndim == 1 and len(weight) not in (1, len(log_p))):
        raise ValueError(
            f"`weight` must be one number or {len(log_p)}, one per row, got shape {tuple(weight.shape)}; "
            "give each row its own"
        )
    return weight.to(log_p) * log_p


def gradient(
    log_prob: Callable[[Tensor], Tensor], z_t: Float[Tensor, "batch *latent"]
) -> Float[Tensor, "batch *latent"]:
    """grad_{z_t} of a log-probability (B,) whose rows are independent, so that their sum may be differentiated.

    Zero where the log-probability is a constant, such as that of a formula that always holds.

    Raises:
        RuntimeError: called under torch.inference_mode.
    """
    return value_and_gradient(log_prob, z_t)[1]


def value_and_gradient(
    log_prob: Callable[[Tensor], Tensor], z_t: Float[Tensor, "batch *latent"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *latent"]]:
    """A log-probability (B,), detached, and its `gradient` (B, *latent), by one evaluation."""
    refuse_inference_mode()
    with torch.enable_grad():
        z = leaf(z_t)
        value = log_prob(z)
        if not value.requires_grad:
            return value, torch.zeros_like(z_t)
        (grad,) = torch.autograd.grad(value.sum(), z, materialize_grads=True)
    return value.detach(), grad


def leaf(z_t: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch *latent"]:
    """z_t as a leaf to differentiate by; sharing its memory, unless it was made under inference mode."""
    z = z_t.detach()
    return (z.clone() if z.is_inference() else z).requires_grad_()


def refuse_inference_mode() -> None:
    """Raises RuntimeError where no gradient can be taken."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "guidance needs gradients, and torch.inference_mode() forbids them; "
            "use Trainer(inference_mode=False), or torch.no_grad() instead"
        )


def refuse_negative(weight: float | Tensor, name: str) -> None:
    """Raises ValueError for a weight below zero, or that is not a number."""
    if not bool(torch.as_tensor(weight >= 0).all()):
        raise ValueError(f"`{name}` must be >= 0, got {weight}; to avoid an attribute, negate it in the formula")


def _check_labels(attribute: Attribute, labels: Float[Tensor, " rows"]) -> None:
    known = labels[~labels.isnan()]
    values = {"binary": 2, "categorical": len(attribute.values), "continuous": None}[attribute.kind]
    valid = known.isfinite() if values is None else (known >= 0) & (known < values) & (known == known.floor())
    if not bool(valid.all()):
        expected = "finite" if values is None else f"one of {', '.join(map(str, range(values)))}"
        raise ValueError(
            f"`labels` of {attribute.kind} attribute {attribute.name!r} must be {expected} or NaN, got "
            f"{known[~valid][0].item():g}; use the schema that the labels were made with"
        )

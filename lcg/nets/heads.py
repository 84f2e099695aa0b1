"""What the outputs of attribute heads mean: log-likelihoods of labels, and predictions.

One head per attribute of the schema: a logit u with p(y=1) = sigmoid(u); logits with p(y=c) = softmax(u)_c; or mean and
log-variance of a normal distribution. Plain `HeadOutputs` take attributes to be independent given z_t. Attributes that
are independent given z_0 are not so given z_t, and `JointOutputs` model them together, as a mixture of products,

    p(y | z_t) = sum_k pi_k(z_t) prod_j p(y_j | u_jk(z_t))

(a latent class model, Lazarsfeld & Henry 1968, with z_t in the place of a constant; two components represent every
dependence of two binary attributes, 2^(n-1) of n). The probability of any formula is the sum over k of what independent
heads give, and a missing label (NaN) drops out of its product: no sum over its values is needed, as it would be for an
autoregressive head, and no table that grows as 2^n. Beside the mixture stand independent heads on the same trunk, for
whatever is asked of one attribute alone, and for combinations of which there is no joint distribution to learn.

The logits of an ordinal attribute are the log-probabilities that its cumulative link gives (`lcg.nets.cumulative`).

Everything is computed in float32 at least, with logsigmoid and log_softmax: in float32 log(sigmoid(u)) is -inf at
u = -90 and 1 - sigmoid(u) is 0 at u = 17.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lcg.nets.cumulative import CumulativeLink, network_outputs, tempered_ordinal
from lcg.schema import Attribute, Schema

SURE = 50.0
"""A logit that leaves no doubt in float32, and minus the log-variance of a value that is known."""

HeadOutputs = dict[str, Tensor]
"""Raw outputs by attribute name: binary (B,), categorical (B, C), continuous (B, 2) = (mean, log-variance)."""


@dataclass(frozen=True)
class JointOutputs:
    """A mixture of products over all attributes; see the module's equation.

    Attributes:
        log_weights: log pi_k (B, K), normalised.
        heads: raw outputs of every component, binary (B, K), categorical (B, K, C), continuous (B, K, 2).
        single: raw outputs for each attribute alone, as independent heads give them.
    """

    log_weights: Tensor
    heads: HeadOutputs
    single: HeadOutputs

    def rows(self) -> HeadOutputs:
        """The components one below the other, (B K, ...): independent heads, K rows for each row of the batch."""
        return {name: head.flatten(0, 1) for name, head in self.heads.items()}

    def mix(self, log_p: Float[Tensor, "rows *event"]) -> Float[Tensor, "batch *event"]:
        """log sum_k pi_k exp(log_p_k), (B, ...), of what `rows` gave, (B K, ...)."""
        batch, components = self.log_weights.shape
        log_weights = self.log_weights.reshape(batch, components, *(1,) * (log_p.ndim - 1))
        return (log_weights + log_p.unflatten(0, (batch, components))).logsumexp(1)


Outputs = HeadOutputs | JointOutputs
"""What a classifier of noised latents gives: attributes independent given z_t, or joint."""


def tensors(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the outputs with the name of its attribute; the mixture's weights are `joint`."""
    if isinstance(outputs, JointOutputs):
        yield "joint", outputs.log_weights
        yield from outputs.heads.items()
        outputs = outputs.single
    yield from outputs.items()


def in_float(outputs: Outputs) -> Outputs:
    """The outputs in float32 at least, whatever precision the network ran in."""
    return of_each_tensor(outputs, _float)


def _float(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def of_each_tensor(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The outputs with every tensor changed in the same way."""

    def changed(heads: HeadOutputs) -> HeadOutputs:
        return {name: change(head) for name, head in heads.items()}

    if isinstance(outputs, JointOutputs):
        return JointOutputs(change(outputs.log_weights), changed(outputs.heads), changed(outputs.single))
    return changed(outputs)


def between_levels(log_temperature: Float[Tensor, " levels"], t: Float[Tensor, " times"]) -> Float[Tensor, " times"]:
    """log T(t), linear between evenly spaced levels from t = 0 to t = 1; a sum of hat functions of t."""
    levels = torch.arange(len(log_temperature), dtype=log_temperature.dtype, device=t.device)
    position = t.to(log_temperature).clamp(0, 1) * (len(levels) - 1)
    hats = (1 - (position[:, None] - levels).abs()).clamp(min=0)
    return (hats * log_temperature).sum(1)  # autocast would take a product of matrices to bfloat16


def tempered(schema: Schema, outputs: Outputs, log_temperature: Float[Tensor, " times"]) -> Outputs:
    """u / T for a temperature per row, or one for all; a normal distribution's log-variance becomes that + 2 log T.

    The scale of an ordinal attribute becomes T times as wide, which divides the logits of its cumulative probabilities.

    Weights of a mixture may be normalised before or after: log_softmax(log_softmax(u) / T) = log_softmax(u / T).
    """
    if isinstance(outputs, JointOutputs):
        log_T = log_temperature[:, None]
        return JointOutputs(
            (outputs.log_weights * torch.exp(-log_T)).log_softmax(1),
            _tempered_heads(schema, outputs.heads, log_T),
            _tempered_heads(schema, outputs.single, log_temperature),
        )
    return _tempered_heads(schema, outputs, log_temperature)


def _tempered_heads(schema: Schema, heads: HeadOutputs, log_T: Tensor) -> HeadOutputs:
    cooled: HeadOutputs = {}
    for attribute in schema:
        head = heads[attribute.name]
        if attribute.kind == "binary":
            cooled[attribute.name] = head * torch.exp(-log_T)
        elif attribute.ordered:
            cooled[attribute.name] = tempered_ordinal(head, log_T)
        elif attribute.kind == "categorical":
            cooled[attribute.name] = head * torch.exp(-log_T)[..., None]
        else:
            cooled[attribute.name] = torch.stack((head[..., 0], head[..., 1] + 2 * log_T), dim=-1)
    return cooled


def independent(outputs: Outputs) -> HeadOutputs:
    """Each attribute by itself. That attributes are independent given z_t, with these, is an approximation."""
    return outputs.single if isinstance(outputs, JointOutputs) else outputs


def split_outputs(
    schema: Schema, flat: Float[Tensor, "*batch outputs"], link: CumulativeLink | None = None
) -> HeadOutputs:
    """Cuts the concatenated outputs of all heads, in schema order, into one entry per attribute.

    With a `link`, ordinal attributes have two outputs, of which it makes log-probabilities; else a logit per value.
    """
    outputs: HeadOutputs = {}
    parts = flat.split([a.outputs if link is None else network_outputs(a) for a in schema], dim=-1)
    for attribute, part in zip(schema, parts, strict=True):
        outputs[attribute.name] = part[..., 0] if attribute.kind == "binary" else part
    return outputs if link is None else link(outputs)


def log_likelihood(attribute: Attribute, output: Tensor, label: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """log p(y | output), zero where the label is missing.

    Args:
        attribute: which attribute.
        output: its head's output, binary (B,), categorical (B, C), continuous (B, 2).
        label: (B,), NaN where missing.

    Returns:
        (B,), at most 0 for binary and categorical attributes, a log-density for continuous ones.
    """
    known = ~label.isnan()
    y = torch.where(known, label, torch.zeros_like(label))
    output = output if output.dtype == torch.float64 else output.float()
    # Masked here too, as an overflow in a row without label would come back as 0 * inf = NaN in the gradient.
    output = torch.where(known if output.ndim == 1 else known[:, None], output, torch.zeros_like(output))
    if attribute.kind == "binary":
        log_p = functional.logsigmoid(torch.where(y > 0.5, output, -output))
    elif attribute.kind == "categorical":
        log_p = output.log_softmax(dim=-1).gather(-1, y.long()[:, None])[:, 0]
    else:
        mean, log_variance = output.unbind(-1)
        log_p = -0.5 * ((y - mean) ** 2 * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))
    return torch.where(known, log_p, torch.zeros_like(log_p))


def expected_log_likelihood(attribute: Attribute, output: Tensor, belief: Tensor) -> Float[Tensor, " batch"]:
    """E_{y ~ q}[log p(y | output)] for a belief q: minus their cross-entropy.

    Args:
        attribute: which attribute.
        output: its head's output, binary (B,), categorical (B, C), continuous (B, 2).
        belief: q in the same form, of as many rows, or one for all.

    Returns:
        (B,), at most 0 for binary and categorical attributes.
    """
    output, belief = _float(output), _float(belief)
    if attribute.kind == "binary":
        return torch.sigmoid(belief) * functional.logsigmoid(output) + torch.sigmoid(-belief) * functional.logsigmoid(
            -output
        )
    if attribute.kind == "categorical":
        return (belief.softmax(-1) * output.log_softmax(-1)).sum(-1)
    (mean, log_variance), (centre, log_spread) = output.unbind(-1), belief.unbind(-1)
    square = (centre - mean) ** 2 + torch.exp(log_spread)
    return -0.5 * (square * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))


def log_likelihoods(
    schema: Schema, outputs: HeadOutputs, labels: Float[Tensor, "batch attributes"]
) -> Float[Tensor, "batch attributes"]:
    """`log_likelihood` of every attribute; column j belongs to attribute j of the schema."""
    return torch.stack([log_likelihood(a, outputs[a.name], labels[:, j]) for j, a in enumerate(schema)], dim=1)


def joint_log_likelihood(
    schema: Schema, outputs: Outputs, labels: Float[Tensor, "batch attributes"]
) -> Float[Tensor, " batch"]:
    """log p(y | outputs) of all known labels of a row together, (B,); 0 when none is known."""
    if not isinstance(outputs, JointOutputs):
        return log_likelihoods(schema, outputs, labels).sum(1)
    labels = labels.repeat_interleave(outputs.log_weights.shape[1], dim=0)
    return outputs.mix(log_likelihoods(schema, outputs.rows(), labels).sum(1))


def mean_negative_log_likelihood(
    schema: Schema, outputs: Outputs, labels: Float[Tensor, "batch attributes"]
) -> Float[Tensor, ""]:
    """The loss of a classifier: -log p(y) per known label, averaged over a batch; 0 when none is known.

    Of joint outputs it is the mean of two losses, the mixture's and that of the heads for single attributes.
    """
    log_p = log_likelihoods(schema, independent(outputs), labels).sum(1)
    if isinstance(outputs, JointOutputs):
        log_p = (log_p + joint_log_likelihood(schema, outputs, labels)) / 2
    return -log_p.sum() / (~labels.isnan()).sum().clamp(min=1)


def known_outputs(schema: Schema, outputs: HeadOutputs, labels: Float[Tensor, "batch attributes"]) -> HeadOutputs:
    """The outputs with certainty in the place of those whose label is known (not NaN)."""
    changed = dict(outputs)
    for j, attribute in enumerate(schema):
        known, output = ~labels[:, j].isnan(), outputs[attribute.name]
        label = torch.where(known, labels[:, j], 0.0).to(output)
        if attribute.kind == "binary":
            certain = torch.where(label > 0.5, SURE, -SURE)
        elif attribute.kind == "categorical":
            certain = SURE * functional.one_hot(label.long(), output.shape[-1]).to(output)
        else:
            certain = torch.stack((label, torch.full_like(label, -SURE)), dim=-1)
        changed[attribute.name] = torch.where(known if output.ndim == 1 else known[:, None], certain, output)
    return changed


def predict_labels(schema: Schema, outputs: Outputs) -> Float[Tensor, "batch attributes"]:
    """The most probable labels; NaN for a detail that by these does not apply, such as the beard colour of no beard.

    Each attribute's own most probable value, not the mode of a joint head.
    """
    outputs = independent(outputs)
    columns: dict[str, Tensor] = {}
    for attribute in schema:
        output = outputs[attribute.name]
        if attribute.kind == "binary":
            columns[attribute.name] = (output > 0).float()
        elif attribute.kind == "categorical":
            columns[attribute.name] = output.argmax(dim=-1).float()
        else:
            columns[attribute.name] = output[..., 0].float()
    for attribute in schema:
        for parent, value in attribute.applies_if.items():
            applies = columns[parent] == float(value)
            columns[attribute.name] = torch.where(applies, columns[attribute.name], torch.nan)
    return torch.stack([columns[attribute.name] for attribute in schema], dim=1)

"""What the outputs of an attribute head mean: log-likelihoods of labels, and predictions.

One head per attribute of the schema: a logit u with p(y=1) = sigmoid(u); logits with p(y=c) = softmax(u)_c; or mean and
log-variance of a normal distribution. Missing labels (NaN) contribute nothing. Everything is computed in float32 at
least, with logsigmoid and log_softmax: in float32 log(sigmoid(u)) is -inf at u = -90 and 1 - sigmoid(u) is 0 at u = 17.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lcg.schema import Attribute, Schema

HeadOutputs = dict[str, Tensor]
"""Raw outputs by attribute name: binary (B,), categorical (B, C), continuous (B, 2) = (mean, log-variance)."""


def split_outputs(schema: Schema, flat: Float[Tensor, "batch outputs"]) -> HeadOutputs:
    """Cuts the concatenated outputs of all heads, in schema order, into one entry per attribute."""
    outputs: HeadOutputs = {}
    parts = flat.split([attribute.outputs for attribute in schema], dim=-1)
    for attribute, part in zip(schema, parts, strict=True):
        outputs[attribute.name] = part[..., 0] if attribute.kind == "binary" else part
    return outputs


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


def log_likelihoods(
    schema: Schema, outputs: HeadOutputs, labels: Float[Tensor, "batch attributes"]
) -> Float[Tensor, "batch attributes"]:
    """`log_likelihood` of every attribute; column j belongs to attribute j of the schema."""
    return torch.stack([log_likelihood(a, outputs[a.name], labels[:, j]) for j, a in enumerate(schema)], dim=1)


def mean_negative_log_likelihood(
    schema: Schema, outputs: HeadOutputs, labels: Float[Tensor, "batch attributes"]
) -> Float[Tensor, ""]:
    """The loss of a classifier: -log p(y_j) averaged over all known labels of a batch; 0 when none is known."""
    return -log_likelihoods(schema, outputs, labels).sum() / (~labels.isnan()).sum().clamp(min=1)


def predict_labels(schema: Schema, outputs: HeadOutputs) -> Float[Tensor, "batch attributes"]:
    """The most probable labels; NaN for a detail that by these does not apply, such as the beard colour of no beard."""
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

"""What the classifier believes about latents: of each attribute, and of a formula or an edit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lcg.app.answers import Asking, Belief
from lcg.editing.session import Step
from lcg.guidance import CompiledFormula, Not, parse_edit
from lcg.guidance.formula import Near
from lcg.nets.heads import HeadOutputs, independent
from lcg.pipeline import Pipeline
from lcg.schema import Attribute, Schema


def outputs_of(pipeline: Pipeline, z_0: Tensor) -> HeadOutputs:
    """The heads' outputs for clean latents, each attribute by itself: what `Pipeline.log_probability` reads."""
    t = torch.full((len(z_0),), pipeline.sampling.t_end, dtype=z_0.dtype, device=z_0.device)
    with torch.no_grad():
        return {name: head.float().cpu() for name, head in independent(pipeline.classifier(z_0, t)).items()}


def beliefs_of(schema: Schema, outputs: HeadOutputs) -> dict[str, Belief]:
    """What is believed about the one image that the outputs are of, by attribute."""
    beliefs = {a.name: _belief(a, outputs[a.name][0]) for a in schema}
    applying = {
        a.name: all((beliefs[parent].asked is True) == value for parent, value in a.applies_if.items()) for a in schema
    }
    return {
        name: b if applying[name] else Belief(b.name, b.value, b.asked, b.probability, b.distribution, applies=False)
        for name, b in beliefs.items()
    }


def asking(schema: Schema, step: Step, outputs: HeadOutputs) -> Asking:
    """Whether a step came true in the one image that the outputs are of."""
    literal = parse_edit(step.text, schema)
    if isinstance(literal, Near):
        mean, log_variance = outputs[literal.name][0].tolist()
        spread = math.exp(0.5 * log_variance) * math.sqrt(2)
        low, high = ((literal.value + side * literal.tolerance - mean) / spread for side in (-1, 1))
        return Asking(str(literal), step.weight, (math.erf(high) - math.erf(low)) / 2)
    text = f"-{literal.operand}" if isinstance(literal, Not) else str(literal)
    if schema[literal.attributes[0]].kind == "binary" and not isinstance(literal, Not):
        text = f"+{literal}"
    p = float(CompiledFormula(literal)(outputs).exp()[0])
    return Asking(text, step.weight, min(1.0, p))


def _belief(attribute: Attribute, head: Tensor) -> Belief:
    name = attribute.name
    if attribute.kind == "binary":
        p = float(head.sigmoid())
        value = "yes" if p > 0.5 else "no"
        return Belief(name, value, p > 0.5, max(p, 1 - p), {"yes": p, "no": 1 - p})
    if attribute.kind == "categorical":
        shares = dict(zip(attribute.values, head.softmax(-1).tolist(), strict=True))
        value = max(shares, key=shares.__getitem__)
        return Belief(name, value, value, shares[value], shares)
    mean, log_variance = head.tolist()
    told = {"mean": mean, "standard deviation": math.exp(0.5 * log_variance)}
    return Belief(name, f"{mean:.2f}", mean, 1.0, told)

"""Labels that are sometimes wrong: what is observed, given what a classifier says is true.

    p(observed | z_t) = sum_y p(observed | y) p(y | z_t)

(forward correction, Patrini et al. 2017, arXiv:1609.03683, theorem 2). A network whose likelihood of observed labels is
computed so has the posterior of the true ones as its optimum, and guides by that; trained on the observed labels alone,
it would be as unsure as they are. Under a joint head each component's attributes are corrected by themselves, which is
exact where mistakes are made attribute by attribute, whatever else is true of the image.

Rates are given, not estimated. From flipped labels alone they cannot be told from attributes that z_0 does not decide:
estimates by anchor points or confident examples (Patrini et al.; Northcutt et al. 2021, arXiv:1911.00068)
take it for granted that some latents are free of doubt, and call all doubt noise. Label some images twice instead.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lcg.nets.heads import HeadOutputs, JointOutputs, Outputs
from lcg.schema import Attribute, Schema

Rate = float | Sequence[float]
"""Of an attribute: see `LabelNoise`."""


class LabelNoise:
    """From what is believed of true labels to what is to be expected of observed ones.

    Args:
        schema: the attributes.
        rates: by attribute. Binary: the share of labels that are wrong, or two, (false positives among those without,
            false negatives among those with it). Categorical: the share that is wrong, by any other value alike.
            Ordinal: the share that is wrong by one step, up or down alike. Continuous: the standard deviation of the
            label's error, in the attribute's unit.

    Raises:
        ValueError: an unknown attribute, or rates that are out of range: labels must be right more often than not.
    """

    def __init__(self, schema: Schema, rates: Mapping[str, Rate]) -> None:
        self.schema = schema
        self.chances = {name: _chances(schema[name], rate) for name, rate in rates.items()}

    def __call__(self, outputs: Outputs) -> Outputs:
        """The outputs of observed labels: of the same form, those without a rate unchanged."""
        if isinstance(outputs, JointOutputs):
            return JointOutputs(outputs.log_weights, self._heads(outputs.heads), self._heads(outputs.single))
        return self._heads(outputs)

    def _heads(self, heads: HeadOutputs) -> HeadOutputs:
        return {
            name: _observed(self.schema[name], head, self.chances[name].to(head.device))
            if name in self.chances
            else head
            for name, head in heads.items()
        }


def _chances(attribute: Attribute, rate: Rate) -> Tensor:
    """log p(observed | true), (C, C), true ones in rows; of a continuous attribute the error's log-variance, ()."""
    wrong = [float(r) for r in rate] if isinstance(rate, Sequence) else [float(rate)]
    several = attribute.kind == "binary" and len(wrong) == 2
    if not (len(wrong) == 1 or several) or not all(r >= 0 and math.isfinite(r) for r in wrong):
        _refuse(attribute, rate)
    if attribute.kind == "continuous":
        if wrong[0] == 0:
            _refuse(attribute, rate)
        return torch.tensor(2 * math.log(wrong[0]), dtype=torch.float64)
    count = max(2, len(attribute.values))
    if attribute.kind == "binary":
        flips = torch.tensor([wrong[0], wrong[-1]], dtype=torch.float64)
        chances = torch.stack((torch.stack((1 - flips[0], flips[0])), torch.stack((flips[1], 1 - flips[1]))))
        informative = flips.sum() < 1
    elif attribute.ordered:
        step = torch.ones(count, count).tril(1).triu(-1).double().fill_diagonal_(0)
        chances = (1 - wrong[0]) * torch.eye(count).double() + wrong[0] * step / step.sum(1, keepdim=True)
        informative = torch.tensor(wrong[0] < 0.5)
    else:
        chances = torch.full((count, count), wrong[0] / (count - 1), dtype=torch.float64).fill_diagonal_(1 - wrong[0])
        informative = torch.tensor(wrong[0] < (count - 1) / count)
    if not informative:
        _refuse(attribute, rate)
    return chances.log()


def _refuse(attribute: Attribute, rate: Rate) -> None:
    expected = {
        "binary": "a share in [0, 0.5), or two, of false positives and false negatives, that sum to less than 1",
        "categorical": "a share in [0, 0.5)"
        if attribute.ordered
        else f"a share in [0, {1 - 1 / max(2, len(attribute.values)):.3g})",
        "continuous": "a standard deviation > 0",
    }[attribute.kind]
    raise ValueError(
        f"`label_noise` of {attribute.kind} attribute {attribute.name!r} must be {expected}, got {rate}; "
        "leave out attributes whose labels are right, and relabel those that are wrong more often than not"
    )


def _observed(attribute: Attribute, head: Tensor, chances: Tensor) -> Tensor:
    """The head's output for the observed label."""
    head = head if head.dtype == torch.float64 else head.float()
    chances = chances.to(head)
    if attribute.kind == "continuous":
        mean, log_variance = head.unbind(-1)
        return torch.stack((mean, torch.logaddexp(log_variance, chances)), dim=-1)
    if attribute.kind == "categorical":
        return (head.log_softmax(-1)[..., None] + chances).logsumexp(-2)
    truly, truly_not = functional.logsigmoid(head), functional.logsigmoid(-head)
    seen, unseen = (torch.logaddexp(truly_not + chances[0, k], truly + chances[1, k]) for k in (1, 0))
    return seen - unseen

"""Labels of a classifier that lcg trained itself: a judge (`lcg.metrics.judge`) in the place of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lcg.generators.base import pixels_to_x, weights_sha256
from lcg.labels.base import Floats, Images
from lcg.labels.ruled import RuledLabeller
from lcg.labels.rules import ArgMax, Linear, Rule, Threshold
from lcg.labels.scorer import Scorer
from lcg.metrics.judge import Judge
from lcg.nets.heads import split_outputs
from lcg.schema import Attribute


class JudgeScorer(Scorer):
    """Probabilities by a judge's heads: of binary attributes, of each value of categorical ones; means of others.

    Args:
        judge: such as lcg.metrics.judge.TrainedJudge.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge.eval().requires_grad_(False)
        self.names = tuple(name for attribute in judge.schema for name in scores_of(attribute))
        self.probabilities = all(attribute.kind != "continuous" for attribute in judge.schema)
        self.provenance = judge.provenance

    def scores(self, images: Images) -> Floats:
        return self.scores_and_features(images)[0]

    @torch.no_grad()
    def scores_and_features(self, images: Images) -> tuple[Floats, Floats | None]:
        device = next(self.judge.parameters()).device
        features = self.judge.features(pixels_to_x(torch.from_numpy(np.ascontiguousarray(images)).to(device)))
        outputs, columns = split_outputs(self.judge.schema, self.judge.heads(features)), []
        for attribute in self.judge.schema:
            output = outputs[attribute.name].float()
            if attribute.kind == "binary":
                columns.append(output.sigmoid()[:, None])
            else:
                columns.append(output.softmax(1) if attribute.kind == "categorical" else output[:, :1])
        return torch.cat(columns, 1).cpu().numpy(), features.float().cpu().numpy()

    def rules(self) -> dict[str, Rule]:
        """What the judge itself would say: the more probable value."""
        rules: dict[str, Rule] = {}
        for a in self.judge.schema:
            if a.kind == "categorical":
                rules[a.name] = ArgMax(list(a.values), ordered=a.ordered)
            else:
                rules[a.name] = Threshold(probability=True) if a.kind == "binary" else Linear()
        return rules

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.labels.judge.JudgeScorer",
            "file_sha256": self.judge.file_sha256,
            "weights_sha256": weights_sha256(self.judge),
        }


class JudgeLabeller(RuledLabeller):
    """A judge as labeller; details are labelled where they apply, as the judge has it.

    Args:
        judge: such as lcg.metrics.judge.AvatarJudge, or a TrainedJudge with `weights`.
        rules: by attribute; None for the most probable values.
        thresholds: a file of rules, such as `lcg label thresholds` writes.
        batch_size: images that are looked at together.

    Raises:
        ValueError: as `RuledLabeller`.
        FileNotFoundError: as `RuledLabeller`.
    """

    def __init__(
        self,
        judge: Judge,
        rules: dict[str, Rule] | None = None,
        thresholds: str | None = None,
        batch_size: int = 256,
    ) -> None:
        scorer = JudgeScorer(judge)
        chosen = scorer.rules() if rules is None else rules
        details = [a for a in judge.schema if a.name in chosen]
        super().__init__(
            scorer,
            chosen,
            thresholds,
            {a.name: [p for p in a.detail_of if p in chosen] for a in details},
            {a.name: {p: v for p, v in a.applies_if.items() if p in chosen} for a in details},
            batch_size,
        )


def scores_of(attribute: Attribute) -> tuple[str, ...]:
    """The names of an attribute's scores: one per value of a categorical one."""
    if attribute.kind == "categorical":
        return tuple(f"{attribute.name}={value}" for value in attribute.values)
    return (attribute.name,)

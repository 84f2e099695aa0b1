"""A labeller of scores and rules: the scorer looks, the rules decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lcg.labels.base import Evidence, Floats, Images, Labeller, check_images
from lcg.labels.rules import Rule
from lcg.labels.rules_file import read_rules
from lcg.labels.scorer import Scorer
from lcg.schema import Schema


class RuledLabeller(Labeller):
    """Labels from scores by rules.

    Args:
        scorer: gives the scores.
        rules: by attribute; None for the scorer's own.
        thresholds: a file of rules, such as `lcg label thresholds` writes; they take the place of those of the same
            attributes.
        detail_of: by attribute, those whose edit sets it free, as in `lcg.schema.Attribute`.
        applies_if: by attribute, binary ones and the value that each must have; its label is NaN elsewhere.
        batch_size: images that are scored together.

    Raises:
        ValueError: a rule reads a score that there is none of, or belongs to no attribute.
        FileNotFoundError: there is no file `thresholds`.
    """

    def __init__(
        self,
        scorer: Scorer,
        rules: dict[str, Rule] | None = None,
        thresholds: str | None = None,
        detail_of: dict[str, list[str]] | None = None,
        applies_if: dict[str, dict[str, bool]] | None = None,
        batch_size: int = 256,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        chosen = dict(scorer.rules() if rules is None else rules)
        if thresholds is not None:
            chosen.update(read_rules(thresholds))
        if not chosen:
            raise ValueError("`rules` must name at least one attribute, got none")
        self.scorer, self.rules, self.batch_size, self.provenance = scorer, chosen, batch_size, scorer.provenance
        self._read = {name: rule.reads(name, scorer.names) for name, rule in chosen.items()}
        self._columns = {name: [scorer.names.index(s) for s in read] for name, read in self._read.items()}
        self._details = {"detail_of": detail_of or {}, "applies_if": applies_if or {}}
        self.schema = self._schema()

    def label(self, images: Images) -> Floats:
        return self.evidence(images).labels

    def evidence(self, images: Images) -> Evidence:
        check_images(images)
        starts = range(0, max(1, len(images)), self.batch_size)
        parts = [self.scorer.scores_and_features(images[start : start + self.batch_size]) for start in starts]
        features = [f for _, f in parts if f is not None]
        return self.decide(np.concatenate([s for s, _ in parts]), np.concatenate(features) if features else None)

    def decide(self, scores: Floats, features: Floats | None = None) -> Evidence:
        """What the rules make of scores (N, S)."""

        def table(of: str) -> Floats:
            columns = [getattr(rule, of)(scores[:, self._columns[name]]) for name, rule in self.rules.items()]
            return np.stack(columns, axis=1).astype(np.float32)

        labels = table("labels")
        for j, attribute in enumerate(self.schema):
            for parent, value in attribute.applies_if.items():
                labels[labels[:, self.schema.index(parent)] != float(value), j] = np.nan
        return Evidence(labels, table("margins"), table("probabilities"), scores, self.scorer.names, features)

    def reads(self, name: str) -> tuple[str, ...]:
        """The scores that the label of an attribute is made of."""
        return self._read[self.schema.names[self.schema.index(name)]]

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.labels.ruled.RuledLabeller",
            "scorer": self.scorer.identity(),
            "rules": {name: {"rule": type(r).__name__, **r.settings()} for name, r in self.rules.items()},
            "applies_if": {a.name: dict(a.applies_if) for a in self.schema if a.applies_if},
        }

    def _schema(self) -> Schema:
        attributes = [rule.attribute(name, self._read[name]) for name, rule in self.rules.items()]
        known: Mapping[str, Any] = self._details
        for option, details in known.items():
            for name in details:
                if name not in self.rules:
                    raise ValueError(f"`{option}` names {name!r}, which has no rule; there are {', '.join(self.rules)}")
        return Schema(
            tuple(
                replace(
                    a,
                    detail_of=tuple(known["detail_of"].get(a.name, ())),
                    applies_if=known["applies_if"].get(a.name, {}),
                )
                for a in attributes
            )
        )

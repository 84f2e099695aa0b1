"""Thresholds of a labeller chosen on images: its scorer looks at them once, then each attribute's method decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lcg.labels.pictures import Pictures, some_rows
from lcg.labels.ruled import RuledLabeller
from lcg.labels.rules import Rule, Threshold
from lcg.labels.thresholds import Method
from lcg.schema import unknown_name


def choose_rules(
    labeller: RuledLabeller,
    pictures: Pictures,
    method: Method,
    methods: Mapping[str, Method],
    most: int = 2000,
    batch_size: int = 256,
) -> tuple[dict[str, Rule], dict[str, dict[str, Any]]]:
    """All rules of a labeller, those of binary attributes with thresholds that were chosen.

    Args:
        labeller: whose.
        pictures: images, and labels where they are known.
        method: how.
        methods: others for some attributes, by name.
        most: at most so many images, evenly spaced.
        batch_size: images looked at together.

    Returns:
        The rules, and for each that was chosen how (JSON primitives).

    Raises:
        ValueError: a method is named for no binary attribute, there is none, or the images do not allow a choice; the
            message names the attribute.
    """
    binary = {name: rule for name, rule in labeller.rules.items() if isinstance(rule, Threshold)}
    for name in methods:
        if name not in binary:
            raise unknown_name("attribute (of `methods`)", name, binary, "among binary ones the labeller")
    if not binary:
        raise ValueError(f"there are no thresholds to choose: none of {', '.join(labeller.rules)} is binary")
    rows = some_rows(len(pictures), most)
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    scores = np.concatenate([labeller.evidence(pictures.images(part)).scores for part in parts])
    labels = np.concatenate([pictures.labels(part) for part in parts])
    rules: dict[str, Rule] = dict(labeller.rules)
    told = {}
    for name, rule in binary.items():
        (read,) = labeller.reads(name)
        known = np.full(len(rows), np.nan, np.float32)
        if name in pictures.schema and pictures.schema[name].kind == "binary":
            known = labels[:, pictures.schema.index(name)]
        try:
            chosen, choice = methods.get(name, method).apply(rule, scores[:, labeller.scorer.names.index(read)], known)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
        rules[name], told[name] = chosen, choice.told
    return rules, told

"""Scores of images: numbers by name, from a network or any function; rules make labels of them (`lcg.labels.rules`).

A score is named as the attribute that it speaks for, `smile`, or as one of its values, `hair=blond`. A plain function
will do:

    def scores(images):                      # (N, H, W, 3) uint8
        return images.mean((1, 2)) / 255     # (N, 3)

    FunctionScorer("my_package.colours:scores", names=["red", "green", "blue"])
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lcg.labels.base import Floats, Images
from lcg.labels.rules import Rule, default_rules


class Scorer(ABC):
    """Gives every image numbers.

    Attributes:
        names: of the scores, distinct.
        probabilities: whether every score by itself is a probability in [0, 1]; else they are in any range.
        provenance: what the network was trained on, as `lcg.data.images.provenance_of` has it; empty when nobody said.
    """

    names: tuple[str, ...]
    probabilities: bool = False
    provenance: Mapping[str, Any] = {}

    @abstractmethod
    def scores(self, images: Images) -> Floats:
        """Scores (N, S) of images (N, H, W, 3) uint8, each image by itself."""

    def scores_and_features(self, images: Images) -> tuple[Floats, Floats | None]:
        """The scores, and features (N, F) in which images may be compared; None without such."""
        return self.scores(images), None

    def rules(self) -> dict[str, Rule]:
        """What labels are made of the scores when nobody says otherwise, by attribute."""
        return default_rules(self.names, self.probabilities)

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What this scorer is, in JSON primitives: equal identities give equal scores; as `Labeller.identity`."""


class FunctionScorer(Scorer):
    """Scores from a Python function.

    Args:
        function: as "package.module:function"; it takes images (N, H, W, 3) uint8 and returns (N, S), or (N,) for one
            score, as an array or whatever numpy makes one of.
        names: of the scores.
        probabilities: whether they are probabilities.
        trained_on: what a network in it was trained on, in words; for a benchmark's judge.

    Raises:
        ValueError: there is no such function, or no names.
    """

    def __init__(
        self, function: str, names: list[str], probabilities: bool = False, trained_on: str | None = None
    ) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`names` must name each score once, got {names}")
        self.names, self.probabilities = tuple(names), probabilities
        self.function, self._call = function, function_of(function)
        self.provenance = stated(trained_on)

    def scores(self, images: Images) -> Floats:
        return table_of(self._call(images), len(images), self.names, f"the function {self.function}")

    def identity(self) -> dict[str, Any]:
        """Its name and the SHA-256 of the file that it is from; what it calls elsewhere is not looked at."""
        file = inspect.getsourcefile(inspect.unwrap(self._call)) if callable(self._call) else None
        code = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""
        return {
            "class": "lcg.labels.scorer.FunctionScorer",
            "function": self.function,
            "code_sha256": code,
            "names": list(self.names),
        }


def function_of(path: str) -> Any:
    """The function that "package.module:function" names.

    Raises:
        ValueError: there is none.
    """
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise ValueError(f"`function` must be like 'package.module:function', got {path!r}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"`function` {path!r} cannot be imported ({error}); is its folder in PYTHONPATH?") from error
    if not callable(found):
        raise ValueError(f"`function` must name a function, {path!r} is {type(found).__name__}")
    return found


def table_of(returned: Any, rows: int, names: tuple[str, ...], who: str) -> Floats:
    """What a function or a network returned, as scores (N, S).

    Raises:
        ValueError: it has another shape.
        TypeError: it is no array of numbers.
    """
    try:
        scores = np.asarray(returned, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{who} must return an array of numbers, got {type(returned).__name__}") from error
    if scores.ndim == 1 and len(names) == 1:
        scores = scores[:, None]
    if scores.shape != (rows, len(names)):
        raise ValueError(
            f"{who} must return ({rows}, {len(names)}) for {rows} images, a column for each of {', '.join(names)}; "
            f"got {tuple(scores.shape)}"
        )
    return scores


def stated(trained_on: str | None) -> dict[str, Any]:
    """The provenance of a network of which only words are known."""
    return {} if trained_on is None else {"train": {"name": trained_on}}

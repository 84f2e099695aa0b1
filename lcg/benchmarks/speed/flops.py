"""Multiply-adds of a guided step, counted from the networks' linear layers.

A row needs its own products with every layer that sees it. What depends on the time alone (its features, the modulation
of every block, and the columns of the first layer that multiply the features) all rows of a step share: it is needed
once. A classifier is gone through twice, forward, and backward to its input: the same products, transposed.

    multiply-adds(B) = B (row_prior + 2 sum_i row_i) + time_prior + sum_i time_i
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lcg.benchmarks.speed.nets import Nets
from lcg.nets.blocks import ModulatedBlock, SkipPerceptron


@dataclass(frozen=True)
class Work:
    """Multiply-adds.

    Attributes:
        row: for each row.
        time: once for all rows at one time; peers need it for each row too.
    """

    row: int
    time: int

    def shared(self, batch: int) -> int:
        """With one time for all rows: what has to be done."""
        return batch * self.row + self.time

    def repeated(self, batch: int) -> int:
        """With a time for each row: what peers do."""
        return batch * (self.row + self.time)


def guided_step(nets: Nets) -> Work:
    """Of one step under the guidance of all classifiers."""
    prior, classifiers = forward(nets.prior.net), [forward(classifier.net) for classifier in nets.classifiers]
    row = prior.row + 2 * sum(work.row for work in classifiers)
    return Work(row, prior.time + sum(work.time for work in classifiers))


def shared_trunk_step(nets: Nets) -> Work:
    """Of one step where all classifiers are one trunk with a logit each."""
    prior, classifier = forward(nets.prior.net), forward(nets.classifiers[0].net)
    logits = nets.shape.classifier_width * (nets.shape.attributes - 1)
    return Work(prior.row + 2 * (classifier.row + logits), prior.time + classifier.time)


def forward(net: SkipPerceptron) -> Work:
    """Of one evaluation of a network."""
    features = net.time.linear
    modulations = [block.modulation for block in net.blocks if isinstance(block, ModulatedBlock)]
    time = sum(_size(layer) for layer in (features, *modulations)) + features.out_features * net.input.out_features
    return Work(sum(_size(module) for module in net.modules() if isinstance(module, nn.Linear)) - time, time)


def _size(layer: nn.Linear) -> int:
    return layer.in_features * layer.out_features

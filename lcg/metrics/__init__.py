"""What is measured: attribute accuracy, preservation, distribution and ghosts, as pure functions of tensors.

The judge (`lcg.metrics.judge`) turns images into those labels and features; how honest the classifier is that guides is
measured in `lcg.metrics.calibration`.
"""

from lcg.metrics.accuracy import attribute_accuracy, proportion
from lcg.metrics.frechet import frechet_between, frechet_distance, moments
from lcg.metrics.pareto import pareto_area, pareto_bootstrap
from lcg.metrics.preservation import edit_success, kept, l1_outside
from lcg.metrics.reference import effective_sample_size, marginal_weights, marginals
from lcg.metrics.sharpness import NearestReal

__all__ = [
    "NearestReal",
    "attribute_accuracy",
    "edit_success",
    "effective_sample_size",
    "frechet_between",
    "frechet_distance",
    "kept",
    "l1_outside",
    "marginal_weights",
    "marginals",
    "moments",
    "pareto_area",
    "pareto_bootstrap",
    "proportion",
]

"""The metrics of a benchmark, named in its YAML by their class: `lcg.benchmarks.measures.Accuracy`."""

from lcg.benchmarks.measures.inception import Inception
from lcg.benchmarks.measures.measure import Images, Measure
from lcg.benchmarks.measures.of_edits import (
    Identity,
    Perceptual,
    Pixels,
    Preservation,
    SideEffects,
    edits_succeed,
    outside_of,
)
from lcg.benchmarks.measures.of_samples import Accuracy, Frechet, Neighbours, Psnr, Sharp

STANDARD: tuple[type[Measure], ...] = (
    Accuracy,
    Sharp,
    Preservation,
    Frechet,
    Neighbours,
    SideEffects,
    Identity,
    Perceptual,
    Psnr,
)
"""What a benchmark measures unless it is told otherwise."""

__all__ = [
    "STANDARD",
    "Accuracy",
    "Frechet",
    "Identity",
    "Images",
    "Inception",
    "Measure",
    "Neighbours",
    "Perceptual",
    "Pixels",
    "Preservation",
    "Psnr",
    "Sharp",
    "SideEffects",
    "edits_succeed",
    "outside_of",
]

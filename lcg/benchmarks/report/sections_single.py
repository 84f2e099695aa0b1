"""Tasks without a formula: samples, reconstruction, the latent space, the classifier."""

from __future__ import annotations

import re
from types import MappingProxyType

from lcg.benchmarks.report.reliability import Bin, reliability
from lcg.benchmarks.report.section import Chart, Panel, Section, crowded, sentence, split_by_attribute, tables_of
from lcg.benchmarks.report.tables import by_last
from lcg.benchmarks.results.estimates import Results
from lcg.benchmarks.results.vocabulary import describe, label_of

BINS = ("accuracy_in_bin", "confidence_in_bin")
"""Of bin K of band BAND: BINS[i]/BAND/K."""

WORDS = MappingProxyType(
    {
        "unconditional": (
            "Unconditional samples",
            "Samples without guidance. Real images give the floor, the distance between two sets of them.",
        ),
        "reconstruction": (
            "Reconstruction and the judge's ceilings",
            "What the generator itself loses, and how often the judge agrees with the truth on real images: no method "
            "can be seen to do better than that.",
        ),
        "disentanglement": (
            "Disentanglement of the latents",
            "How the attributes lie in the latents that everything here works on. Latent arithmetic and linear "
            "classifiers need an explicit space; a modular and compact one would let single coordinates be edited.",
        ),
        "calibration": (
            "Calibration of the classifier",
            "Guidance follows the gradient of the classifier's log-probabilities at every noise level, so it is only "
            "as good as these are honest there.",
        ),
        "zero-shot": (
            "Zero-shot accuracy",
            "The mean over the formulas that prior and classifiers have never seen satisfied.",
        ),
    }
)


def single(results: Results, task: str) -> Section:
    """A task with what was measured of it, by method and by attribute."""
    heading, text = WORDS.get(task, (task, ""))
    line = "space" if task == "disentanglement" else "method"
    return Section(
        id=re.sub(r"\W+", "-", task),
        heading=heading,
        text=text,
        tables=(*tables_of(results, [task], [("", "")], f"By {line}", line), *split_by_attribute(results, [task])),
        folded=crowded(results, results.tasks),
    )


def calibration(results: Results, task: str) -> Section:
    """Reliability diagrams and calibration errors, by noise level."""
    heading, text = WORDS["calibration"]
    names = [metric for metric in results.metrics([task]) if metric.count("/") == 2]
    families = [family for family in dict.fromkeys(n.partition("/")[0] for n in names) if family not in BINS]
    charts = _diagrams(results, task)
    panel = Panel(
        tuple(charts),
        "Across: how probable the predicted value is said to be. Up: how often it is the true one. On the dotted line "
        "probabilities are honest, below it too sure. All attributes together; larger marks are bins with more "
        "predictions; bars are one standard error.",
        layout="small",
    )
    return Section(
        id="calibration",
        heading=heading,
        text=text,
        panels=(panel,) if charts else (),
        folded=crowded(results, results.tasks),
        tables=(
            *tables_of(results, [task], [("", "")], "By classifier", "classifier"),
            *(
                by_last(results, task, family, "attribute", f"{sentence(describe(family).label)} by noise level")
                for family in families
            ),
        ),
    )


def _diagrams(results: Results, task: str) -> list[Chart]:
    """One per noise level, of each classifier."""
    names = [metric for metric in results.metrics([task]) if metric.startswith(f"{BINS[0]}/")]
    bands = dict.fromkeys(name.split("/")[1] for name in names)
    found = []
    for method in results.methods:
        for band in bands:
            bins = []
            for name in names:
                accuracy = results.get(method, task, name)
                confidence = results.get(method, task, name.replace(*BINS, 1))
                if name.split("/")[1] == band and accuracy is not None and confidence is not None:
                    bins.append(Bin(confidence.value, accuracy))
            if bins:
                found.append((method, band, bins))
    several = len({method for method, _, _ in found}) > 1
    return [
        Chart(
            f"{label_of(method)}, {band}" if several else band,
            reliability(bins, f"Reliability of {label_of(method)} at {band}: accuracy against confidence"),
            (task,),
        )
        for method, band, bins in found
    ]

"""What readers of a report call methods and metrics: labels, directions, decimals, and a sentence on each metric."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lcg.benchmarks.results.estimates import FLOOR

NO_BREAK = "\N{NO-BREAK SPACE}"
EVERY = "all"
"""The method of a picture that shows all of them."""
MINUS = "\N{MINUS SIGN}"  # as wide as a plus, and read aloud as what it is

LABELS = MappingProxyType(
    {
        "lcg": "lcg",
        "arithmetic": "latent arithmetic",
        "prior": "prior",
        "gaussian": "Gaussian latents",
        "probe": "linear probe (DiffAE)",
        "interfacegan": "InterFaceGAN",
        "lace": "LACE, ODE",
        "lace_langevin": "LACE, Langevin",
        "styleflow": "StyleFlow",
        "gradctrl": "GradCtrl",
        "potential_flow": "potential flow",
        "composable": "Composable Diffusion",
        "composable_mcmc": "Composable Diffusion + MCMC",
        "ppgn": "PPGN",
        "energy": "energy guidance",
        "pca": "PCA",
        "sefa": "SeFa",
        "householder": "Householder",
        "jacobian": "Jacobian",
        EVERY: "all methods",
        FLOOR: "real images",
    }
)


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Args:
        label: its name for readers.
        better: whether higher or lower is better; None when neither is.
        decimals: of its values.
        meaning: one sentence.
    """

    label: str
    better: Literal["higher", "lower"] | None = None
    decimals: int = 3
    meaning: str = ""

    @property
    def arrow(self) -> str:
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]


METRICS = MappingProxyType(
    {
        "edit_success": Metric(
            "edit success",
            "higher",
            3,
            "share of edits that the judge finds done, with every other binary attribute kept and, where it is known "
            "which pixels an edit may change (not of synthetic sources), the others nearly unchanged",
        ),
        "joint_accuracy": Metric(
            "joint accuracy",
            "higher",
            3,
            "share of images in which the judge finds all that was asked for (of a reconstruction: every binary "
            "attribute of its original)",
        ),
        "sharp": Metric(
            "sharp",
            "higher",
            3,
            "share of samples that satisfy the formula, if there is one, and whose nearest real latent is no "
            "further away than that of 99 % of real images; the others are mostly ghosts, double exposures that a "
            "judge accepts",
        ),
        "frechet_distance": Metric(
            "Fréchet distance",
            "lower",
            1,
            "between Gaussians fitted to the judge's features of samples and of real images (for a formula: real "
            "images that satisfy it, drawn as the training set's were; if it has none, uniform ones with its marginals "
            "of all other attributes); compare it with its floor, the distance between two sets of real images",
        ),
        "fid": Metric("FID", "lower", 2, "Fréchet distance of Inception features"),
        "kid": Metric("KID", "lower", 4, "kernel distance of Inception features"),
        "inception_score": Metric(
            "inception score", "higher", 2, "how certain of single images and how varied over all an Inception net is"
        ),
        "precision": Metric("precision", None, 3, "share of samples that lie among real images, in features"),
        "recall": Metric("recall", None, 3, "share of real images that lie among samples, in features"),
        "density": Metric(
            "density", None, 3, "how often samples lie in the neighbourhoods of real images; 1 for a perfect generator"
        ),
        "coverage": Metric("coverage", None, 3, "share of real images whose neighbourhood holds a sample"),
        "diversity": Metric("diversity", None, 2, "mean distance of two different samples, in features"),
        "kept": Metric("kept", "higher", 3, "share in which every binary attribute that was not edited is unchanged"),
        "kept_fine": Metric(
            "kept, fine",
            "higher",
            3,
            "the same for the fine attributes (colours and styles), except details of what was edited",
        ),
        "l1_outside": Metric(
            "change outside",
            "lower",
            4,
            "mean absolute difference of pixels outside the region that the edit may change, on a scale of 0 to 1",
        ),
        "change": Metric(
            "change", "lower", 4, "mean absolute difference of all pixels to the source, on a scale of 0 to 1"
        ),
        "identity": Metric("identity", "higher", 3, "similarity of the person before and after"),
        "perceptual": Metric("perceptual distance", "lower", 3, "distance to the source, as a network sees it"),
        "des": Metric(
            "disentangled edit strength",
            "higher",
            3,
            "how many more sources have the wanted value than before, less the share in which the attribute that is "
            "hit most, of those that were to be kept, has changed",
        ),
        "changed": Metric(
            "changed", None, 3, "share of sources in which the judge sees another value of an attribute than before"
        ),
        "pareto_area": Metric(
            "trade-off area",
            "higher",
            3,
            "share of the square of joint accuracy and kept, fine that a method dominates with all its strengths "
            "(hypervolume); 1 if some strength makes every edit and keeps everything else",
        ),
        "pareto_behind": Metric(
            "behind lcg",
            None,
            3,
            "the trade-off area of lcg less that of the method, on the same sources; its error comes from resampling "
            "the sources, for both methods alike",
        ),
        "zero_shot_accuracy": Metric(
            "zero-shot accuracy",
            "higher",
            3,
            "mean joint accuracy over the formulas that prior and classifiers have never seen satisfied",
        ),
        "accuracy": Metric("accuracy", "higher", 3, "share of images in which the judge finds the wanted value"),
        "marginal": Metric("share", None, 3, "share of images in which the judge finds the attribute"),
        "psnr": Metric("PSNR, dB", "higher", 1, "peak signal to noise ratio of reconstructions, on pixels"),
        "ece": Metric(
            "calibration error",
            "lower",
            3,
            "expected calibration error of the classifier at a noise level: how far the probability of the predicted "
            "value is from how often it is right, averaged over bins of it",
        ),
        "ece_chance": Metric(
            "calibration error by chance",
            None,
            3,
            "what perfectly calibrated probabilities would have with as many images",
        ),
        "nll": Metric("negative log-likelihood", "lower", 3, "of the true values under the classifier, in nats"),
        "modularity": Metric(
            "modularity", "higher", 3, "how far each coordinate of the latents tells of one attribute only (InfoM)"
        ),
        "explicitness": Metric(
            "explicitness", "higher", 3, "how far a linear probe reads the attributes off the latents (InfoE)"
        ),
        "explicitness_chance": Metric(
            "explicitness by chance", None, 3, "the same with the labels of other images: what a probe learns by heart"
        ),
        "compactness": Metric(
            "compactness", "higher", 3, "how far one coordinate alone tells all about an attribute (InfoC)"
        ),
        "information": Metric(
            "information",
            None,
            3,
            "share of an attribute's entropy that the most telling coordinate of the latents explains",
        ),
        "ess": Metric("effective samples", None, 1, "effective sample size of the importance weights"),
        "log_p_formula": Metric("log P(formula)", None, 2, "estimated log-probability of the formula under the prior"),
        "seconds_per_sample": Metric("seconds / sample", "lower", 4, "wall-clock time"),
        "evaluations": Metric(
            "network evaluations / sample", "lower", 0, "how often a row went through a network, such as the denoiser"
        ),
        "peak_memory": Metric("peak memory, MB", "lower", 1, "at the peak, beyond what was in use before"),
    }
)
"""The metrics with a fixed name; others are shown under the name they have."""

VARIETY = ("precision", "recall", "density", "coverage", "diversity")
"""Metrics that tell fidelity and variety apart."""

COSTS = ("seconds_per_sample", "evaluations", "peak_memory")
"""What costs.csv holds."""


def describe(metric: str) -> Metric:
    """How to show a metric; for `accuracy/glasses`, how to show `accuracy`."""
    kind = metric.partition("/")[0]
    return METRICS.get(kind, Metric(kind.replace("_", " ")))


def label_of(method: str) -> str:
    """What readers call a method."""
    return LABELS.get(method, method)

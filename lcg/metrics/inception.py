"""Figures of image quality that others report too: FID, KID, inception score, precision and recall, by torch-fidelity.

With phi the features of an Inception network and p(c | x) its classes, generated images x ~ g and real ones x ~ r,

    FID = |m_g - m_r|^2 + tr(C_g + C_r - 2 (C_g C_r)^{1/2}),      m, C the mean and covariance of phi
    KID = E k(x_g, x_g') + E k(x_r, x_r') - 2 E k(x_g, x_r),      k = (phi.phi' / F + 1)^3, without equal pairs
    IS  = exp E_g KL(p(c | x) || p(c))
    precision, recall: the share of g within the k-nearest-neighbour balls of r, and of r within those of g

(Heusel et al. 2017, arXiv:1706.08500, equation 6; Binkowski et al. 2018, arXiv:1801.01401; Salimans et al. 2016,
arXiv:1606.03498, section 4; Kynkaanniemi et al. 2019, arXiv:1904.06991, equations 1 and 2). FID of few images is biased
upwards, KID is not; KID and IS are means over subsets and splits. Where we differ: precision and recall use Inception's
features, not those of VGG-16 as in their paper, so that one network answers for all figures. The network has seen
photographs: of other pictures, such as drawn avatars, the figures compare methods and mean nothing by themselves. For
those, see `lcg.metrics.frechet`.

Features come from `lcg.metrics.inception_features` and figures from torch-fidelity's own functions, so that they are
those of its command line. Many sets are compared with one reference by `figures_of`, whose features
`lcg.metrics.inception_cache` keeps on disk. Of a set too large for its features to be kept, FID alone can be had, by
`lcg.metrics.streaming.StreamingFrechet(features=2048)`, whose `update` takes the features of one chunk after another;
KID, precision and recall compare images with each other and need all features.

A figure cannot be compared with another unless network, weights, resizing and numbers of images are the same, so all
of these stand beside the figures. Nothing is downloaded. The extra `fid` is needed: pip install 'lcg[fid]'.
"""

import math
from importlib.metadata import version
from pathlib import Path

from lcg.metrics.inception_features import (
    EXTRACTOR,
    Features,
    InceptionExtractor,
    Layer,
    check_extraction,
    import_fidelity,
)
from lcg.metrics.inception_images import Images, checked_images

Figures = dict[str, float | int | str | bool | None]

PUBLISHED = "6726825d"
"""The published weights' SHA-256 begins with this, as their name says."""

NETWORK_RESIZE = "to 299x299, bilinear as in TensorFlow 1"
"""What the extractor itself does to every image."""


def figures_of(
    generated: Features,
    reference: Features,
    *,
    fewest: int | None = None,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    splits: int = 10,
    neighbours: int = 3,
    seed: int = 2020,
) -> Figures:
    """FID, KID, inception score, precision and recall of features, with all that they depend on.

    Args:
        generated: of N generated images. Subsets and splits are drawn by number, so KID and the inception score depend
            on the images' order, within their standard deviations.
        reference: of M real images, by the same weights, layer and resize.
        fewest: refuse sets of fewer images; None for one more than there are features, below which covariances are
            singular and FID is mostly bias.
        kid_subsets: how many subsets KID is the mean over, >= 1.
        kid_subset_size: images of each, >= 2.
        splits: how many parts the inception score is the mean over, >= 1.
        neighbours: k of the balls of precision and recall, >= 1.
        seed: of subsets and splits, in [0, 2^32).

    Returns:
        The figures `fid`, `kid`, `kid_std` (over subsets), `inception_score`, `inception_score_std` (over splits),
        `precision`, `recall`, `f_score` (the latter three in [0, 1]); `n_generated`, `n_reference`; `extractor`,
        `layer`, `weights_sha256`, `published_weights` (whether they are the usual ones), `network_resize`; `resize`,
        `kid_subsets`, `kid_subset_size`, `splits`, `neighbours`, `seed`; `device` and `reference_device`, "cpu" or
        "cuda"; `torch_fidelity`, `torchvision` (versions), and `torchvision_path`, "native" or "declared operators"
        where its compiled operators, of which none is used here, do not fit this torch. JSON primitives only.

    Raises:
        ImportError: the extra `fid` is not installed.
        ValueError: too few images; features of two recipes; options out of range; figures that are not finite.
    """
    _check_options(kid_subsets, kid_subset_size, splits, neighbours, seed)
    counts = {"generated": len(generated), "reference": len(reference)}
    _check_counts(counts, generated.recipe.layer, fewest, kid_subset_size, splits, neighbours)
    if generated.recipe != reference.recipe:
        raise ValueError(
            f"`generated` and `reference` must be features of one recipe, got {generated.recipe} and "
            f"{reference.recipe}; extract both with the same weights, layer and resize"
        )
    fidelity, torchvision_path = import_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = generated.features, reference.features
    found: dict[str, float] = {
        **fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False),
        **kid_features_to_metric(
            x, y, kid_subsets=kid_subsets, kid_subset_size=kid_subset_size, rng_seed=seed, verbose=False
        ),
        **isc_features_to_metric(generated.logits, splits, rng_seed=seed),
        # In parts, without an N x M matrix of distances.
        **prc_features_to_metric(x, y, prc_neighborhood=neighbours, save_cpu_ram=True, verbose=False),
    }
    figures = {
        "fid": found[fidelity.KEY_METRIC_FID],
        "kid": found[fidelity.KEY_METRIC_KID_MEAN],
        "kid_std": found[fidelity.KEY_METRIC_KID_STD],
        "inception_score": found[fidelity.KEY_METRIC_ISC_MEAN],
        "inception_score_std": found[fidelity.KEY_METRIC_ISC_STD],
        "precision": found[fidelity.KEY_METRIC_PRECISION],
        "recall": found[fidelity.KEY_METRIC_RECALL],
        "f_score": found[fidelity.KEY_METRIC_F_SCORE],
    }
    unknown = [name for name, value in figures.items() if not math.isfinite(value)]
    if unknown:
        raise ValueError(f"`generated` must have figures, {', '.join(unknown)} are NaN or infinite; check the weights")
    recipe = generated.recipe
    return {
        **figures,
        "n_generated": len(generated),
        "n_reference": len(reference),
        "extractor": EXTRACTOR,
        "layer": recipe.layer,
        "weights_sha256": recipe.weights_sha256,
        "published_weights": recipe.weights_sha256.startswith(PUBLISHED),
        "resize": recipe.resize,
        "network_resize": NETWORK_RESIZE,
        "kid_subsets": kid_subsets,
        "kid_subset_size": kid_subset_size,
        "splits": splits,
        "neighbours": neighbours,
        "seed": seed,
        "device": generated.device,
        "reference_device": reference.device,
        "torch_fidelity": recipe.torch_fidelity,
        "torchvision": version("torchvision"),
        "torchvision_path": torchvision_path,
    }


def inception_figures(
    generated: Images,
    reference: Images,
    weights: str | Path | None = None,
    *,
    layer: Layer = "2048",
    resize: int | None = None,
    fewest: int | None = None,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    splits: int = 10,
    neighbours: int = 3,
    batch_size: int = 64,
    cuda: bool = False,
    seed: int = 2020,
) -> Figures:
    """`figures_of` two sets of images; what can be refused is, before the network sees any.

    Args:
        generated: (N, H, W, 3) uint8 in 0..255, or a folder of .png, .jpg or .jpeg (subfolders are not looked into).
        reference: (M, H', W', 3) real images, likewise.
        weights: as for `InceptionExtractor`, and so are layer, resize and batch_size.
        layer: which features FID, KID, precision and recall use.
        resize: before the network's own resizing.
        fewest: as for `figures_of`, and so are kid_subsets, kid_subset_size, splits, neighbours and seed.
        kid_subsets: of KID.
        kid_subset_size: of KID.
        splits: of the inception score.
        neighbours: of precision and recall.
        batch_size: of the network.
        cuda: compute features on the GPU.
        seed: of subsets and splits.

    Returns:
        What `figures_of` returns.

    Raises:
        FileNotFoundError: no weights, or no such folder.
        ImportError: the extra `fid` is not installed.
        TypeError: images that are not uint8.
        ValueError: as `InceptionExtractor` and `figures_of` do.
    """
    _check_options(kid_subsets, kid_subset_size, splits, neighbours, seed)
    check_extraction(layer, resize, batch_size)
    counts = {
        name: checked_images(images, name, resize)
        for name, images in (("generated", generated), ("reference", reference))
    }
    _check_counts(counts, layer, fewest, kid_subset_size, splits, neighbours)
    device = "cuda" if cuda else "cpu"
    extractor = InceptionExtractor(weights, layer=layer, resize=resize, device=device, batch_size=batch_size)
    return figures_of(
        extractor(generated),
        extractor(reference),
        fewest=fewest,
        kid_subsets=kid_subsets,
        kid_subset_size=kid_subset_size,
        splits=splits,
        neighbours=neighbours,
        seed=seed,
    )


def _check_options(kid_subsets: int, kid_subset_size: int, splits: int, neighbours: int, seed: int) -> None:
    for name, value, least in (
        ("kid_subsets", kid_subsets, 1),
        ("kid_subset_size", kid_subset_size, 2),
        ("splits", splits, 1),
        ("neighbours", neighbours, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be >= {least}, got {value}")
    if seed >= 2**32:
        raise ValueError(f"`seed` must be < 2^32, got {seed}; numpy takes no larger one")


def _check_counts(
    counts: dict[str, int], layer: Layer, fewest: int | None, kid_subset_size: int, splits: int, neighbours: int
) -> None:
    least, needed = int(layer) + 1 if fewest is None else fewest, max(kid_subset_size, splits, neighbours + 1)
    for name, count in counts.items():
        if count < least:
            raise ValueError(
                f"`{name}` must be at least {least} images, got {count}; take more, or lower `fewest` and quote "
                "the figures with their number"
            )
        if count < needed:
            raise ValueError(
                f"`{name}` must be at least {needed} images for kid_subset_size={kid_subset_size}, splits={splits} and "
                f"neighbours={neighbours}, got {count}; take more images or lower these"
            )

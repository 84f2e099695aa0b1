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

A figure cannot be compared with another unless network, weights, resizing and numbers of images are the same, so all
of these stand beside the figures. Nothing is downloaded. The extra `fid` is needed: pip install 'lcg[fid]'.
"""

import hashlib
import math
import pickle
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

Images = Tensor | NDArray[np.uint8] | str | Path
"""uint8 images (N, H, W, 3), or a folder of them."""

Layer = Literal["64", "192", "768", "2048"]

EXTRACTOR = "inception-v3-compat"
"""torch-fidelity's name of the network of the original FID: the TensorFlow graph of 2015-12-05."""

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"
PUBLISHED = "6726825d"
"""The published weights' SHA-256 begins with this, as their name says."""

NETWORK_RESIZE = "to 299x299, bilinear as in TensorFlow 1"
"""What the extractor itself does to every image."""

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = ("RGB", "L", "P")
"""Pillow's modes of 8 bits without transparency, which have one meaning as RGB."""

SHOWN = 3
"""How many offending files a message names."""


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
) -> dict[str, float | int | str | bool | None]:
    """FID, KID, inception score, precision and recall of generated images, with all that they depend on.

    Args:
        generated: (N, H, W, 3) uint8 in 0..255, or a folder of .png, .jpg or .jpeg (subfolders are not looked into).
        reference: (M, H', W', 3) real images, likewise.
        weights: the Inception weights' file; None for the one in the cache of torch.hub. Never downloaded.
        layer: which features FID, KID, precision and recall use, named by their number.
        resize: before the network's own resizing, bring the shorter side to so many pixels and crop the centre, >= 1;
            None to leave the images as they are.
        fewest: refuse sets of fewer images; None for one more than there are features, below which covariances are
            singular and FID is mostly bias.
        kid_subsets: how many subsets KID is the mean over, >= 1.
        kid_subset_size: images of each, >= 2.
        splits: how many parts the inception score is the mean over, >= 1.
        neighbours: k of the balls of precision and recall, >= 1.
        batch_size: images the network sees at once, >= 1.
        cuda: compute on the GPU.
        seed: of subsets and splits, in [0, 2^32).

    Returns:
        The figures `fid`, `kid`, `kid_std` (over subsets), `inception_score`, `inception_score_std` (over splits),
        `precision`, `recall`, `f_score` (the latter three in [0, 1]); `n_generated`, `n_reference`; `extractor`,
        `layer`, `weights_sha256`, `published_weights` (whether they are the usual ones), `network_resize`; `resize`,
        `kid_subsets`, `kid_subset_size`, `splits`, `neighbours`, `seed` and `device`; `torch_fidelity`, `torchvision`
        (versions), and `torchvision_path`, "native" or "declared operators" where its compiled operators, of which none
        is used here, do not fit this torch. JSON primitives only.

    Raises:
        FileNotFoundError: no weights, or no such folder.
        ImportError: the extra `fid` is not installed.
        TypeError: images that are not uint8.
        ValueError: images of another shape or range, with NaN, or too few; files of different sizes or modes; options
            out of range; weights that are not the network's or not finite.
    """
    _check_options(resize, kid_subsets, kid_subset_size, splits, neighbours, batch_size, seed)
    if layer not in ("64", "192", "768", "2048"):
        raise ValueError(f"`layer` must be '64', '192', '768' or '2048', got {layer!r}; FID as reported uses '2048'")
    least, needed = int(layer) + 1 if fewest is None else fewest, max(kid_subset_size, splits, neighbours + 1)
    counts = {}
    for name, images in (("generated", generated), ("reference", reference)):
        counts[name] = _checked_images(images, name, resize)
        if counts[name] < least:
            raise ValueError(
                f"`{name}` must be at least {least} images, got {counts[name]}; take more, or lower `fewest` and quote "
                "the figures with their number"
            )
        if counts[name] < needed:
            raise ValueError(
                f"`{name}` must be at least {needed} images for kid_subset_size={kid_subset_size}, splits={splits} and "
                f"neighbours={neighbours}, got {counts[name]}; take more images or lower these"
            )
    path = find_weights(weights)
    sha256 = _checked_weights(path)
    fidelity, torchvision_path = import_fidelity()
    try:
        found: dict[str, float] = fidelity.calculate_metrics(
            input1=_as_input(generated, resize),
            input2=_as_input(reference, resize),
            isc=True,
            fid=True,
            kid=True,
            prc=True,
            feature_extractor=EXTRACTOR,
            feature_extractor_weights_path=str(path),
            feature_layer_fid=layer,
            feature_layer_kid=layer,
            feature_layer_prc=layer,
            kid_subsets=kid_subsets,
            kid_subset_size=kid_subset_size,
            isc_splits=splits,
            prc_neighborhood=neighbours,
            samples_resize_and_crop=resize or 0,
            batch_size=batch_size,
            cuda=cuda,
            rng_seed=seed,
            cache=False,  # its files are pickles, whose names say nothing of the weights
            save_cpu_ram=True,  # no worker processes, no N x M matrix of distances
            verbose=False,
        )
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        raise ValueError(f"`weights` must be those of {EXTRACTOR}, {path} holds others; get them from {URL}") from error
    except np.linalg.LinAlgError as error:
        raise ValueError(f"`weights` must give finite features; FID of those of {path} does not exist") from error
    figures = _figures(fidelity, found, path)
    return {
        **figures,
        "n_generated": counts["generated"],
        "n_reference": counts["reference"],
        "extractor": EXTRACTOR,
        "layer": layer,
        "weights_sha256": sha256,
        "published_weights": sha256.startswith(PUBLISHED),
        "resize": resize,
        "network_resize": NETWORK_RESIZE,
        "kid_subsets": kid_subsets,
        "kid_subset_size": kid_subset_size,
        "splits": splits,
        "neighbours": neighbours,
        "seed": seed,
        "device": "cuda" if cuda else "cpu",
        "torch_fidelity": fidelity.__version__,
        "torchvision": version("torchvision"),
        "torchvision_path": torchvision_path,
    }


def _figures(fidelity: ModuleType, found: dict[str, float], weights: Path) -> dict[str, float]:
    """Under the names that results use."""
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
        raise ValueError(f"`weights` must give finite features, {weights} makes {', '.join(unknown)} NaN or infinite")
    return figures


def find_weights(weights: str | Path | None = None) -> Path:
    """The file of Inception weights: the given one, or the one in the cache of torch.hub.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS if weights is None else Path(weights)
    if not path.is_file():
        where = "pass `weights`, or put them there" if weights is None else "check `weights`"
        raise FileNotFoundError(
            f"no Inception weights at {path}; {where}. lcg never downloads them: get them from {URL} (91 MB)"
        )
    return path


@cache
def import_fidelity() -> tuple[ModuleType, str]:
    """torch-fidelity, and how its torchvision was imported, also beside a torch that the latter was not built for.

    Where torchvision's compiled operators do not load, its import fails for want of two names, `nms` and `qnms`, that
    it describes but that nothing here calls. Only then they are declared, and it is imported again.

    Returns:
        The module and "native" or "declared operators".

    Raises:
        ImportError: the extra `fid` is not installed.
    """
    try:
        declared = _import_torchvision()
        import torch_fidelity
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the figures of Inception need the extra `fid`, and {error.name} is not installed; pip install 'lcg[fid]'"
        ) from error
    return torch_fidelity, "declared operators" if declared else "native"


@cache  # which keeps the library: its operators vanish with it
def _import_torchvision() -> torch.library.Library | None:
    """Imports torchvision; the library that declares its missing operators, or None where they are there."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401

    return library


class _ImageArray(Dataset[Tensor]):
    """Images (N, H, W, 3) as torch-fidelity wants them, (3, H, W) one by one, resized as it does those of a folder."""

    def __init__(self, images: Tensor, resize: int | None) -> None:
        self.images, self.resize = images, resize

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        if self.resize is not None:
            from torchvision.transforms import functional

            picture = functional.resize(Image.fromarray(image.numpy()), self.resize)
            image = torch.from_numpy(np.array(functional.center_crop(picture, self.resize)))
        return image.permute(2, 0, 1)


def _as_input(images: Images, resize: int | None) -> str | _ImageArray:
    if isinstance(images, str | Path):
        return str(Path(images).resolve())  # never one of the names for which torch-fidelity downloads a data set
    return _ImageArray(torch.as_tensor(images).detach().cpu(), resize)


def _check_options(
    resize: int | None, kid_subsets: int, kid_subset_size: int, splits: int, neighbours: int, batch_size: int, seed: int
) -> None:
    for name, value, least in (
        ("resize", 1 if resize is None else resize, 1),
        ("kid_subsets", kid_subsets, 1),
        ("kid_subset_size", kid_subset_size, 2),
        ("splits", splits, 1),
        ("neighbours", neighbours, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be >= {least}, got {value}")
    if seed >= 2**32:
        raise ValueError(f"`seed` must be < 2^32, got {seed}; numpy takes no larger one")


def _checked_images(images: Images, name: str, resize: int | None) -> int:
    """How many there are."""
    if isinstance(images, str | Path):
        return _checked_folder(Path(images), name, resize)
    if not isinstance(images, Tensor | np.ndarray):
        raise TypeError(f"`{name}` must be uint8 images (N, H, W, 3) or a folder, got {type(images).__name__}")
    x = torch.as_tensor(images)
    if x.is_floating_point() and (wrong := int(x.isnan().sum())):
        raise ValueError(f"`{name}` must be uint8 images without NaN, got {wrong} of {x.numel()} values that are NaN")
    if x.dtype != torch.uint8:
        seen = f" with values in [{float(x.min()):.4g}, {float(x.max()):.4g}]" if x.numel() else ""
        raise TypeError(
            f"`{name}` must be uint8 in 0..255, got {x.dtype}{seen}; from [-1, 1]: "
            "((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)"
        )
    if x.ndim != 4 or x.shape[3] != 3 or 0 in x.shape[1:]:
        advice = "; permute(0, 2, 3, 1)" if x.ndim == 4 and x.shape[1] == 3 else ""
        raise ValueError(f"`{name}` must be (N, H, W, 3), got shape {tuple(x.shape)}{advice}")
    if x.numel() and int(x.max()) <= 1:
        raise ValueError(
            f"`{name}` must use the range 0..255, got no value above 1; multiply images in [0, 1] by 255 before "
            "the cast"
        )
    return len(x)


def _checked_folder(folder: Path, name: str, resize: int | None) -> int:
    if not folder.is_dir():
        raise FileNotFoundError(f"`{name}` must be a folder of images, {folder} is none")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"`{name}` must hold {', '.join(SUFFIXES)} files, {folder} has none; subfolders are not read")
    sizes: dict[tuple[int, int], str] = {}
    modes: list[str] = []
    for file in files:
        with Image.open(file) as image:  # reads the header only
            sizes.setdefault(image.size, file.name)
            if image.mode not in MODES or "transparency" in image.info:
                modes.append(f"{file.name} ({image.mode})")
    if modes:
        raise ValueError(
            f"`{name}` must hold 8-bit images without transparency, {', '.join(MODES)}, got {_first(modes)}; "
            "convert them, since transparency would be dropped and 16 bits cut off"
        )
    if resize is None and len(sizes) > 1:
        seen = [f"{width}x{height} ({file})" for (width, height), file in sizes.items()]
        raise ValueError(f"`{name}` must hold images of one size, got {_first(seen)}; pass `resize`")
    return len(files)


def _first(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _checked_weights(path: Path) -> str:
    """The SHA-256 of a file of finite tensors, which torch-fidelity may then load in its own, trusting way."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"`weights` must be a file of tensors only, and whole; {path} is not ({type(error).__name__}). "
            f"Get it again from {URL}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"`weights` must be a dict of tensors, {path} holds a {type(state).__name__}; see {URL}")
    wrong = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if wrong:
        raise ValueError(f"`weights` must be finite, {path} has NaN or infinity in {_first(wrong)}; see {URL}")
    return hashlib.sha256(path.read_bytes()).hexdigest()

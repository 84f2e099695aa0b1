"""Inception's features of images, chunk by chunk, from torch-fidelity's own network and as its command line has them.

Images need not be in memory at once, nor anywhere as files: features of chunks are joined, and are those of the whole.

    extractor = InceptionExtractor("weights.pth", device="cuda")
    generated = Features.join(extractor(decoded(z)) for z in latents.split(64))

They take 12 kB an image (2048 features and 1008 logits), 0.6 GB for 50,000. `lcg.metrics.inception` makes figures of
them, and `lcg.metrics.inception_cache` keeps those of a reference on disk. Nothing is downloaded.
"""

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.metrics.inception_images import Images, checked_images, first_of, image_batches
from lcg.torchvision_operators import DECLARED

Layer = Literal["64", "192", "768", "2048"]

LAYERS = ("64", "192", "768", "2048")
CLASSES = 1008
LOGITS = "logits_unbiased"
"""What torch-fidelity's inception score is made of: logits of the 1008 classes, without the last layer's bias."""

EXTRACTOR = "inception-v3-compat"
"""torch-fidelity's name of the network of the original FID: the TensorFlow graph of 2015-12-05."""

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"


@dataclass(frozen=True)
class Recipe:
    """What features depend on besides the images; only those of equal recipes can be compared.

    Attributes:
        layer: which features, named by their number.
        resize: pixels of a side before the network's own resizing; None for images as they were.
        weights_sha256: of the weights' file.
        torch_fidelity: its version.
    """

    layer: Layer
    resize: int | None
    weights_sha256: str
    torch_fidelity: str


@dataclass(frozen=True)
class Features:
    """What Inception says of N images.

    Attributes:
        features: (N, F) float32 of the recipe's layer, on the CPU.
        logits: (N, 1008) float32, likewise.
        recipe: how they were made.
        device: what computed them, "cpu" or "cuda", which agree up to rounding.

    Raises:
        ValueError: tensors of other shapes, or of different numbers of images.
    """

    features: Float[Tensor, "n features"]
    logits: Float[Tensor, "n classes"]
    recipe: Recipe
    device: str

    def __post_init__(self) -> None:
        n, expected = len(self.features), (int(self.recipe.layer), CLASSES)
        found = tuple(self.features.shape), tuple(self.logits.shape)
        if found != ((n, expected[0]), (n, expected[1])):
            raise ValueError(
                f"`features` and `logits` must be (N, {expected[0]}) and (N, {expected[1]}), got shapes {found[0]} and "
                f"{found[1]}; take them from an InceptionExtractor"
            )

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def join(cls, parts: Iterable["Features"]) -> "Features":
        """The features of all parts' images, in turn.

        Raises:
            ValueError: no part, or parts that were not made in the same way.
        """
        parts = list(parts)
        ways = list(dict.fromkeys((part.recipe, part.device) for part in parts))
        if len(ways) != 1:
            how = "; ".join(f"{recipe} on {device}" for recipe, device in ways) or "no parts"
            raise ValueError(f"`parts` must be of one extractor, got {how}; extract them anew")
        return cls(torch.cat([p.features for p in parts]), torch.cat([p.logits for p in parts]), *ways[0])


class InceptionExtractor:
    """torch-fidelity's network, from weights on this machine.

    Args:
        weights: their file; None for the one in the cache of torch.hub. Never downloaded.
        layer: which features, named by their number; FID as reported uses "2048".
        resize: before the network's own resizing to 299, bring the shorter side to so many pixels and crop the centre,
            >= 1; None to leave images as they are.
        device: what computes; features end on the CPU.
        batch_size: images the network sees at once, >= 1.

    Attributes:
        recipe: what its features depend on.

    Raises:
        FileNotFoundError: no weights.
        ImportError: the extra `fid` is not installed.
        ValueError: options out of range; weights that are not the network's or not finite.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        layer: Layer = "2048",
        resize: int | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
    ) -> None:
        check_extraction(layer, resize, batch_size)
        self.path, self.device, self.batch_size = find_weights(weights), torch.device(device), batch_size
        sha256 = _checked_weights(self.path)
        fidelity, _ = import_fidelity()
        self.recipe = Recipe(layer, resize, sha256, fidelity.__version__)
        self.network = _network(self.path, layer).to(self.device)

    @torch.no_grad()
    def __call__(self, images: Images) -> Features:
        """The features of a chunk, or of a whole set.

        Args:
            images: (N, H, W, 3) uint8 in 0..255, N >= 1, on any device; or a folder of .png, .jpg or .jpeg, in the
                order of their paths (subfolders are not looked into).

        Raises:
            FileNotFoundError: no such folder.
            TypeError: images that are not uint8.
            ValueError: images of another shape or range, with NaN, or none; files of different sizes or modes; features
                that are not finite.
        """
        if not checked_images(images, "images", self.recipe.resize):
            raise ValueError("`images` must be at least one, got none; leave out empty chunks")
        batches = image_batches(images, self.recipe.resize, self.batch_size)
        found = [[side.cpu() for side in self.network(batch.to(self.device))] for batch in batches]
        features, logits = (torch.cat(side) for side in zip(*found, strict=True))
        wrong = int((~torch.cat((features, logits), dim=1).isfinite()).any(dim=1).sum())
        if wrong:
            raise ValueError(
                f"`weights` must give finite features, {self.path} gives NaN or infinity for {wrong} of "
                f"{len(features)} images; get others from {URL}"
            )
        return Features(features, logits, self.recipe, self.device.type)


def check_extraction(layer: str, resize: int | None, batch_size: int) -> None:
    """Raises ValueError for options of `InceptionExtractor` that are out of range."""
    if layer not in LAYERS:
        raise ValueError(f"`layer` must be '64', '192', '768' or '2048', got {layer!r}; FID as reported uses '2048'")
    for name, value in (("resize", 1 if resize is None else resize), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be >= 1, got {value}")


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
    """torch-fidelity, and how its torchvision was imported (see `lcg.torchvision_operators`).

    Returns:
        The module and "native" or "declared operators".

    Raises:
        ImportError: the extra `fid` is not installed.
    """
    try:
        import torch_fidelity
        import torchvision
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the figures of Inception need the extra `fid`, and {error.name} is not installed; pip install 'lcg[fid]'"
        ) from error
    return torch_fidelity, "declared operators" if hasattr(torchvision, DECLARED) else "native"


def _network(path: Path, layer: Layer) -> torch.nn.Module:
    """Gives (features, logits) of uint8 images (B, 3, H, W)."""
    from torch_fidelity.utils import create_feature_extractor

    try:
        return create_feature_extractor(
            EXTRACTOR, [layer, LOGITS], cuda=False, feature_extractor_weights_path=str(path), verbose=False
        )
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        raise ValueError(f"`weights` must be those of {EXTRACTOR}, {path} holds others; get them from {URL}") from error


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
        raise ValueError(f"`weights` must be finite, {path} has NaN or infinity in {first_of(wrong)}; see {URL}")
    return hashlib.sha256(path.read_bytes()).hexdigest()

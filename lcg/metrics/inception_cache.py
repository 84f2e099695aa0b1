"""Inception's features of a reference, kept on disk: they are the same for everything that is compared with it.

A file belongs to (content of the images, in their order; weights; layer; resize; torch-fidelity's version) and is named
by the SHA-256 of these, so it is never looked up for anything else, and a folder holds any number of them. It is
written whole or not at all, and safetensors, so that nothing in it is executed. The SHA-256 of the features stands
beside them: a file that was cut off, or changed in any bit, is made again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lcg.data.atomic import write_atomic
from lcg.metrics.inception_features import Features, InceptionExtractor
from lcg.metrics.inception_images import Images, checked_images, image_files

Chunks = Callable[[], Iterable[Images]]
"""Makes images, one chunk after another, such as decoded latents."""

LOG = logging.getLogger(__name__)


def cached_features(
    folder: str | Path, images: Images | Chunks, extractor: InceptionExtractor, content: str | None = None
) -> Features:
    """The features of a reference, from its file in the folder or else by the extractor, which then leaves one there.

    Args:
        folder: where the files are; made if it is not there.
        images: what the extractor takes; or a function without arguments that gives chunks of it, which is called only
            where there is no file yet.
        extractor: of the features.
        content: what stands for the images: equal strings for equal images in equal order, such as a store's checksum
            and the rows decoded. None for `content_of` the images.

    Returns:
        The features; `device` says what computed them, which may have been another device than the extractor's.

    Raises:
        ValueError: a function without `content`, since its images would have to be made to be known; else as the
            extractor does.
    """
    if content is None:
        if callable(images):
            raise ValueError(
                "`content` must say what the images of a function are, got None; pass, for instance, the checksum of "
                "the store that they are decoded from, and which rows"
            )
        content = content_of(images, extractor)
    key = json.dumps({"content": content, **asdict(extractor.recipe)}, sort_keys=True)
    path = Path(folder) / f"inception-{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    if path.is_file():
        try:
            return _read(path, key, extractor)
        except (SafetensorError, ValueError) as error:
            LOG.warning("%s is damaged and made again (%s)", path, error)
    features = Features.join(map(extractor, images())) if callable(images) else extractor(images)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"key": key, "device": features.device, "sha256": _checksum(features)}
    write_atomic(path, save({"features": features.features, "logits": features.logits}, about), shared=True)
    return features


def content_of(images: Images, extractor: InceptionExtractor) -> str:
    """A SHA-256 of the images: of an array's shape and pixels, or of a folder's files, in order.

    An array and a folder of the same images differ, and so do equal pixels in other files.

    Raises:
        FileNotFoundError: no such folder.
        TypeError: images that are not uint8.
        ValueError: as the extractor does.
    """
    checked_images(images, "images", extractor.recipe.resize)
    if isinstance(images, str | Path):
        digest = hashlib.sha256(b"files")
        for file in image_files(Path(images)):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    else:
        digest = hashlib.sha256(f"array {tuple(images.shape)}".encode())
        for image in torch.as_tensor(images):
            digest.update(image.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _read(path: Path, key: str, extractor: InceptionExtractor) -> Features:
    """What the file holds.

    Raises:
        SafetensorError: a file that is not whole.
        ValueError: another file than was written.
    """
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    if about.get("key") != key or set(tensors) != {"features", "logits"}:
        raise ValueError("it holds something else")
    features = Features(**tensors, recipe=extractor.recipe, device=about.get("device", ""))
    if _checksum(features) != about.get("sha256"):
        raise ValueError("its checksum is wrong")
    return features


def _checksum(features: Features) -> str:
    digest = hashlib.sha256(features.device.encode())
    for tensor in (features.features, features.logits):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()

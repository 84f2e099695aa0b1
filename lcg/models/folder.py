"""An exported model as a folder: written whole or not at all, and read without trusting it."""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lcg import __version__
from lcg.checkpoint import UNREADABLE, Kind, LoadedNetwork, build, statistics_of, statistics_tensors
from lcg.data.statistics import Statistics
from lcg.data.store.checks import check_labels
from lcg.generators.base import latents_sha256_of
from lcg.models.card import write_card
from lcg.models.description import CLASSIFIER_FILE, FILES, PRIOR_FILE, STATISTICS_FILE, Description, File, Network
from lcg.models.gallery import FOLDER as GALLERY
from lcg.models.gallery import HeldOut
from lcg.models.names import EXPORTED
from lcg.models.sizes import SHARED, network_shapes
from lcg.models.tensors import check_header, packed, read_header, read_tensors, write_tensors
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser

CARD = "README.md"
OWN_FILES = {EXPORTED, CARD, *FILES}
"""All that `lcg export` leaves beside a gallery; a folder that holds anything else is not replaced."""

FILE_OF: Mapping[Kind, str] = {"denoiser": PRIOR_FILE, "classifier": CLASSIFIER_FILE}


def write_model(
    folder: Path,
    prior: LoadedNetwork[LatentDenoiser],
    classifier: LoadedNetwork[TimeConditionedClassifier],
    dtype: str = "float32",
    license: str | None = None,
    gallery: HeldOut | None = None,
) -> Description:
    """Writes an exported model. It appears whole, in the place of an earlier one.

    Args:
        folder: where; what it holds is replaced.
        prior: as loaded, and checked against the classifier by `load_networks`.
        classifier: likewise.
        dtype: of the networks' matrices, "float32", "float16" or "bfloat16".
        license: of the weights, for the card.
        gallery: rows that go with it; None for none.

    Raises:
        ValueError: weights are not finite, or not in that precision.
        OSError: the folder cannot be written.
    """
    weights = {
        kind: {f"{kind}.{name}": tensor for name, tensor in loaded.network.state_dict().items()}
        for kind, loaded in (("denoiser", prior), ("classifier", classifier))
    }
    contents = {
        PRIOR_FILE: packed(weights["denoiser"], dtype),
        CLASSIFIER_FILE: packed(weights["classifier"], dtype) | {"labels": classifier.labels},
        STATISTICS_FILE: statistics_tensors(prior.statistics),
    }
    token = secrets.token_hex(4)
    aside = folder.with_name(f".{folder.name}.{token}.tmp")
    aside.mkdir(parents=True)
    try:
        files = {name: File(*write_tensors(aside / name, tensors)) for name, tensors in contents.items()}
        description = describe(prior, classifier, dtype, files)
        if gallery is not None:
            gallery.write(aside / GALLERY)
        rows = 0 if gallery is None else len(gallery.rows)
        card = write_card(folder.name, description, classifier.labels, license, rows)
        for name, text in ((EXPORTED, description.to_json()), (CARD, card)):
            _write(aside / name, text)
        _sync(aside)
        _put(aside, folder, folder.with_name(f".{folder.name}.{token}.old"))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return description


def describe(
    prior: LoadedNetwork[LatentDenoiser],
    classifier: LoadedNetwork[TimeConditionedClassifier],
    dtype: str,
    files: Mapping[str, File],
) -> Description:
    """What `model.json` says of two networks in these files."""

    def network(loaded: LoadedNetwork[Any]) -> Network:
        return Network({name: loaded.config[name] for name in loaded.config if name not in SHARED}, loaded.training)

    provenance = dict(classifier.provenance)  # labels may have been added to the prior's latents
    generator = provenance.pop("generator", {"weights_sha256": prior.generator} if prior.generator else {})
    return Description(
        latent_shape=tuple(prior.config["latent_shape"]),
        schedule=prior.config["schedule"],
        schema=classifier.network.schema,
        dtype=dtype,
        files=files,
        prior=network(prior),
        classifier=network(classifier),
        distilled=prior.distilled,
        calibration=classifier.calibration,
        store=classifier.store,
        generator=generator,
        provenance=provenance,
        made_with={"lcg": __version__, "torch": torch.__version__},
    )


def read_network(folder: Path, kind: Kind) -> LoadedNetwork[Any]:
    """The prior (`denoiser`) or the classifiers (`classifier`) of an exported model, on the CPU.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it has no network of that kind; or it is damaged, or none of ours.
    """
    if kind not in FILE_OF:
        raise ValueError(f"{folder} holds a prior and classifiers, expected a {kind}; give the checkpoint of one")
    said = Description.read(folder)
    is_prior, config = kind == "denoiser", said.network_config(kind)
    labels, path = torch.zeros(0, 0), folder / FILE_OF[kind]
    with _blaming(path):
        found = read_header(path)
        shapes = network_shapes(kind, config, found)
        rows = found["labels"][1][:1] if "labels" in found else ()
        others = {} if is_prior else {"labels": (*rows, len(said.schema))}
        check_header(found, shapes, others, said.dtype)
        tensors = read_tensors(path, said.files[path.name].bytes, said.files[path.name].sha256)
        network = build(kind, config)
        network.load_state_dict({name.removeprefix(f"{kind}."): tensors[name] for name in shapes})
        if not is_prior:
            labels = tensors["labels"]
            check_labels(labels.numpy(), said.schema, torch.arange(len(labels)).numpy())
    origin = {"generator": dict(said.generator)} if said.generator else {}
    return LoadedNetwork(
        network.eval().requires_grad_(False),
        _read_statistics(folder, said),
        said.store,
        latents_sha256_of(said.generator),
        config,
        folder,
        {} if is_prior else dict(said.calibration),
        labels,
        said.distilled and is_prior,
        {**said.provenance, **origin},
        dict((said.prior if is_prior else said.classifier).training),
    )


def _read_statistics(folder: Path, said: Description) -> Statistics:
    path, shape = folder / STATISTICS_FILE, said.latent_shape
    with _blaming(path):
        found = read_header(path)
        shapes: dict[str, tuple[int, ...]] = {"mean": shape, "std": shape}
        if "whitening_matrix" in found:
            size = math.prod(shape)
            shapes |= {"whitening_matrix": (size, size), "whitening_inverse": (size, size)}
        check_header(found, {}, shapes, said.dtype)
        return statistics_of(read_tensors(path, said.files[path.name].bytes, said.files[path.name].sha256))


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Whatever is wrong while this file is read is the file's fault."""
    try:
        yield
    except UNREADABLE as error:
        told = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is not what {EXPORTED} beside it describes: {told}; export or copy the model again"
        ) from error


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _put(aside: Path, folder: Path, old: Path) -> None:
    """Puts a folder in the place of another, which is gone only when that is done."""
    replaced = folder.is_dir() and any(folder.iterdir())  # which no rename can do in one step
    if replaced:
        folder.rename(old)
    try:
        aside.rename(folder)
    except OSError:
        if replaced:
            old.rename(folder)
        raise
    _sync(folder.parent)
    if replaced:
        shutil.rmtree(old)


def _sync(folder: Path) -> None:
    """Writes a folder's list of files through to the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)

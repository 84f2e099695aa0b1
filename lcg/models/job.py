"""`lcg export`: prior and classifiers as one folder that may be given to others.

Everything that can be wrong is found before anything is written: networks that do not fit together, a name that is
taken, a folder that holds something else or cannot be written.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lcg.checkpoint import LoadedNetwork, load_networks
from lcg.data.store import LatentStore
from lcg.models.figures import run_record
from lcg.models.folder import OWN_FILES, write_model
from lcg.models.gallery import FOLDER, HeldOut
from lcg.models.names import named_folder
from lcg.pipeline import CLASSIFIER, PRIOR
from lcg.places import make_writable, refuse_occupied

LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*", re.ASCII)

DType = Literal["float32", "float16", "bfloat16"]


def export_job(
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
    out: str | None = None,
    name: str | None = None,
    store: str | None = None,
    dtype: DType = "float32",
    license: str | None = None,
    gallery: int = 0,
    overwrite: bool = False,
) -> None:
    """Writes prior and classifiers, with all that belongs to them, as one folder to give to others.

    The folder holds model.json, prior.safetensors, classifier.safetensors, statistics.safetensors, the model card
    README.md and, if wanted, a gallery. It is read by lcg.load("NAME_OR_FOLDER") and by --model of other commands.

    Args:
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        out: the folder.
        name: in the place of `out`, a name by which the model is found: $LCG_MODELS/NAME, by default
            ~/.cache/lcg/models/NAME.
        store: the latent store that both were fitted on, which says where the data came from when the checkpoints do
            not, as those of earlier versions.
        dtype: of the networks' matrices in the files; float16 or bfloat16 halve them, and round the weights.
        license: of the weights, for the card, such as apache-2.0.
        gallery: so many latents of `store` with their labels, that neither was trained on, as a gallery in the folder.
        overwrite: replace an exported model.
    """
    folder = target(out, name)
    if license is not None and not LICENSE.fullmatch(license):
        raise ValueError(f"`license` must be an identifier such as apache-2.0 or cc-by-4.0, got {license[:80]!r}")
    if gallery < 0 or (gallery and store is None):
        raise ValueError(f"`gallery` must be >= 0, and needs `store`, got {gallery}; give --store, or leave it out")
    check_target(folder, overwrite)
    p, c = load_networks(prior, classifier, distilled=True)
    if store is not None:
        c = replace(c, provenance=provenance_of(store, c))
    p, c = with_figures(p), with_figures(c)
    held_out = HeldOut.of(LatentStore.open(store), gallery, p, c) if store is not None and gallery else None
    make_writable(str(folder.parent))
    description = write_model(folder, p, c, dtype, license, held_out)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{file.stat().st_size:>12,}  {file}")
    numbers = sum(parameter.numel() for network in (p.network, c.network) for parameter in network.parameters())
    print(f"{numbers:,} weights in {description.dtype}, {len(description.schema)} attributes: {folder}")
    print(f'load it with lcg.load("{name if name is not None else folder}"), or --model of other commands')


def target(out: str | None, name: str | None) -> Path:
    """The folder to write. Raises ValueError unless exactly one of both is given."""
    if (out is None) == (name is None):
        raise ValueError(
            "give either `out`, a folder, or `name`, by which the model shall be found; such as --name mine"
        )
    if name is not None:
        return named_folder(name)
    return Path(os.path.realpath(str(out)))  # a folder, not a link to it, can be replaced


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises FileExistsError when the folder holds something that must not be replaced."""
    refuse_occupied(str(folder), overwrite)
    foreign = (
        sorted(path.name for path in folder.iterdir() if path.name not in {*OWN_FILES, FOLDER})
        if folder.is_dir()
        else []
    )
    if foreign:
        raise FileExistsError(
            f"{folder} holds {foreign[0]}, which is no part of an exported model; move it away, or choose another --out"
        )


def provenance_of(store: str, classifier: LoadedNetwork[Any]) -> dict[str, Any]:
    """What a store says of its data. Raises ValueError when the classifiers were fitted on another one."""
    opened = LatentStore.open(store)
    if opened.fingerprint != classifier.store:
        raise ValueError(f"{classifier.path} was fitted on another store than {store}; give its own, or none")
    return dict(opened.provenance)


def with_figures(loaded: LoadedNetwork[Any]) -> LoadedNetwork[Any]:
    """The network with what the run folder beside its checkpoint says of its training."""
    if not loaded.path.is_file():  # exported already
        return loaded
    record = run_record(loaded.path, loaded.training.get("steps", 0))
    return replace(loaded, training={**loaded.training, **record})

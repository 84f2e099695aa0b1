"""FFHQ, as it is distributed, with what others have found out about its images.

    ROOT/images1024x1024/00000/00012.png       70 000 aligned images, or a folder thumbnails128x128 or images256x256
    ROOT/in-the-wild-images/00000/00012.png    the photographs that they were cut from
    ROOT/ffhq-dataset-v2.json                  which are for training (60 000), which for validation, and landmarks
    ROOT/json/00012.json                       attributes of each (github.com/DCGM/ffhq-features-dataset)

Attributes are estimates of a service, so binary ones are scores cut at a threshold: male, glasses, smile, beard,
moustache, sideburns, bald, eye_makeup, lip_makeup, headwear; hair is the likeliest colour; age is in years, yaw, pitch
and roll of the head in degrees. Where no face was found, all are unknown; so is the colour of hair that is hidden.

Photographs in the wild are brought into the frame by their 68 landmarks, see `lcg.data.alignment`. Reference: Karras et
al. 2019, arXiv:1812.04948.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lcg.data.alignment import square_of
from lcg.data.imagefiles import ImageFiles
from lcg.data.reading import Reading, in_order
from lcg.schema import Attribute, Schema, unknown_name

Split = Literal["train", "val", "all"]
CATEGORY = {"train": "training", "val": "validation"}
HAIR = ("black", "blond", "brown", "gray", "red", "white", "other")
SCHEMA = Schema(
    (
        *map(Attribute, ("male", "glasses", "smile", "beard", "moustache", "sideburns", "bald")),
        *map(Attribute, ("eye_makeup", "lip_makeup", "headwear")),
        Attribute("hair", "categorical", HAIR),
        *(Attribute(name, "continuous") for name in ("age", "yaw", "pitch", "roll")),
    )
)
WILD = "in-the-wild-images"


class FFHQ(ImageFiles):
    """Flickr-Faces-HQ.

    Args:
        root: the folder of the data set.
        images: the folder of the images in it; `in-the-wild-images` are aligned as they are read, for which
            `reading.size` and `ffhq-dataset-v2.json` are needed.
        features: folder of the attributes in `root`, a JSON file per image.
        split: train or val, for which `ffhq-dataset-v2.json` is needed; or all.
        schema: which of the attributes to read, with their kinds and values here; all of them when None.
        threshold: of the scores of binary attributes.
        reading: size and fit of the images, and how they are read.

    Raises:
        FileNotFoundError: a folder, a file of attributes or an image is missing.
        ValueError: a file cannot be read, or `schema` has other attributes.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        images: str = "images1024x1024",
        features: str = "json",
        split: Split = "all",
        schema: Schema | None = None,
        threshold: float = 0.5,
        reading: Reading = Reading(),  # noqa: B008 (frozen)
    ) -> None:
        folder, told = Path(root) / images, Path(root) / features
        for path in (folder, told):
            if not path.is_dir():
                raise FileNotFoundError(f"no folder {path}; give the folder of FFHQ as `root`, and the names in it")
        if split not in (*CATEGORY, "all"):
            raise ValueError(f"`split` must be one of {', '.join(CATEGORY)}, all; got {split!r}")
        wild = Path(images).name == WILD
        if wild and (not isinstance(reading.size, int) or reading.landmarks is not None):
            raise ValueError(f"{WILD} are aligned by FFHQ's landmarks: give `reading.size`, and no `reading.landmarks`")
        schema = _chosen(schema)
        listing = _listing(Path(root)) if wild or split != "all" else {}
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.[pj][np]g"))
        if split != "all":
            files = [file for file in files if listing[_number(file)]["category"] == CATEGORY[split]]
        digest = hashlib.sha256()

        def read(i: int) -> tuple[bytes, list[float]]:
            return _features(told / f"{_number(files[i]):05d}.json", schema, threshold)

        labels = np.empty((len(files), len(schema)), np.float32)
        for i, (data, row) in enumerate(in_order(read, len(files), reading.threads, "attributes")):
            digest.update(data)
            labels[i] = row
        super().__init__(
            folder,
            files,
            labels,
            schema,
            {"table_sha256": digest.hexdigest(), "threshold": threshold, "aligned": not wild},
            reading,
            squares=_squares(files, listing) if wild else None,
        )


def _number(file: str) -> int:
    """The number of an image. Raises ValueError where its name is none."""
    stem = Path(file).stem
    if not stem.isdecimal():
        raise ValueError(f"images of FFHQ are named by numbers, such as 00000/00012.png, got {file}; remove it")
    return int(stem)


def _listing(root: Path) -> dict[int, Any]:
    """The entries of ffhq-dataset-v2.json by number."""
    path = root / "ffhq-dataset-v2.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; it says which images are for training, and where the landmarks are")
    try:
        return {int(number): entry for number, entry in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; fetch it again") from error


def _squares(files: list[str], listing: Mapping[int, Any]) -> NDArray[np.float64]:
    points = [listing[_number(file)]["in_the_wild"]["face_landmarks"] for file in files]
    return square_of(np.array(points, np.float64).reshape(len(files), 68, 2))


def _chosen(schema: Schema | None) -> Schema:
    """The attributes to read. Raises ValueError for others than there are."""
    for attribute in schema or ():
        if attribute.name not in SCHEMA:
            raise unknown_name("attribute", attribute.name, SCHEMA.names, "FFHQ")
        known = SCHEMA[attribute.name]
        if (attribute.kind, attribute.values) != (known.kind, known.values):
            raise ValueError(
                f"`schema`: {attribute.name!r} of FFHQ is {known.kind} {', '.join(known.values)}, got "
                f"{attribute.kind} {', '.join(attribute.values)}; take it as it is"
            )
    return schema or SCHEMA


def _features(path: Path, schema: Schema, threshold: float) -> tuple[bytes, list[float]]:
    """The bytes of a file of attributes, and the labels (A,) in it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no attributes at {path}; add the file, or remove its image") from error
    try:
        faces = json.loads(data)
        if not faces:
            return data, [math.nan] * len(schema)
        told = dict(_attributes(faces[0]["faceAttributes"], threshold))
        return data, [float(told[name]) for name in schema.names]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path} is no file of ffhq-features-dataset: {type(error).__name__} {error}; fetch it again"
        ) from error


def _attributes(face: Mapping[str, Any], threshold: float) -> Iterator[tuple[str, float]]:
    """Attributes of a face and their labels."""

    def score(value: float) -> float:
        return float(value >= threshold)

    yield "male", {"male": 1.0, "female": 0.0}.get(face["gender"], math.nan)
    yield "glasses", float(face["glasses"] != "NoGlasses")
    yield "smile", score(face["smile"])
    yield from ((name, score(face["facialHair"][name])) for name in ("beard", "moustache", "sideburns"))
    yield "bald", score(face["hair"]["bald"])
    yield "eye_makeup", float(face["makeup"]["eyeMakeup"])
    yield "lip_makeup", float(face["makeup"]["lipMakeup"])
    yield "headwear", float(any(a["type"] == "headwear" and a["confidence"] >= threshold for a in face["accessories"]))
    colours = {entry["color"]: entry["confidence"] for entry in face["hair"]["hairColor"]}
    likeliest = max(colours, key=colours.__getitem__) if colours and not face["hair"]["invisible"] else None
    yield "hair", HAIR.index(likeliest) if likeliest in HAIR else math.nan
    yield "age", face["age"]
    yield from ((name, face["headPose"][name]) for name in ("yaw", "pitch", "roll"))

"""FFHQ in small: attributes of the files of features, parts and landmarks of the listing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lcg.data.alignment import square_of
from lcg.data.ffhq import FFHQ, SCHEMA
from lcg.data.images import provenance_of
from lcg.data.reading import Reading
from lcg.schema import Attribute, Schema

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def face(**changes: Any) -> list[Any]:
    """A file of features as the service has answered."""
    attributes = {
        "smile": 0.9,
        "headPose": {"pitch": -1.5, "roll": 2.0, "yaw": 30.0},
        "gender": "female",
        "age": 27.0,
        "facialHair": {"moustache": 0.0, "beard": 0.6, "sideburns": 0.1},
        "glasses": "NoGlasses",
        "makeup": {"eyeMakeup": True, "lipMakeup": False},
        "accessories": [{"type": "headwear", "confidence": 0.99}],
        "hair": {
            "bald": 0.02,
            "invisible": False,
            "hairColor": [{"color": "brown", "confidence": 0.7}, {"color": "red", "confidence": 0.9}],
        },
    }
    return [{"faceId": "x", "faceAttributes": attributes | changes}]


def landmarks(shift: float) -> list[list[float]]:
    """68 points: eyes at (23.5 and 39.5, 29.9), mouth at 45.9; for shift 0 the square is the image."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[48], points[54] = (23.5, 29.9), (39.5, 29.9), (25.5, 45.9), (37.5, 45.9)
    return (points + np.array([shift, 0])).tolist()


def ffhq(root: Path) -> Path:
    hidden = {"hair": {"bald": 0.9, "invisible": True, "hairColor": []}, "glasses": "Sunglasses", "gender": "male"}
    faces = {0: face(), 1: [], 1000: face(**hidden, smile=0.4, accessories=[])}
    entries = {}
    for number, told in faces.items():
        for folder in ("images1024x1024", "in-the-wild-images"):
            path = root / folder / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(NOISE).save(path)
        (root / "json").mkdir(exist_ok=True)
        (root / "json" / f"{number:05d}.json").write_text(json.dumps(told))
        category = "validation" if number == 1000 else "training"
        shift = 0.0 if number == 0 else 5.0
        entries[str(number)] = {"category": category, "in_the_wild": {"face_landmarks": landmarks(shift)}}
    (root / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    return root


def test_attributes_are_those_of_the_features(tmp_path: Path) -> None:
    source = FFHQ(ffhq(tmp_path))
    assert source.schema == SCHEMA and source.files == ["00000/00000.png", "00000/00001.png", "01000/01000.png"]
    told = [dict(zip(SCHEMA.names, row, strict=True)) for row in source.labels.tolist()]
    assert told[0] == {
        **{"male": 0, "glasses": 0, "smile": 1, "beard": 1, "moustache": 0, "sideburns": 0, "bald": 0},
        **{"eye_makeup": 1, "lip_makeup": 0, "headwear": 1, "hair": SCHEMA["hair"].value_index("red")},
        **{"age": 27, "yaw": 30, "pitch": -1.5, "roll": 2},
    }
    assert np.isnan(source.labels[1]).all()  # no face was found
    assert np.isnan(told[2]["hair"]) and told[2]["male"] == told[2]["glasses"] == told[2]["bald"] == 1
    assert told[2]["smile"] == told[2]["headwear"] == 0
    lower = FFHQ(tmp_path, schema=Schema((Attribute("age", "continuous"), Attribute("smile"))), threshold=0.3)
    assert np.array_equal(lower.labels[[0, 2]], [[27, 1], [27, 1]])
    assert (source.chunk(0, 3)[0] == NOISE).all() and lower.identity() != source.identity()


def test_parts_are_those_of_the_listing(tmp_path: Path) -> None:
    ffhq(tmp_path)
    train, val = FFHQ(tmp_path, split="train"), FFHQ(tmp_path, split="val")
    assert train.files == ["00000/00000.png", "00000/00001.png"] and val.files == ["01000/01000.png"]
    assert train.identity()["table_sha256"] != val.identity()["table_sha256"]
    assert provenance_of(val=val)["fingerprints"]["val"]["files"] == 1


def test_photographs_in_the_wild_are_aligned(tmp_path: Path) -> None:
    source = FFHQ(ffhq(tmp_path), "in-the-wild-images", reading=Reading(64))
    images = source.chunk(0, 3)[0]
    assert np.array_equal(images[0], NOISE) and np.array_equal(images[1][:, :59], NOISE[:, 5:])
    assert square_of(np.array(landmarks(5)))[0] == pytest.approx(36.5)
    assert source.identity()["aligned"] is False
    with pytest.raises(ValueError, match=r"are aligned by FFHQ's landmarks: give `reading\.size`"):
        FFHQ(tmp_path, "in-the-wild-images")


def test_mistakes_are_named(tmp_path: Path) -> None:
    root = ffhq(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder .*thumbnails; give the folder of FFHQ as `root`"):
        FFHQ(root, "thumbnails")
    with pytest.raises(ValueError, match="`split` must be one of train, val, all; got 'test'"):
        FFHQ(root, split="test")
    with pytest.raises(ValueError, match=r"unknown attribute 'smiling'; did you mean 'smile'\? FFHQ has: male"):
        FFHQ(root, schema=Schema((Attribute("smiling"),)))
    with pytest.raises(ValueError, match="`schema`: 'age' of FFHQ is continuous , got binary ; take it as it is"):
        FFHQ(root, schema=Schema((Attribute("age"),)))
    (root / "ffhq-dataset-v2.json").write_text("{")
    with pytest.raises(ValueError, match=r"ffhq-dataset-v2\.json cannot be read: .*fetch it again"):
        FFHQ(root, split="val")
    (root / "ffhq-dataset-v2.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*ffhq-dataset-v2\.json; it says which images are for training"):
        FFHQ(root, split="val")
    (root / "json" / "00001.json").write_text('[{"faceAttributes": {}}]')
    with pytest.raises(ValueError, match=r"00001\.json is no file of ffhq-features-dataset: KeyError 'gender'"):
        FFHQ(root)
    (root / "json" / "00001.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no attributes at .*00001\.json; add the file, or remove its image"):
        FFHQ(root)
    (root / "json" / "00001.json").write_text("[]")
    Image.new("RGB", (64, 64)).save(root / "images1024x1024" / "me.png")
    with pytest.raises(ValueError, match=r"images of FFHQ are named by numbers, .*got me\.png"):
        FFHQ(root)

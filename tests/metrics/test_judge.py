"""The judge with weights of its own making: what matters is that batches, heads, features and files fit together."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcg.metrics.judge import AvatarJudge, Judge
from lcg.nets.heads import predict_labels
from lcg.schema import Attribute, Schema
from lcg.weights import save_weights

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black"), applies_if={"hat": False}),
        Attribute("age", "continuous"),
    )
)


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    judge = Judge(SCHEMA, (3, 32, 16), width=4, features=10)
    judge.train()
    for seed in range(3):  # gives batch normalisation statistics that are not those of the test images
        judge(images(seed=seed) * 0.5)
    return judge.eval()


def images(n: int = 5, seed: int = 9) -> Tensor:
    return torch.rand(n, 3, 32, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_heads_read_the_features(judge: Judge) -> None:
    x = images()
    assert judge.features(x).shape == (5, 10)
    outputs = judge(x)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "hat": (5,),
        "hair": (5, 3),
        "age": (5, 2),
    }
    flat = judge.heads(judge.features(x))
    torch.testing.assert_close(torch.cat((outputs["hat"][:, None], outputs["hair"], outputs["age"]), 1), flat)


def test_judging_gives_labels_and_features_in_batches(judge: Judge) -> None:
    x = images(7)
    labels, features = judge.judge(x)
    assert not labels.requires_grad and not features.requires_grad
    torch.testing.assert_close(features, judge.features(x))
    torch.testing.assert_close(labels, predict_labels(SCHEMA, judge(x)), equal_nan=True)
    for batch_size in (1, 3, 7):
        parts = judge.judge(x, batch_size)
        torch.testing.assert_close(parts[0], labels, rtol=1e-5, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(parts[1], features, rtol=1e-5, atol=1e-5)


def test_images_of_another_size_are_refused(judge: Judge) -> None:
    with pytest.raises(ValueError, match=r"the judge expects images of shape \(3, 32, 16\), got \(3, 64, 64\); resize"):
        judge(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"sides divisible by 16, got \(3, 64, 60\); resize the images"):
        Judge(SCHEMA, (3, 64, 60))


def test_released_weights_build_the_same_judge_frozen(judge: Judge, tmp_path: Path) -> None:
    save_weights(tmp_path / "judge.safetensors", judge, judge.config, {"trained_on": "nothing"})
    released = AvatarJudge(str(tmp_path / "judge.safetensors"))
    assert released.schema == SCHEMA and released.image_shape == (3, 32, 16)
    assert released.provenance == {"trained_on": "nothing"}
    assert not released.training and not any(p.requires_grad for p in released.parameters())
    x = images()
    torch.testing.assert_close(released.features(x), judge.features(x), rtol=5e-3, atol=5e-3)  # matrices are float16


def test_files_that_hold_no_judge_are_refused(judge: Judge, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere"):
        AvatarJudge(str(tmp_path / "nowhere.safetensors"))
    path = tmp_path / "other.safetensors"
    save_weights(path, nn.Linear(2, 2), {"latent_dim": 4}, {})
    with pytest.raises(ValueError, match=r"other\.safetensors does not hold a judge .*export it again"):
        AvatarJudge(str(path))
    save_weights(path, nn.Linear(2, 2), judge.config, {})
    with pytest.raises(ValueError, match="does not hold a judge"):
        AvatarJudge(str(path))

"""The judge with weights of its own making: what matters is that batches, heads, features and files fit together."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcg.metrics.judge import AvatarJudge, Judge, Judgement, TrainedJudge
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


def test_judging_gives_labels_features_and_probabilities_in_batches(judge: Judge) -> None:
    x = images(7)
    seen = judge.judge(x)
    assert isinstance(seen, Judgement) and not any(tensor.requires_grad for tensor in vars(seen).values())
    torch.testing.assert_close(seen.features, judge.features(x))
    torch.testing.assert_close(seen.labels, predict_labels(SCHEMA, judge(x)), equal_nan=True)
    for batch_size in (1, 3, 7):
        parts = judge.judge(x, batch_size)
        for name, whole in vars(seen).items():
            torch.testing.assert_close(getattr(parts, name), whole, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_probabilities_are_those_of_the_binary_heads(judge: Judge) -> None:
    x = images(7)
    seen = judge.judge(x)
    torch.testing.assert_close(seen.probabilities[:, 0], judge(x)["hat"].sigmoid())
    assert torch.equal(seen.probabilities[:, 0] > 0.5, seen.labels[:, 0] == 1)
    assert seen.probabilities[:, 1:].isnan().all()


@pytest.mark.parametrize("factor", [2, 3])
def test_larger_images_are_averaged_down(judge: Judge, factor: int) -> None:
    x = images()
    enlarged = x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    torch.testing.assert_close(judge.features(enlarged), judge.features(x), rtol=1e-5, atol=1e-5)
    noise = torch.randn(1, 1, *enlarged.shape[2:], generator=torch.Generator().manual_seed(0))
    blocks = noise.unfold(2, factor, factor).unfold(3, factor, factor).mean((4, 5))
    torch.testing.assert_close(judge.shrunk(enlarged + noise), x + blocks, rtol=1e-5, atol=1e-5)
    assert judge.factor((3, 32, 16)) == 1 and judge.factor(tuple(enlarged.shape[1:])) == factor


def test_images_of_another_size_are_refused(judge: Judge) -> None:
    for shape in ((3, 64, 64), (3, 16, 8), (3, 48, 24), (1, 32, 16)):
        expected = (
            rf"the judge expects images of shape \(3, 32, 16\), or .* whole multiple .*got \({shape[0]}, {shape[1]}"
        )
        with pytest.raises(ValueError, match=expected):
            judge(torch.zeros(1, *shape))
    with pytest.raises(ValueError, match=r"sides divisible by 16, got \(3, 64, 60\); resize the images"):
        Judge(SCHEMA, (3, 64, 60))


@pytest.mark.parametrize("released_class", [AvatarJudge, TrainedJudge])
def test_released_weights_build_the_same_judge_frozen(
    judge: Judge, tmp_path: Path, released_class: type[TrainedJudge]
) -> None:
    path = tmp_path / "judge.safetensors"
    save_weights(path, judge, judge.config, {"trained_on": "nothing"})
    released = released_class(str(path))
    assert released.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and judge.file_sha256 == ""
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

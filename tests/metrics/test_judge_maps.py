"""The judge's maps are those that its features are made from."""

import pytest
import torch

from lcg.metrics.judge import Judge
from lcg.metrics.judge_maps import JudgeMaps
from lcg.metrics.pair_metric import PerceptualDistance
from lcg.schema import Attribute, Schema


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(Schema((Attribute("hat"),)), (3, 32, 16), width=4, features=10).eval()


def images(n: int = 4, seed: int = 9) -> torch.Tensor:
    return torch.rand(n, 3, 32, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_last_map_gives_the_features(judge: Judge) -> None:
    x = images()
    maps = JudgeMaps(judge)(x)
    assert [tuple(m.shape) for m in maps] == [(4, 4, 16, 8), (4, 8, 8, 4), (4, 16, 4, 2), (4, 16, 2, 1)]
    torch.testing.assert_close(judge.trunk[-1](maps[-1].flatten(1)), judge.features(x))


def test_it_stays_frozen_in_eval_mode_and_leaves_the_judge_alone(judge: Judge) -> None:
    judge.train()
    maps, before = JudgeMaps(judge), {name: x.clone() for name, x in judge.state_dict().items()}
    metric = PerceptualDistance(maps).train()
    assert judge.training and not any(module.training for module in maps.modules())
    assert not any(p.requires_grad for p in maps.parameters()) and all(p.requires_grad for p in judge.parameters())
    metric.update(images(), images(seed=1))
    assert all(x.equal(before[name]) for name, x in judge.state_dict().items())
    torch.testing.assert_close(maps(images())[-1][:1], maps(images()[:1])[-1])


def test_more_different_images_are_further_apart(judge: Judge) -> None:
    near, far = (PerceptualDistance(JudgeMaps(judge)) for _ in range(2))
    near.update(images(), 0.95 * images() + 0.05 * images(seed=1))
    far.update(images(), images(seed=1))
    assert 0 < float(near.compute().value) < 0.1 * float(far.compute().value)


def test_images_of_another_shape_are_refused(judge: Judge) -> None:
    with pytest.raises(ValueError, match=r"the judge expects images of shape \(3, 32, 16\).*got \(3, 16, 16\)"):
        JudgeMaps(judge)(torch.zeros(1, 3, 16, 16))

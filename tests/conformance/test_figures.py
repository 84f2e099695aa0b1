from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lcg.conformance.figures import draw_pair
from lcg.conformance.outcome import Check, Measurement, Outcome
from lcg.conformance.pair import Data, Pair
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Attribute, Schema


def shown(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).reshape(
            picture.height, picture.width, 3
        )


@pytest.mark.parametrize("attribute", [Attribute("coin"), Attribute("age", "continuous")])
@pytest.mark.parametrize("with_data", [True, False])
def test_pairs_of_all_kinds_can_be_drawn(tmp_path: Path, attribute: Attribute, with_data: bool) -> None:
    classifier = TimeConditionedClassifier((2,), Schema((attribute,)), width=4, depth=1)
    data = Data(torch.randn(20, 2), torch.ones(20, 1)) if with_data else None
    draw_pair(Pair(LatentDenoiser((2,), width=4, depth=1), classifier, data, samples=20), [], tmp_path / "p.png")
    drawn = shown(tmp_path / "p.png")
    assert tuple(drawn.shape) == (572, 1560, 3)
    blue = torch.tensor([0x1F, 0x6F, 0xB5], dtype=torch.uint8)  # of the first binary attribute
    assert bool((drawn == blue).all(2).any()) == (attribute.kind == "binary")


def test_what_failed_is_drawn_bold(tmp_path: Path) -> None:
    classifier = TimeConditionedClassifier((2,), Schema((Attribute("coin"),)), width=4, depth=1)
    pair = Pair(LatentDenoiser((2,), width=4, depth=1), classifier, samples=20)
    inked = []
    for value in (0.0, 1.0):
        check = Check("path", "trained pair", "both", "coin", list)
        draw_pair(pair, [Outcome(check, (Measurement("drift", value, 0.5),), 0.0)], tmp_path / "p.png")
        blue = torch.tensor([0x1F, 0x6F, 0xB5], dtype=torch.uint8)
        inked.append(int((shown(tmp_path / "p.png") == blue).all(2).sum()))
    assert inked[1] > 1.3 * inked[0]

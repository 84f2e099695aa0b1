"""The picture is drawn for every kind of attribute, and drawing it changes nothing else."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from lcg.metrics.diagnostics import Diagnosis, diagnose
from lcg.metrics.diagnostics_plot import BLUE, draw
from lcg.metrics.temperature import Observed
from lcg.nets.classifier import LEVELS
from lcg.nets.heads import JointOutputs
from lcg.schema import Attribute, Schema

KINDS = (Attribute("hat"), Attribute("hair", "categorical", ("a", "b", "c")), Attribute("age", "continuous"))


def diagnosis(attributes: tuple[Attribute, ...], n: int = 300, joint: bool = False, highest: float = 1.0) -> Diagnosis:
    g = torch.Generator().manual_seed(0)
    schema = Schema(attributes)

    def heads(*shape: int) -> dict[str, torch.Tensor]:
        return {a.name: torch.randn(*shape, *(() if a.kind == "binary" else (a.outputs,)), generator=g) for a in schema}

    outputs = heads(n)
    if joint:
        outputs = JointOutputs(torch.randn(n, 4, generator=g).log_softmax(1), heads(n, 4), outputs)
    labels = torch.stack([torch.randint(2, (n,), generator=g).float() for _ in attributes], dim=1)
    observed = Observed(schema, outputs, highest * torch.rand(n, generator=g), labels)
    return diagnose(observed, torch.linspace(-1, 0.3, LEVELS), 5)


@pytest.mark.parametrize(
    "attributes, joint, highest",
    [(KINDS, False, 1.0), (KINDS, True, 1.0), (KINDS[:1], True, 0.5), (KINDS[2:], False, 1)],
)
def test_it_is_drawn(tmp_path: Path, attributes: tuple[Attribute, ...], joint: bool, highest: float) -> None:
    """Of all kinds, of one, with bands that hold nothing."""
    draw(diagnosis(attributes, joint=joint, highest=highest), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1560 and pixels.shape[0] > 700
    blue = tuple(bytes.fromhex(BLUE[1:]))
    assert (pixels == blue).all(-1).sum() > 100 and (pixels == 255).all(-1).mean() > 0.5


def test_it_grows_with_the_attributes(tmp_path: Path) -> None:
    heights = []
    for count in (1, 12):
        draw(diagnosis(tuple(Attribute(f"a{i}") for i in range(count)), n=40), tmp_path / "picture.png")
        heights.append(Image.open(tmp_path / "picture.png").height)
    assert heights[1] - heights[0] > 11 * 20


def test_the_style_of_others_is_left_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw(diagnosis(KINDS[:1], n=40), tmp_path / "picture.png")
    assert dict(matplotlib.rcParams) == before

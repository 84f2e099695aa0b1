"""Edits of several people in one evaluation of the networks are what each would be alone."""

import pytest
import torch
from torch import Tensor

import lcg
from lcg.diffusion import DDIM, CosineSchedule, MixtureDenoiser
from lcg.editing import EditRequest, GuidedEditor, edit_each, may_share
from lcg.guidance import parse_edit
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute, Schema

SCHEDULE, CORNERS = CosineSchedule(), Schema((Attribute("right"), Attribute("up")))
MEANS = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
PRIOR = MixtureDenoiser(torch.zeros(4), MEANS, 0.16 * torch.eye(2, dtype=torch.float64).expand(4, 2, 2), SCHEDULE)


def corner(z_t: Tensor, t: Tensor) -> HeadOutputs:
    """The exact noisy posterior of `right` (components 0, 1) and `up` (0, 2)."""
    log_r = PRIOR.responsibilities(z_t, t)

    def logit(holds: list[int]) -> Tensor:
        return log_r[:, holds].logsumexp(1) - log_r[:, [k for k in range(4) if k not in holds]].logsumexp(1)

    return {"right": logit([0, 1]), "up": logit([0, 2])}


def editor(**options: object) -> GuidedEditor:
    sampler = DDIM(SCHEDULE, 30, t_start=0.98)
    return GuidedEditor(PRIOR, corner, CORNERS, sampler, **{"weight": 1.5, "keep_weight": 1.0, **options})  # type: ignore[arg-type]


def request(text: str, strength: float | None = None) -> EditRequest:
    return EditRequest(tuple(parse_edit(word, CORNERS) for word in text.split()), strength=strength)


@pytest.mark.parametrize("mode", ["observation", "tweedie", "paper"])
def test_every_row_is_what_it_is_alone(mode: str) -> None:
    requests = [
        request("+right", 0.7),
        request("-up", 0.4),
        request("+right", 0.9),
        request("+right -up", 1.0),
        request("-right", 0.0),
        request("-up"),
    ]
    sources = list((MEANS[torch.tensor([3, 0, 2, 2, 1, 0])] + 0.1).split(1))
    editors = [editor(source_mode=mode) for _ in sources]
    together = edit_each(editors, sources, requests)
    for own, z_0, asked, row in zip(editors, sources, requests, together, strict=True):
        # a source that is let go of alone is left out, and among others bound by 1e-8
        torch.testing.assert_close(row, own.edit(z_0, asked).z_0, rtol=1e-6, atol=1e-6)
    assert together[4].equal(sources[4])  # strength 0 leaves the source as it is


def test_without_keeping_and_where_all_let_go_of_the_source() -> None:
    sources = list((MEANS[:2] + 0.2).split(1))
    editors, requests = [editor(keep_weight=0.0) for _ in sources], [request("-right", 1.0), request("-up", 1.0)]
    for row, own, z_0, asked in zip(edit_each(editors, sources, requests), editors, sources, requests, strict=True):
        torch.testing.assert_close(row, own.edit(z_0, asked).z_0, rtol=1e-9, atol=1e-9)


def test_with_networks_and_what_each_edit_brings() -> None:
    pipeline = lcg.load("avatars", editing=lcg.Editing(steps=6))
    sources = pipeline.sample(range(3)).split(1)
    editors = [pipeline.editor() for _ in sources]
    requests = []
    for own, z_0, texts in zip(
        editors, sources, (("+glasses",), ("+hat", "-beard"), ("+smile", "+glasses^0.5")), strict=True
    ):
        literals = tuple(parse_edit(text.partition("^")[0], pipeline.schema) for text in texts)
        alone = tuple(own.edit(z_0, EditRequest((one,))).z_0 for one in literals) if len(literals) > 1 else None
        weighted = tuple(one**0.5 if "^" in text else one for one, text in zip(literals, texts, strict=True))
        requests.append(EditRequest(weighted, alone=alone))
    rows = edit_each(editors, sources, requests)
    for row, own, z_0, asked in zip(rows, editors, sources, requests, strict=True):
        alone = own.edit(z_0, asked).z_0
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-3)
        assert (alone - z_0).norm() > 0.1


def test_noise_numbers_and_weights_by_row_are_not_shared() -> None:
    assert may_share(editor(), request("+up"))
    assert not may_share(editor(start="noising"), request("+up"))
    assert not may_share(editor(weight=torch.ones(1)), request("+up"))
    assert not may_share(editor(free=True), request("+up"))
    schema = Schema((Attribute("age", "continuous"),))
    assert not may_share(editor(), EditRequest((parse_edit("age=0.5", schema),)))

"""Answers about latents are kept, and rows that are equal are computed once."""

import pytest
import torch
from torch import Tensor

from lcg.editing.remembered import KEPT, Remembered, distinct


class Asked:
    """A function of latents that remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Tensor] = []

    def __call__(self, z_0: Tensor) -> dict[str, Tensor]:
        self.calls.append(z_0.clone())
        return {"double": 2 * z_0, "sum": z_0.flatten(1).sum(1)}


def latents(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 2, 3, generator=torch.Generator().manual_seed(seed))


def test_rows_that_equal_an_earlier_one_are_found() -> None:
    z_0 = latents(3)[[0, 1, 0, 2, 1]]
    assert distinct(z_0) == ([0, 1, 3], [0, 1, 0, 2, 1])
    assert distinct(z_0.transpose(1, 2)) == ([0, 1, 3], [0, 1, 0, 2, 1])  # not contiguous
    assert distinct(z_0[:0]) == ([], [])


def test_equal_rows_are_computed_once_and_in_order() -> None:
    asked, z_0 = Asked(), latents(3)[[2, 0, 2, 1, 0]]
    answer = Remembered(asked)(z_0)
    assert torch.equal(answer["double"], 2 * z_0) and torch.equal(answer["sum"], z_0.sum((1, 2)))
    assert len(asked.calls) == 1 and torch.equal(asked.calls[0], latents(3)[[2, 0, 1]])


def test_the_last_answers_are_kept() -> None:
    asked = Asked()
    remembered = Remembered(asked)
    for seed in (*range(KEPT), *range(KEPT)):
        assert torch.equal(remembered(latents(2, seed))["double"], 2 * latents(2, seed))
    assert len(asked.calls) == KEPT
    remembered(latents(2, 0)), remembered(latents(2, 99)), remembered(latents(2, 0))
    assert len(asked.calls) == KEPT + 1  # what was asked for lately stays
    remembered(latents(2, 1))
    assert len(asked.calls) == KEPT + 2 and len(remembered.answers) == KEPT


@pytest.mark.parametrize("other", [lambda z: z.double(), lambda z: z[:1], lambda z: z.flatten(1)], ids=range(3))
def test_other_precision_or_shape_is_another_question(other) -> None:
    asked = Asked()
    remembered = Remembered(asked)
    remembered(latents(2))
    answer = remembered(other(latents(2)))["double"]
    assert len(asked.calls) == 2 and torch.equal(answer, 2 * other(latents(2)))


def test_latents_that_are_written_into_are_others() -> None:
    asked, z_0 = Asked(), latents(2)
    remembered = Remembered(asked)
    remembered(z_0)
    z_0 += 1
    assert torch.equal(remembered(z_0)["double"], 2 * z_0) and len(asked.calls) == 2


def test_an_answer_given_under_inference_mode_serves_gradients() -> None:
    remembered = Remembered(Asked())
    with torch.inference_mode():
        z_0 = latents(2)
        remembered(z_0)
    weight = torch.ones((), requires_grad=True)
    (weight * remembered(latents(2))["double"]).sum().backward()
    assert weight.grad is not None and torch.isclose(weight.grad, 2 * latents(2).sum())

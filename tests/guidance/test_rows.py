"""Targets row by row are those of each row alone, in value and gradient."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lcg.diffusion import DDIM, CosineSchedule
from lcg.guidance import ClassifierTerm, EachRow, FormulaReadout, GuidedDenoiser, LabelReadout, parse
from lcg.guidance.terms import Readout
from lcg.nets.heads import HeadOutputs, JointOutputs, Outputs
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black")),
        Attribute("beard"),
        Attribute("age", "continuous"),
    )
)
FORMULAS = ("hat", "hat & ~beard", "(hat | hair=red)^2.0 & age>0.3", "beard & hair in {blond, black}")
ROWS = torch.tensor([2, 0, 3, 0, 1, 2, 2])  # several of some, out of order
WIDTH = 7


def heads(flat: Tensor) -> HeadOutputs:
    return {"hat": flat[..., 0], "hair": flat[..., 1:4], "beard": flat[..., 4], "age": flat[..., 5:7]}


def outputs(kind: str, rows: int = len(ROWS)) -> tuple[Tensor, Callable[[Tensor], Outputs]]:
    """All numbers of a classifier's outputs (B, ...), to differentiate by, and the outputs that they make."""
    flat = torch.randn(rows, 5, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def joint(x: Tensor) -> Outputs:
        return JointOutputs(x[:, :3, 0].log_softmax(1), heads(x[:, 1:4]), heads(x[:, 4]))

    return flat.requires_grad_(), joint if kind == "joint" else lambda x: heads(x[:, 0])


def formulas() -> list[Readout]:
    """With two ways of reading joint outputs among them."""
    return [FormulaReadout(parse(f, SCHEMA), "independent" if k == 1 else "joint") for k, f in enumerate(FORMULAS)]


def value_and_gradient(readout: Readout, flat: Tensor, make: Callable[[Tensor], Outputs]) -> tuple[Tensor, Tensor]:
    log_p = readout(make(flat))
    (grad,) = torch.autograd.grad(log_p.sum(), flat)
    return log_p.detach(), grad


@pytest.mark.parametrize("kind", ["independent", "joint"])
def test_each_row_is_read_as_it_would_be_alone(kind: str) -> None:
    flat, make = outputs(kind)
    readouts = formulas()
    log_p, grad = value_and_gradient(EachRow(readouts, ROWS), flat, make)
    assert log_p.shape == (len(ROWS),)
    for row, number in enumerate(ROWS.tolist()):
        alone = flat[row : row + 1].detach().requires_grad_()
        own, own_grad = value_and_gradient(readouts[number], alone, make)
        assert (log_p[row] - own[0]).abs() < 1e-12 and (grad[row] - own_grad[0]).abs().max() < 1e-12
    assert (grad.flatten(1).norm(dim=1) > 0).all()


def test_one_readout_for_all_rows_is_that_readout() -> None:
    flat, make = outputs("joint")
    readouts = formulas()
    for together, direct in zip(
        value_and_gradient(EachRow(readouts, torch.full((len(ROWS),), 2)), flat, make),
        value_and_gradient(readouts[2], flat, make),
        strict=True,
    ):
        assert torch.equal(together, direct)


def test_a_readout_is_asked_for_its_own_rows_only() -> None:
    """Each once, with as many rows as it has; one that has none is never asked."""
    asked: list[tuple[int, int]] = []

    def counting(number: int) -> Readout:
        def read(outputs: Outputs) -> Tensor:
            assert isinstance(outputs, dict)
            asked.append((number, len(outputs["hat"])))
            return outputs["hat"]

        return read

    flat, make = outputs("independent", 5)
    every = EachRow([counting(number) for number in range(4)], torch.tensor([3, 0, 3, 3, 1]))
    assert torch.equal(every(make(flat)), flat[:, 0, 0]) and asked == [(0, 1), (1, 1), (3, 3)]


def test_labels_of_a_readout_are_those_of_its_own_rows() -> None:
    flat, make = outputs("independent", 4)
    labels = torch.tensor([[1.0, 2.0, torch.nan, 0.5], [0.0, torch.nan, 1.0, -0.5]])
    formula = FormulaReadout(parse("beard", SCHEMA))
    every = EachRow([formula, LabelReadout(SCHEMA, labels)], torch.tensor([1, 0, 0, 1]))
    log_p = every(make(flat))
    for row, own in ((0, labels[:1]), (3, labels[1:])):
        alone = LabelReadout(SCHEMA, own)(make(flat[row : row + 1]))
        assert (log_p[row] - alone[0]).abs() < 1e-12
    assert (log_p[1:3] - formula(make(flat[1:3]))).abs().max() < 1e-12


def linear(z_t: Tensor, t: Tensor) -> Outputs:
    weight = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1)).to(z_t)
    return heads(z_t @ weight)


def guided(readout: Readout, weight: float | Tensor = 2.0) -> GuidedDenoiser:
    def shrink(z_t: Tensor, t: Tensor) -> Tensor:
        return 0.7 * z_t

    return GuidedDenoiser(shrink, [ClassifierTerm(linear, [(readout, weight)])], CosineSchedule())


def test_samples_of_several_formulas_in_one_batch_are_those_of_each() -> None:
    """With a weight for each row, too."""
    z = torch.randn(len(ROWS), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = torch.linspace(0, 3, len(ROWS))
    sampler, readouts = DDIM(CosineSchedule(), steps=5), formulas()
    together = sampler.sample(guided(EachRow(readouts, ROWS), weights), z)
    for row, number in enumerate(ROWS.tolist()):
        alone = sampler.sample(guided(readouts[number], float(weights[row])), z[row : row + 1])
        assert (together[row] - alone[0]).abs().max() < 1e-6  # classifiers are read in float32 at least


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 4], ValueError, "`rows` must be numbers of the 4 readouts, from 0, got 0 to 4; give every row the pos"),
        ([-1, 2], ValueError, "`rows` must be numbers of the 4 readouts, from 0, got -1 to 2"),
        ([[0, 1]], ValueError, r"`rows` must be one number for each of at least one row, got shape \(1, 2\)"),
        ([0.0, 1.0], TypeError, "`rows` must be integers, the number of each row's readout, got torch.float32"),
        ([True, False], TypeError, "`rows` must be integers, the number of each row's readout, got torch.bool"),
    ],
)
def test_rows_that_are_no_numbers_of_readouts_are_refused(
    rows: Sequence[object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EachRow(formulas(), torch.tensor(rows))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("numbers", [[0, 1], [2, 2]])
def test_outputs_of_other_rows_are_refused(numbers: list[int]) -> None:
    flat, make = outputs("joint", 3)
    with pytest.raises(ValueError, match="`rows` must be one for each of the 3 latents, got 2"):
        EachRow(formulas(), torch.tensor(numbers))(make(flat))
    with pytest.raises(ValueError, match=r"at least one row, got shape \(0,\)"):
        EachRow(formulas(), torch.tensor(numbers)[:0])

"""Cells are numbered and named as formulas would; shares of them are met or refused."""

import numpy as np
import pytest
import torch

from lcg.data.cells import Cells, check_shares
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("age", "continuous"),
        Attribute("hat"),
        Attribute("hair", "categorical", ("light brown", "red", "black")),
    )
)
NAN = float("nan")


def test_a_cell_is_a_value_of_each_attribute_and_missing_is_a_value() -> None:
    labels = torch.tensor([[0.3, 0, 0], [NAN, 1, 2], [0.1, NAN, 1], [9, 1, NAN], [0, NAN, NAN]])
    cells = Cells(SCHEMA, ["hair", "hat"])
    assert [cells.name(cell) for cell in cells.of(labels).tolist()] == [
        "hair=light brown & ~hat",
        "hair=black & hat",
        "hair=red & hat=?",
        "hair=? & hat",
        "hair=? & hat=?",
    ]
    everything = torch.cartesian_prod(torch.zeros(1), torch.tensor([0, 1, NAN]), torch.tensor([0, 1, 2, NAN]))
    assert sorted(cells.of(everything)) == list(range(12))


def occupied(*names: str) -> tuple[Cells, np.ndarray, np.ndarray]:
    """Cells of both attributes, those of the given names, and how many rows these have: 1, 2, 3, ..."""
    cells = Cells(SCHEMA, ["hat", "hair"])
    numbers = [next(i for i in range(12) if cells.name(i) == name) for name in names]
    return cells, np.array(numbers), np.arange(1, len(names) + 1)


def test_shares_in_words() -> None:
    cells, numbers, counts = occupied("~hat & hair=red", "hat & hair=red", "hat & hair=black")
    assert cells.shares("natural", numbers, counts).tolist() == [1, 2, 3]
    assert cells.shares("equal", numbers, counts).tolist() == [1, 1, 1]


def test_a_key_divides_its_share_as_the_store_does() -> None:
    cells, numbers, counts = occupied("~hat & hair=red", "hat & hair=light brown", "hat & hair=black", "hat & hair=?")
    assert cells.shares({"hat": 0.5, "~hat": 0.5}, numbers, counts) == pytest.approx([0.5, 1 / 9, 1 / 6, 2 / 9])
    mixed = {"~ hat": 1.0, "hair = light  brown": 3.0, "hair=black & hat": 2.0, "hair=?": 0.0, "hair=?&~hat": 0.0}
    assert cells.shares(mixed, numbers, counts).tolist() == [1, 3, 2, 0]


def test_shares_that_cannot_be_met_are_refused() -> None:
    cells, numbers, counts = occupied("~hat & hair=red", "hat & hair=red", "hat & hair=black")
    with pytest.raises(ValueError, match=r"say nothing of the cell 'hat & hair=red', which has 2 .*with 0 to leave"):
        cells.shares({"~hat": 1.0, "hat & hair=black": 1.0}, numbers, counts)
    with pytest.raises(ValueError, match="cell 'hat & hair=red' is meant by 'hat' and by 'hair=red'; name every cell"):
        cells.shares({"hat": 1.0, "hair=red": 1.0}, numbers, counts)
    with pytest.raises(ValueError, match=r"no training sample is 'hat=\?', which should have 0\.1; leave it out"):
        cells.shares({"hat": 1.0, "~hat": 1.0, "hat=?": 0.1}, numbers, counts)
    with pytest.raises(ValueError, match=r"unknown cell in `shares`: 'hair=rad'; did you mean 'hair=red'"):
        cells.shares({"~hat & hair=rad": 1.0}, numbers, counts)


def test_attributes_without_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="`stratify`: 'age' is continuous and has no cells; name binary or"):
        Cells(SCHEMA, ["age"])
    with pytest.raises(ValueError, match="unknown attribute 'het'; did you mean 'hat'"):
        Cells(SCHEMA, ["het"])
    with pytest.raises(ValueError, match=r"must name distinct attributes, got \['hat', 'hat'\]"):
        Cells(SCHEMA, ["hat", "hat"])
    many = Schema(tuple(Attribute(f"a{i}") for i in range(21)))
    with pytest.raises(ValueError, match="makes 10460353203 cells, at most 4294967296 are possible; name fewer"):
        Cells(many, many.names)


def test_shares_that_no_store_could_meet_are_refused_at_once() -> None:
    for shares in ({"hat": -1.0}, {"hat": 0.0}, {"hat": NAN}, {"hat": float("inf")}, {}):
        with pytest.raises(ValueError, match="`shares` must be >= 0 and not all 0"):
            check_shares(shares, ["hat"])
    with pytest.raises(ValueError, match="must be 'natural', 'equal' or numbers by cell, got 'even'; choose one"):
        check_shares("even", ["hat"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`shares` 'equal' need `stratify`; name the attributes"):
        check_shares("equal", [])
    check_shares("natural", [])

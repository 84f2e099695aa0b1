"""`PotentialFlowTraversal`: edits are paths along gradients, exactly; and on a linear world they do what is asked."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lcg.baselines.contract import Training, literals
from lcg.baselines.potential_flow import PotentialFlowTraversal
from lcg.data.statistics import Statistics
from lcg.editing import EditRequest, edit_sequence
from lcg.guidance import FormulaReadout, parse, parse_edit
from lcg.nets.heads import HeadOutputs
from lcg.nets.potential_flow import PotentialFlow
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (Attribute("hat"), Attribute("hair", "categorical", ("blond", "red", "black")), Attribute("age", "continuous"))
)
ATOMS = ("hat", "hair=blond", "hair=red", "hair=black", "age")
DIRECTIONS = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(7))).Q[:5]
"""Along which each atom rises in the linear world: orthonormal."""


class LinearWorld:
    """A classifier whose logits are coordinates along `DIRECTIONS`."""

    def __call__(self, z: Tensor, t: Tensor) -> HeadOutputs:
        along = 3 * z.float() @ DIRECTIONS.T
        return {"hat": along[:, 0], "hair": along[:, 1:4], "age": torch.stack((along[:, 4], 0 * along[:, 4]), 1)}


def straight(flow: PotentialFlow, directions: Tensor) -> None:
    """Makes u_k(z, t) = directions_k . z, but for the cube of 1/100 of it: where tanh is linear."""
    for parameter in flow.parameters():
        torch.nn.init.zeros_(parameter)
    scale = 0.01
    with torch.no_grad():
        flow.input.weight[:, :, 0] = scale * directions
        flow.fusion.weight[:, 0, 0] = 1.0
        flow.output.weight[:, 0, 0] = 1 / scale


def training() -> Training:
    z_0 = torch.randn(300, 6, generator=torch.Generator().manual_seed(2))
    labels = torch.full((300, 3), torch.nan)
    statistics, others = Statistics(torch.zeros(6), torch.ones(6)), cast(Any, None)
    return Training(z_0, labels, SCHEMA, others, statistics, others, others, cast(Any, LinearWorld()))


Make = Callable[..., PotentialFlowTraversal]


@pytest.fixture
def curved(save, tmp_path: Path) -> PotentialFlowTraversal:
    """Random potentials, strong enough to bend their paths."""
    torch.manual_seed(0)
    flow = PotentialFlow((6,), 5, 16, 4, atoms=ATOMS)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(3)
    return PotentialFlowTraversal(save(flow, tmp_path / "curved.ckpt")).fit(training())


@pytest.fixture
def linear(save, tmp_path: Path) -> Make:
    """Potentials that are coordinates of the linear world, some turned around or in another order."""

    def make(signs: Tensor | None = None, atoms: tuple[str, ...] = ATOMS, order: tuple[int, ...] = (0, 1, 2, 3, 4)):
        flow = PotentialFlow((6,), 5, 4, 4, atoms=atoms)
        directions = DIRECTIONS[list(order)] * (torch.ones(5) if signs is None else signs)[:, None]
        straight(flow, directions)
        return PotentialFlowTraversal(save(flow, tmp_path / "linear.ckpt")).fit(training())

    return make


def latents(count: int = 7, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(4)).to(dtype)


def request(*edits: str, strength: float | Tensor | None = None) -> EditRequest:
    return EditRequest(tuple(parse_edit(edit, SCHEMA) for edit in edits), None, strength)


# --- identities ---


def test_an_edit_is_the_path_of_the_equation(curved: PotentialFlowTraversal) -> None:
    """z + strength * sum of w s grad u_k at each step, by hand."""
    (flow, _), z = curved.fitted, latents()
    result = curved.edit(z, request("+hat", "-hair=red", strength=0.6)).z_0
    expected = z
    for step in range(4):
        t = torch.full((7,), float(step))
        expected = expected + 0.6 * (flow.velocity(expected, t, 0) - flow.velocity(expected, t, 2))
    torch.testing.assert_close(result, expected)
    assert (result - z).norm(dim=1).min() > 0.1
    line = z + 4 * 0.6 * (flow.velocity(z, torch.zeros(7), 0) - flow.velocity(z, torch.zeros(7), 2))
    assert (result - line).abs().max() > 0.05  # and the path is no line


def test_a_linear_potential_is_a_straight_path_as_long_as_its_strength(linear: Make) -> None:
    method, z = linear(), latents()
    for strength in (0.25, 1.0, 3.0):
        moved = method.edit(z, request("+hat", strength=strength)).z_0 - z
        torch.testing.assert_close(moved, (4 * strength * DIRECTIONS[0]).expand(7, -1), rtol=0, atol=0.05 * strength)
    both = method.edit(z, request("-hat", "hair=black")).z_0 - z
    torch.testing.assert_close(both, (4 * (DIRECTIONS[3] - DIRECTIONS[0])).expand(7, -1), rtol=0, atol=0.05)


def test_no_strength_is_the_source(curved: PotentialFlowTraversal) -> None:
    for dtype in (torch.float32, torch.float64):
        z = latents(dtype=dtype)
        result = curved.edit(z, request("+hat", "hair=red", strength=0.0)).z_0
        assert result.dtype == dtype and torch.equal(result, z)
    assert torch.equal(curved.move(z, ()), z)


def test_edits_add_their_velocities_in_any_order_and_by_weight(curved: PotentialFlowTraversal) -> None:
    z = latents()
    a, b = (curved.edit(z, request(*edits)).z_0 for edits in (("+hat", "hair=red"), ("hair=red", "+hat")))
    torch.testing.assert_close(a, b)
    half = curved.move(z, (parse("hat^0.5", SCHEMA),))
    torch.testing.assert_close(half, curved.edit(z, request("+hat", strength=0.5)).z_0)
    last = edit_sequence(curved, z, [parse_edit(edit, SCHEMA) for edit in ("-hat", "hair=red", "+hat")])[-1]
    torch.testing.assert_close(last.z_0, a)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_gradients_need_not_be_enabled(curved: PotentialFlowTraversal, mode: Any) -> None:
    expected = curved.edit(latents(), request("+hat", "hair in {red, blond}")).z_0
    with mode():
        result = curved.edit(latents(), request("+hat", "hair in {red, blond}", strength=torch.ones(7))).z_0
    assert torch.equal(result, expected) and not result.requires_grad


def test_samples_of_the_prior_are_moved(curved: PotentialFlowTraversal) -> None:
    formula, z = parse("hat & ~hair=red & age<0.2", SCHEMA), latents()
    moved = curved.edit(z, EditRequest(formula.operands, strength=0.5))  # type: ignore[attr-defined]
    assert torch.equal(curved.generate(formula, z, strength=0.5), moved.z_0)


# --- which potential ---


def test_a_threshold_is_approached_from_its_side(linear: Make) -> None:
    method = linear()
    ways = {text: method.potential_of(literals((parse(text, SCHEMA),), SCHEMA, "x")[0]) for text in WAYS}
    assert ways == WAYS


WAYS = {
    "hat": (0, 1.0),
    "~hat": (0, -1.0),
    "hair=red": (2, 1.0),
    "~hair=red": (2, -1.0),
    "age>0.3": (4, 1.0),
    "age<0.3": (4, -1.0),
    "~age<0.3": (4, 1.0),
}


def test_what_nobody_named_is_found_by_what_it_raises(linear: Make) -> None:
    """Potentials in another order, some turned around: each literal finds its own, and the right way along it."""
    order, signs = (3, 0, 4, 1, 2), torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0])
    method, z = linear(signs, (), order), latents()
    for text, atom, sign in (
        ("hat", 0, 1.0),
        ("~hat", 0, -1.0),
        ("hair=blond", 1, 1.0),
        ("hair in {blond, red}", 3, -1.0),
        ("age>0.5", 4, 1.0),
        ("age<0.5", 4, -1.0),
    ):
        formula = parse(text, SCHEMA)
        k, way = method.potential_of(literals((formula,), SCHEMA, "x")[0])
        assert (order[k], way * float(signs[k])) == (atom, sign), text
        moved = method.edit(z, EditRequest((formula,))).z_0
        torch.testing.assert_close(moved - z, (4 * sign * DIRECTIONS[atom]).expand(7, -1), rtol=0, atol=0.05)


def test_a_choice_of_values_is_looked_for_among_named_potentials_too(linear: Make) -> None:
    found = linear().potential_of(literals((parse("hair in {blond, red}", SCHEMA),), SCHEMA, "x")[0])
    assert found == (3, -1.0)  # away from what it excludes


def test_probability_rises_with_strength(linear: Make) -> None:
    method, z, world = linear(), latents(), LinearWorld()
    for text in ("hat", "~hat", "hair=red", "age>0.7"):
        formula = parse(text, SCHEMA)
        log_p = [
            FormulaReadout(formula)(world(method.edit(z, EditRequest((formula,), strength=s)).z_0, torch.zeros(7)))
            for s in (0.0, *method.strengths)
        ]
        assert all((more >= less - 1e-6).all() for less, more in pairwise(log_p))
        assert log_p[-1].min() > -0.01 > log_p[0].mean()


# --- errors ---


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rows": 0}, "`rows` must be at least 1, got 0"), ({"level": -0.1}, r"`level` must be in \[0, 1\], got -0.1")],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PotentialFlowTraversal(**options)


def test_what_always_holds_has_no_potential(curved: PotentialFlowTraversal) -> None:
    with pytest.raises(ValueError, match="always holds"):
        curved.move(latents(), (parse("hair in {blond, red, black}", SCHEMA),))

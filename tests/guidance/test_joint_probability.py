"""Formulas under a joint head: the sum over all label rows that satisfy them, whatever depends on what."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from lcg.guidance import CompiledFormula, FormulaReadout, LabelReadout, log_probability, parse
from lcg.nets.heads import JointOutputs, joint_log_likelihood
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("hair", "categorical", ("blond", "red", "black")), Attribute("beard")))
ROWS = torch.tensor(list(itertools.product((0.0, 1.0), (0.0, 1.0, 2.0), (0.0, 1.0))), dtype=torch.float64)
WITH_AGE = Schema((*SCHEMA, Attribute("age", "continuous")))
FORMULAS = (
    "hat",
    "~hat",
    "hat & beard",
    "hat | beard",
    "hat & ~beard & hair=red",
    "(hat & beard) | (~hat & hair in {blond, black})",
    "(hat | beard) & (hat | hair=red)",
    "~(hat & beard) & (beard | hair=black)",
)


def joint(batch: int = 4, components: int = 3, seed: int = 0) -> JointOutputs:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return (2 * torch.randn(batch, components, *shape, generator=g, dtype=torch.float64)).requires_grad_()

    heads = {"hat": normal(), "hair": normal(3), "beard": normal(), "age": normal(2)}
    single = {"hat": normal()[:, 0], "hair": normal(3)[:, 0], "beard": normal()[:, 0], "age": normal(2)[:, 0]}
    return JointOutputs(normal().log_softmax(1), heads, single)


def by_enumeration(text: str, outputs: JointOutputs) -> Tensor:
    """log of the sum of the joint probabilities of all label rows that satisfy the formula."""
    satisfying = ROWS[parse(text, SCHEMA).holds(ROWS)]
    batch = len(outputs.log_weights)
    log_p = [joint_log_likelihood(SCHEMA, outputs, row.expand(batch, 3)) for row in satisfying]
    return torch.stack(log_p).logsumexp(0)


@pytest.mark.parametrize("text", FORMULAS)
def test_any_formula_is_the_sum_over_its_models(text: str) -> None:
    outputs = joint()
    value, expected = log_probability(parse(text, SCHEMA), outputs), by_enumeration(text, outputs)
    assert (value - expected).abs().max() < 1e-12
    leaves = [outputs.heads[name] for name in ("hat", "hair", "beard")]
    ours = torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(expected.sum(), leaves, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert b is not None and ((0 if a is None else a) - b).abs().max() < 1e-12


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_and_its_negation_sum_to_one(text: str) -> None:
    outputs = joint()
    both = [log_probability(f, outputs) for f in (parse(text, SCHEMA), ~parse(text, SCHEMA))]
    assert torch.logaddexp(*both).abs().max() < 1e-12


def test_dependent_attributes_are_not_multiplied() -> None:
    """Two components that agree on both: P(hat & beard) is .5 where independence says .25."""
    sure = torch.tensor([[50.0, -50.0]], dtype=torch.float64)
    even = torch.zeros(1, dtype=torch.float64)
    log_weights = torch.full((1, 2), math.log(0.5), dtype=torch.float64)
    outputs = JointOutputs(log_weights, {"hat": sure, "beard": sure}, {"hat": even, "beard": even})
    formula = parse("hat & beard", SCHEMA)
    assert FormulaReadout(formula)(outputs).exp().item() == pytest.approx(0.5)
    assert FormulaReadout(formula, "independent")(outputs).exp().item() == pytest.approx(0.25)


def test_weighted_conjuncts_are_climbed_by_themselves_and_the_rest_together() -> None:
    outputs = joint()
    value = log_probability(parse("hat & beard & hair=red^2.0 & (hat | hair=blond)^3.0", SCHEMA), outputs)
    expected = (
        by_enumeration("hat & beard", outputs)
        + 2 * by_enumeration("hair=red", outputs)
        + 3 * by_enumeration("hat | hair=blond", outputs)
    )
    assert (value - expected).abs().max() < 1e-12


def test_thresholds_are_mixtures_of_tails() -> None:
    outputs = joint()
    value = log_probability(parse("age>0.5 & hat", WITH_AGE), outputs)
    mean, log_variance = outputs.heads["age"].unbind(-1)
    tail = torch.special.ndtr((mean - 0.5) * torch.exp(-0.5 * log_variance))
    expected = (outputs.log_weights.exp() * tail * outputs.heads["hat"].sigmoid()).sum(1).log()
    assert (value - expected).abs().max() < 1e-12


def test_one_component_is_what_independent_heads_give() -> None:
    outputs = joint(components=1)
    plain = {name: head[:, 0] for name, head in outputs.heads.items()}
    for text in FORMULAS:
        formula = parse(text, SCHEMA)
        assert (log_probability(formula, outputs) - log_probability(formula, plain)).abs().max() < 1e-12


def test_contradictions_and_tautologies_of_a_joint_head() -> None:
    outputs = joint()
    assert log_probability(parse("hat | ~hat", SCHEMA), outputs).abs().max() < 1e-15
    assert (log_probability(parse("hat & ~hat", SCHEMA), outputs) == -math.inf).all()
    assert CompiledFormula(parse("hair in {blond, red, black}", SCHEMA)).tautological
    assert not CompiledFormula(parse("hat & ~hat", SCHEMA)).tautological


def test_labels_are_kept_one_by_one() -> None:
    outputs = joint()
    labels = torch.tensor([[1.0, 2.0, math.nan]], dtype=torch.float64)
    value = LabelReadout(SCHEMA, labels, 3.0)(outputs)
    single = {name: log_probability(parse(name, SCHEMA), outputs.single) for name in ("hat", "hair=black")}
    expected = 3 * (single["hat"] + single["hair=black"])
    assert (value - expected).abs().max() < 1e-12

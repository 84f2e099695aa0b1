import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lcg.guidance.probability as probability
from lcg.guidance.formula import And, Beyond, Formula, Has, Not, OneOf, Or
from lcg.guidance.logic import parse
from lcg.guidance.probability import CompiledFormula, log_between, log_probability
from lcg.nets.cumulative import cumulative
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("a"),
        Attribute("b"),
        Attribute("c"),
        Attribute("hair", "categorical", ("blond", "red", "brown")),
        Attribute("age", "continuous"),
    )
)
THRESHOLDS = (-0.5, 0.2, 0.9)
CUTS = (-1e3, *THRESHOLDS, 1e3)  # finite, for the gradient of the reference
INSIDE = (-1.0, 0.0, 0.5, 2.0)  # a point of each interval


def outputs(seed: int = 0, batch: int = 5, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"a": (), "b": (), "c": (), "hair": (3,), "age": (2,)}
    return {
        name: (scale * torch.randn(batch, *shape, generator=g, dtype=torch.float64)).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def by_enumeration(formula: Formula, heads: dict[str, Tensor]) -> Tensor:
    """log sum over all 2 * 2 * 2 * 3 * 4 joint cells that satisfy the formula, in plain probabilities."""
    p = [torch.stack([1 - heads[n].sigmoid(), heads[n].sigmoid()], 1) for n in "abc"] + [heads["hair"].softmax(1)]
    mean, std = heads["age"][:, :1], heads["age"][:, 1:].div(2).exp()
    p.append(torch.special.ndtr((torch.tensor(CUTS, dtype=mean.dtype) - mean) / std).diff(dim=1))
    cells = torch.tensor(list(itertools.product(range(2), range(2), range(2), range(3), range(4))))
    labels = torch.cat([cells[:, :4].double(), torch.tensor(INSIDE, dtype=torch.float64)[cells[:, 4:]]], 1)
    joint = torch.stack([p[j][:, cells[:, j]] for j in range(5)]).prod(0)
    return joint[:, formula.holds(labels)].sum(1).log()


def gradients(value: Tensor, heads: dict[str, Tensor]) -> Tensor:
    grads = torch.autograd.grad(value.sum(), list(heads.values()), materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


def random_formula(rng: random.Random, leaves: int) -> Formula:
    if leaves > 1:
        left = rng.randrange(1, leaves)
        a, b = random_formula(rng, left), random_formula(rng, leaves - left)
        formula = a & b if rng.random() < 0.5 else a | b
    else:
        column = rng.randrange(5)
        if column < 3:
            formula = Has(SCHEMA.attributes[column], column)
        elif column == 3:
            formula = OneOf(SCHEMA["hair"], 3, rng.choice([(0,), (1,), (0, 2), (0, 1, 2)]))
        else:
            formula = Beyond(SCHEMA["age"], 4, rng.choice(THRESHOLDS), rng.random() < 0.5)
    return ~formula if rng.random() < 0.3 else formula


@pytest.mark.parametrize("seed", range(120))
def test_any_formula_is_the_sum_over_its_models(seed: int) -> None:
    rng, heads = random.Random(seed), outputs(scale=0.7)  # the plain reference loses digits in its tails
    formula = random_formula(rng, rng.randint(1, 9))
    value, expected = log_probability(formula, heads), by_enumeration(formula, heads)
    if not CompiledFormula(formula).satisfiable:
        assert (value == -math.inf).all() and (expected == -math.inf).all()
        return
    assert (value - expected).abs().max() < 1e-11
    if value.requires_grad:
        assert (gradients(value, heads) - gradients(expected, heads)).abs().max() < 1e-10
    else:  # holds always
        assert (value == 0).all()


def test_a_formula_and_its_negation_sum_to_one() -> None:
    rng, heads = random.Random(0), outputs(1)
    for formula in (random_formula(rng, 6) for _ in range(60)):
        total = torch.logaddexp(log_probability(formula, heads), log_probability(~formula, heads))
        assert total.abs().max() < 1e-12, str(formula)


LAWS = [
    ("~(a & b)", "~a | ~b", "De Morgan"),
    ("~(a | hair=red)", "~a & ~hair=red", "De Morgan"),
    ("~~(a | b)", "a | b", "double negation"),
    ("a & (b | c)", "(a & b) | (a & c)", "distribution"),
    ("a | (b & hair=red)", "(a | b) & (a | hair=red)", "distribution"),
    ("a & (a | b)", "a", "absorption"),
    ("a | (a & age>0.2)", "a", "absorption"),
    ("a & a", "a", "idempotence"),
    ("b & a", "a & b", "commutation"),
    ("hair=blond | hair=red", "hair in {blond, red}", "a set is a disjunction"),
    ("hair in {blond, red}", "~hair=brown", "a set's complement"),
    ("age>0.2", "~age<0.2", "a threshold has no mass"),
    ("age>0.2 & age>0.9", "age>0.9", "implied threshold"),
    ("~(age<0.2 | age>0.9)", "age>0.2 & age<0.9", "an interval"),
    ("(a & b) | (~a & b)", "b", "case distinction"),
]


@pytest.mark.parametrize(("left", "right", "law"), LAWS, ids=[f"{law}: {left}" for left, _, law in LAWS])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_the_laws_of_logic_hold_for_values_and_gradients(left: str, right: str, law: str, scale: float) -> None:
    heads = outputs(2, scale=scale)
    if scale > 1:  # spread of the logits, not of the log-variance
        heads["age"] = outputs(2)["age"]
    one, two = (log_probability(parse(text, SCHEMA), heads) for text in (left, right))
    assert (one - two).abs().max() < 1e-12 * scale
    assert (gradients(one, heads) - gradients(two, heads)).abs().max() < 1e-11


def test_products_of_atoms_would_be_wrong_where_an_attribute_repeats() -> None:
    """The negative control: treating a and (a | b) as independent."""
    heads = outputs(3)
    a, a_or_b = (log_probability(parse(text, SCHEMA), heads) for text in ("a", "a | b"))
    exact = log_probability(parse("a & (a | b)", SCHEMA), heads)
    assert (exact - a).abs().max() < 1e-12 and (exact - (a + a_or_b)).abs().max() > 0.1


def test_weights_multiply_conjuncts_and_the_rest_is_joint() -> None:
    heads = outputs(4)

    def log_p(text: str) -> Tensor:
        return log_probability(parse(text, SCHEMA), heads)

    expected = 2 * log_p("a") + 0.5 * log_p("b | c") + log_p("a & (a | hair=red)")
    assert (log_p("a^2 & (b | c)^0.5 & a & (a | hair=red)") - expected).abs().max() < 1e-12
    assert (log_p("a & b^0") - log_p("a")).abs().max() == 0
    assert (log_p("a^3 & b^3") - 3 * log_p("a & b")).abs().max() < 1e-12


def test_conjunctions_of_distinct_attributes_need_no_diagram() -> None:
    compiled = CompiledFormula(parse("a & ~b & c^2.0 & ~~~(~a)", SCHEMA))
    assert compiled.diagrams == [] and sorted(map(len, compiled.literals.values())) == [1, 2]
    assert len(CompiledFormula(parse("a & (hair=red | b) & age>0.2", SCHEMA)).diagrams) == 2  # one per independent part


def test_equivalent_formulas_have_the_same_diagram() -> None:
    one, two = (probability.Diagram([parse(text, SCHEMA)]) for text in ("a & (b | c)", "~(~a | ~b) | ~(~a | ~c)"))
    assert [branches for _, _, branches in one.steps] != [] and len(one.steps) == len(two.steps) == 3


@pytest.mark.parametrize("text", ["a | b", "~(a & b)", "a & ~(b & a)", "(a | b) & (~a | c)", "a & b & ~c", "~(a | b)"])
@pytest.mark.parametrize("signs", list(itertools.product([-1e4, 1e4], repeat=3)))
def test_extreme_logits_are_exact_in_float32(text: str, signs: tuple[float, ...]) -> None:
    formula = parse(text, SCHEMA)
    heads = {n: torch.tensor([s], requires_grad=True) for n, s in zip("abc", signs, strict=True)}
    double = {n: torch.tensor([s], dtype=torch.float64, requires_grad=True) for n, s in zip("abc", signs, strict=True)}
    value, expected = log_probability(formula, heads), log_probability(formula, double)
    assert value.dtype == torch.float32 and value.isfinite().all()
    assert (value - expected).abs().max() <= 2e-3  # float32's spacing at 1e4 is 1e-3
    slope, true_slope = gradients(value, heads), gradients(expected, double)
    assert slope.isfinite().all() and (slope - true_slope).abs().max() < 1e-6


def test_or_and_not_have_a_gradient_where_everything_is_improbable() -> None:
    heads = {n: torch.tensor([-1e4], requires_grad=True) for n in "abc"}
    value = log_probability(parse("a | b", SCHEMA), heads)
    assert (value + 1e4 - math.log(2)).abs().item() < 2e-3
    assert (gradients(value, heads) - torch.tensor([0.5, 0.5, 0.0])).abs().max() < 1e-6
    heads = {n: torch.tensor([1e4], requires_grad=True) for n in "abc"}
    value = log_probability(parse("~(a & b)", SCHEMA), heads)  # log(1 - P) would be -inf
    assert (gradients(value, heads) - torch.tensor([-0.5, -0.5, 0.0])).abs().max() < 1e-6


def test_extreme_categorical_logits() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 1e4]], requires_grad=True)
    value = log_probability(parse("hair=brown", SCHEMA), {"hair": logits})
    assert (value - torch.tensor([-2e4, -math.log(2)])).abs().max() < 2e-3
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_far_tails_of_a_continuous_attribute() -> None:
    """log Phi(-x) = -x^2/2 - log(x sqrt(2 pi)) + log(1 - 1/x^2 + ...), with slope -x (1 + 1/x^2 + ...)."""
    x = torch.tensor([1e1, 1e2, 1e3, 1e4])
    head = torch.stack([-x, torch.zeros(4)], 1).requires_grad_()
    value = log_probability(parse("age>0", SCHEMA), {"age": head})
    exact = (
        -(x.double() ** 2) / 2
        - (x.double() * math.sqrt(2 * math.pi)).log()
        + torch.log1p(-1 / x.double() ** 2 + 3 / x.double() ** 4)
    )
    assert ((value - exact) / exact).abs().max() < 1e-6
    slope = torch.autograd.grad(value.sum(), head)[0][:, 0]
    assert ((slope - x) / x - 1 / x**2).abs().max() < 3e-4  # torch.special.log_ndtr's own gradient is 6 x at x = 1e4


@pytest.mark.parametrize("lower", [-1e3, -30.0, -5.0, -0.5, 0.0, 4.0, 29.0, 1e3])
@pytest.mark.parametrize("width", [1e-9, 1e-4, 5e-3, 0.02, 1.0, 10.0, 1e3])
def test_intervals_of_any_width_anywhere(lower: float, width: float) -> None:
    """Against quadrature of the density in float64 (Gauss-Legendre, on the part of the interval that carries mass)."""
    start, end = (lower, lower + width) if lower + width / 2 <= 0 else (-lower - width, -lower)  # in the lower tail
    near = (
        max(start, min(end, 0.0) - 12.0, min(end, 0.0) - 50.0 / max(abs(end), 1.0)) if end <= 0 else max(start, -12.0)
    )
    far = min(end, 12.0)
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(200))
    y = (near + far) / 2 + (far - near) / 2 * nodes
    exact = torch.logsumexp(-(y**2) / 2 + weights.log(), 0) + math.log((far - near) / 2) - math.log(2 * math.pi) / 2
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    value = log_between(zero, torch.zeros(1, dtype=torch.float64), lower, lower + width)
    tolerance = 1e-5 + 2e-15 * lower**2 / (min(width, 1.0) * max(abs(lower), 1.0)) ** 1
    assert abs(value.item() - exact.item()) < tolerance
    slope = torch.autograd.grad(value.sum(), zero)[0]
    assert slope.isfinite().all()
    single = torch.zeros(1, requires_grad=True)
    value = log_between(single, torch.zeros(1), lower, lower + width)
    assert value.isfinite().all() and torch.autograd.grad(value.sum(), single)[0].isfinite().all()


def test_interval_without_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="must not both be None"):
        log_between(torch.zeros(1), torch.zeros(1), None, None)


def test_rows_are_independent_of_their_batch() -> None:
    heads = outputs(5, batch=7, dtype=torch.float32)
    compiled = CompiledFormula(parse("(a | hair=red) & ~(b & age>0.2) & c^2.0", SCHEMA))
    alone = torch.cat([compiled({n: h[i : i + 1] for n, h in heads.items()}) for i in range(7)])
    assert (compiled(heads) - alone).abs().max() < 1e-6


def test_half_precision_outputs_are_read_in_float32() -> None:
    heads = {n: h.bfloat16() for n, h in outputs(6, dtype=torch.float32).items()}
    value = log_probability(parse("a & b | hair=red", SCHEMA), heads)
    assert value.dtype == torch.float32


def test_contradictions_and_tautologies() -> None:
    heads = outputs()
    assert (log_probability(parse("a & ~a", SCHEMA), heads) == -math.inf).all()
    assert (log_probability(parse("b & (age>0.9 & age<0.2)^2", SCHEMA), heads) == -math.inf).all()
    assert (log_probability(parse("a | ~a", SCHEMA), heads) == 0).all()
    assert not CompiledFormula(parse("hair=red & hair=blond", SCHEMA)).satisfiable


def test_outputs_that_do_not_fit_are_refused() -> None:
    formula = parse("a & hair=red", SCHEMA)
    with pytest.raises(
        ValueError, match=r"unknown attribute 'hair'; did you mean 'hairs'.*the classifier has: a, hairs"
    ):
        log_probability(formula, {"a": torch.zeros(2), "hairs": torch.zeros(2, 3)})
    with pytest.raises(
        ValueError, match=r"'a' must have shape \(batch,\), got \(2, 1\); use a classifier trained with"
    ):
        log_probability(formula, {"a": torch.zeros(2, 1), "hair": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"'hair' must have shape \(batch, 3\), got \(2, 4\)"):
        log_probability(formula, {"a": torch.zeros(2), "hair": torch.zeros(2, 4)})


def test_formulas_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probability, "MAX_NODES", 5)
    with pytest.raises(ValueError, match="decision diagram must have at most 5 nodes"):
        CompiledFormula(parse("(a | b) & (b | c) & (c | hair=red)", SCHEMA))


def test_what_is_no_formula_is_refused() -> None:
    class Xor(Formula):
        def atoms(self):
            yield parse("a", SCHEMA)

        def verdict(self, labels):
            raise NotImplementedError

    with pytest.raises(TypeError, match="must be built from Atom, Not, And, Or and weights, got Xor"):
        CompiledFormula(Xor())


# --- the laws of logic for any formulas, and at any logits ---

FORMULAS = st.recursive(
    st.one_of(
        st.sampled_from([Has(SCHEMA.attributes[column], column) for column in range(3)]),
        st.sampled_from([OneOf(SCHEMA["hair"], 3, chosen) for chosen in ((0,), (1,), (0, 2), (0, 1, 2))]),
        st.sampled_from([Beyond(SCHEMA["age"], 4, c, above) for c in THRESHOLDS for above in (False, True)]),
    ),
    lambda parts: st.one_of(
        parts.map(Not),
        st.tuples(parts, parts).map(And),
        st.tuples(parts, parts).map(Or),
    ),
    max_leaves=5,
)
PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)
# beartype checks one element of a tuple, chosen at random, of which hypothesis takes notice.
quietly = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")


def extreme(scale: float, dtype: torch.dtype = torch.float64, batch: int = 16) -> dict[str, Tensor]:
    """Logits, and means of the continuous attribute, of either sign and up to `scale`, some of them all of it."""
    g = torch.Generator().manual_seed(round(scale))

    def numbers(*shape: int) -> Tensor:
        size = torch.rand(batch, *shape, generator=g, dtype=torch.float64).mul(2).clamp(max=1)
        return scale * size * torch.randint(0, 2, (batch, *shape), generator=g).mul(2).sub(1)

    heads = {name: numbers() for name in "abc"} | {"hair": numbers(3)}
    log_variance = 2 * torch.randn(batch, generator=g, dtype=torch.float64)
    heads["age"] = torch.stack([numbers(), log_variance], dim=1)
    return {name: head.to(dtype).requires_grad_() for name, head in heads.items()}


def assert_alike(one: Formula, two: Formula, heads: dict[str, Tensor]) -> None:
    """Equal values and gradients, to eleven and eight digits."""
    left, right = log_probability(one, heads), log_probability(two, heads)
    if not CompiledFormula(one).satisfiable:
        assert (left == -math.inf).all() and (right == -math.inf).all()
        return
    assert ((left - right).abs() <= 1e-11 * (1 + left.abs())).all(), f"{one} and {two}"
    if left.requires_grad or right.requires_grad:
        slope, other = gradients(left, heads), gradients(right, heads)
        assert ((slope - other).abs() <= 1e-8 * (1 + slope.abs())).all(), f"{one} and {two}"


@quietly
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@PROPERTY
@given(FORMULAS, FORMULAS, FORMULAS)
def test_equivalent_formulas_are_equally_probable(scale: float, a: Formula, b: Formula, c: Formula) -> None:
    heads = extreme(scale)
    assert_alike(~~a, a, heads)
    assert_alike(~(a & b), ~a | ~b, heads)
    assert_alike(~(a | b), ~a & ~b, heads)
    assert_alike(a & (b | c), (a & b) | (a & c), heads)
    assert_alike(a | (b & c), (a | b) & (a | c), heads)
    assert_alike(a & (a | b), a, heads)
    assert_alike(a | (a & b), a, heads)
    assert_alike(a & a, a, heads)
    assert_alike(a | a, a, heads)
    assert_alike(b & a, a & b, heads)
    assert_alike((a & b) | (a & ~b), a, heads)  # needs the law of the excluded middle, which missing labels break


@quietly
@PROPERTY
@given(FORMULAS)
def test_a_formula_and_its_complement_are_all_or_nothing(a: Formula) -> None:
    both, either = CompiledFormula(a & ~a), CompiledFormula(a | ~a)
    assert not both.satisfiable and not both.tautological
    assert either.satisfiable and either.tautological
    heads = extreme(1e4)
    assert (both(heads) == -math.inf).all() and (either(heads) == 0).all()
    assert CompiledFormula(a).tautological is not CompiledFormula(~a).satisfiable


@quietly
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@PROPERTY
@given(FORMULAS)
def test_any_formula_is_finite_at_any_logits(dtype: torch.dtype, a: Formula) -> None:
    heads, compiled = extreme(1e4, dtype), CompiledFormula(a)
    if compiled.satisfiable:
        value = compiled(heads)
        assert value.isfinite().all() and (value < 1e-3).all(), str(a)
        if value.requires_grad:
            assert gradients(value, heads).isfinite().all(), str(a)


# --- ordinal attributes ---

SIZE = Schema((Attribute("size", "categorical", ("small", "medium", "large", "huge"), ordered=True), Attribute("a")))
SIZE_CUTS = torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64)  # at -1, 0 and e^.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_comparisons_are_cumulative_probabilities_with_their_slopes_far_out(dtype: torch.dtype) -> None:
    """log P(size > k) = logsigmoid((eta - theta_k) / e^s): no tail is lost in the sum of log-probabilities."""
    thetas = (-1.0, 0.0, math.exp(0.5))
    eta = torch.tensor([-1e3, -60.0, -1.1, 0.3, 2.0, 60.0, 1e3], dtype=dtype)
    output = torch.stack((eta, torch.tensor([0.0, 0.5, -1.0, 0.2, 1.0, 0.5, 0.0], dtype=dtype)), 1).requires_grad_()
    scale = output[:, 1].exp()
    rtol = 1e-5 if dtype == torch.float32 else 1e-11
    for k, (above, below) in enumerate(
        (("size>small", "size<=small"), ("size>medium", "size<large"), ("size=huge", "size<huge"))
    ):
        for text, sign in ((above, 1), (below, -1)):
            exact = torch.nn.functional.logsigmoid(sign * (output[:, 0] - thetas[k]) / scale)
            found = log_probability(parse(text, SIZE), {"size": cumulative(output, SIZE_CUTS.to(dtype))})
            torch.testing.assert_close(found, exact, rtol=rtol, atol=1e-30)
            slopes = (torch.autograd.grad(x.sum(), output, retain_graph=True)[0] for x in (found, exact))
            torch.testing.assert_close(*slopes, rtol=10 * rtol, atol=1e-30)


def test_comparisons_combine_like_any_formula() -> None:
    heads = {
        "size": cumulative(torch.randn(6, 2, dtype=torch.float64), SIZE_CUTS),
        "a": torch.randn(6, dtype=torch.float64),
    }
    p = heads["size"].exp()
    between = log_probability(parse("size>small & size<huge", SIZE), heads)
    torch.testing.assert_close(between.exp(), p[:, 1] + p[:, 2], rtol=1e-12, atol=0)
    either = log_probability(parse("size>=large | a", SIZE), heads).exp()
    q = heads["a"].sigmoid()
    torch.testing.assert_close(either, 1 - (1 - p[:, 2] - p[:, 3]) * (1 - q), rtol=1e-12, atol=0)
    assert not CompiledFormula(parse("size<medium & size>medium", SIZE)).satisfiable
    assert CompiledFormula(parse("size<=medium | size>medium", SIZE)).tautological

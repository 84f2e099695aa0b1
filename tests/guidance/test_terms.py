from collections.abc import Callable

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from lcg.guidance import (
    BeliefReadout,
    ClassifierTerm,
    FormulaReadout,
    LabelReadout,
    LayeredTerm,
    Term,
    log_probability,
    parse,
)
from lcg.nets.heads import HeadOutputs, known_outputs, log_likelihood
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("beard"),
        Attribute("hair", "categorical", ("blond", "red", "brown")),
        Attribute("age", "continuous"),
        Attribute("smile"),
    )
)
NAN = float("nan")
T = torch.full((4,), 0.3)


class Heads(nn.Module):
    """A linear classifier with every kind of head, which counts its evaluations."""

    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(dim, 8, generator=g))
        self.calls = 0

    def forward(self, z_t: Tensor, t: Tensor) -> HeadOutputs:
        self.calls += 1
        out = z_t @ self.weight.to(z_t.dtype)
        return {
            "glasses": out[:, 0],
            "beard": out[:, 1],
            "hair": out[:, 2:5],
            "age": out[:, 5:7],
            "smile": out[:, 7],
        }


def latents(rows: int = 4) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))


def test_score_is_the_gradient_of_the_weighted_sum_in_one_evaluation() -> None:
    heads, z, per_row = Heads(), latents().double(), torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    one, two = parse("glasses | ~beard", SCHEMA), parse("age>0.5 & hair in {red, brown}", SCHEMA)
    term = ClassifierTerm(heads, [(FormulaReadout(one), 2.0), (FormulaReadout(two), per_row)])
    score = term.score(z, T)
    assert heads.calls == 1 and not score.requires_grad
    z = z.requires_grad_()
    outputs = heads(z, T)
    total = 2 * log_probability(one, outputs) + per_row * log_probability(two, outputs)
    (expected,) = torch.autograd.grad(total.sum(), z)
    assert (score - expected).abs().max() < 1e-12
    assert (term.log_prob(z, T) - total).abs().max() < 1e-12
    assert heads.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weight_per_row_is_the_weight_of_that_row_alone(dtype: torch.dtype) -> None:
    """Whatever its own precision is, the result has that of the latents."""
    z, weights = latents().to(dtype), torch.tensor([0.0, 0.5, 1.0, 24.0], dtype=torch.float64)
    readout = FormulaReadout(parse("glasses | ~beard", SCHEMA))
    together = ClassifierTerm(Heads(), [(readout, weights)])
    assert together.log_prob(z, T).dtype == together.score(z, T).dtype == dtype
    for row, weight in enumerate(weights.tolist()):
        alone = ClassifierTerm(Heads(), [(readout, weight)])
        for whole, own in ((together.score(z, T), alone.score), (together.log_prob(z, T), alone.log_prob)):
            assert (whole[row] - own(z[row : row + 1], T[:1])[0]).abs().max() < 1e-6
    one = ClassifierTerm(Heads(), [(readout, weights[1])])
    assert torch.equal(one.score(z, T), ClassifierTerm(Heads(), [(readout, 0.5)]).score(z, T))


@pytest.mark.usefixtures("unchecked")
def test_a_weight_for_some_rows_is_refused() -> None:
    term = ClassifierTerm(Heads(), [(FormulaReadout(parse("glasses", SCHEMA)), torch.ones(3))])
    with pytest.raises(ValueError, match=r"`weight` must be one number or 4, one per row, got shape \(3,\); give each"):
        term.log_prob(latents(), T)


def test_labels_to_keep_are_the_weighted_log_likelihood_of_the_known() -> None:
    labels = torch.tensor(
        [[1.0, NAN, 2.0, 0.3, 0.0], [0.0, NAN, NAN, NAN, 1.0], [NAN] * 5, [1.0, NAN, 0.0, -1.0, NAN]],
        dtype=torch.float64,
    )
    weights = torch.tensor([1.0, 5.0, 2.0, 0.5, 3.0])
    outputs = Heads()(latents().double(), T)
    expected = sum(weights[j].double() * log_likelihood(a, outputs[a.name], labels[:, j]) for j, a in enumerate(SCHEMA))
    value = LabelReadout(SCHEMA, labels, weights)(outputs)
    assert (value - expected).abs().max() < 1e-12 and value[2] == 0
    del outputs["beard"]  # never asked
    assert (LabelReadout(SCHEMA, labels, weights)(outputs) - value).abs().max() == 0


def test_labels_of_one_row_are_kept_by_all_rows() -> None:
    outputs = Heads()(latents(), T)
    row = torch.tensor([[1.0, 0.0, 2.0, 0.3, 1.0]])
    assert torch.equal(LabelReadout(SCHEMA, row, 8.0)(outputs), LabelReadout(SCHEMA, row.expand(4, -1), 8.0)(outputs))


def test_binary_labels_agree_with_the_formula_that_says_the_same() -> None:
    outputs = Heads()(latents(), T)
    labels = torch.tensor([[1.0, 0.0, 2.0, NAN, NAN]])
    formula = parse("glasses & ~beard & hair=brown", SCHEMA)
    assert (LabelReadout(SCHEMA, labels)(outputs) - log_probability(formula, outputs)).abs().max() < 1e-6


ALL = torch.ones(1, 5, dtype=torch.bool)


def test_beliefs_that_are_sure_are_labels() -> None:
    outputs = Heads()(latents().double(), T)
    labels = torch.tensor([[1.0, 0.0, 2.0, NAN, 1.0]], dtype=torch.float64).expand(4, -1)
    beliefs = known_outputs(SCHEMA, outputs, labels)
    value = BeliefReadout(SCHEMA, beliefs, ~labels.isnan())(outputs)
    assert (value - LabelReadout(SCHEMA, labels)(outputs)).abs().max() < 1e-9


def test_beliefs_are_held_where_they_are_as_uncertain_as_they_are() -> None:
    """At its own beliefs the score vanishes; a label pulls on."""
    heads, z = Heads(), latents().double()
    own = ClassifierTerm(heads, [(BeliefReadout(SCHEMA, heads(z, T), ALL), 8.0)])
    assert own.score(z, T).abs().max() < 1e-12
    hard = LabelReadout(SCHEMA, torch.tensor([[1.0, 0.0, 2.0, 0.3, 1.0]], dtype=torch.float64))
    assert ClassifierTerm(heads, [(hard, 8.0)]).score(z, T).abs().max() > 0.1
    away = own.score(z + 0.1, T)  # elsewhere it leads back
    assert bool(((own.log_prob(z + 0.1 + 1e-3 * away, T) - own.log_prob(z + 0.1, T)) > 0).all())


def test_what_is_not_asked_is_not_kept_row_by_row() -> None:
    heads, z = Heads(), latents().double()
    asked = torch.zeros(4, 5, dtype=torch.bool)
    asked[1, 0] = True
    readout = BeliefReadout(SCHEMA, heads(z.flip(0), T), asked)
    score = ClassifierTerm(heads, [(readout, 1.0)]).score(z, T)
    assert score[[0, 2, 3]].abs().max() == 0 and score[1].abs().max() > 0


def test_layers_scale_the_gradient_and_not_the_value() -> None:
    class Sum(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            return z_t.square().flatten(1).sum(1)

    z = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    term, layers = Sum(), torch.tensor([0.0, 1.0, 2.5])
    layered = LayeredTerm(term, layers)
    assert torch.equal(layered.log_prob(z, T[:2]), term.log_prob(z, T[:2]))
    assert (layered.score(z, T[:2]) - layers[:, None] * 2 * z).abs().max() < 1e-12


@pytest.mark.parametrize("device_type", ["cpu"])
def test_logits_are_float32_under_autocast(device_type: str) -> None:
    seen: list[torch.dtype] = []

    def readout(outputs: HeadOutputs) -> Tensor:
        seen.extend(o.dtype for o in outputs.values())
        return (outputs["age"] @ torch.ones(2)).float()  # a matrix product, which autocast would run in bfloat16

    linear = nn.Linear(3, 2)
    term = ClassifierTerm(lambda z, t: {"age": linear(z)}, [(readout, 1.0)])
    with torch.autocast(device_type, dtype=torch.bfloat16):
        assert linear(latents()).dtype == torch.bfloat16
        score = term.score(latents(), T)
    assert seen == [torch.float32] and score.dtype == torch.float32
    exact = linear.weight.sum(0).expand(4, -1)
    assert (score - exact).abs().max() < 1e-2


def test_latents_of_any_shape() -> None:
    term = ClassifierTerm(
        lambda z, t: {"glasses": z.flatten(1).sum(1)}, [(FormulaReadout(parse("glasses", SCHEMA)), 1.0)]
    )
    z = torch.zeros(4, 2, 3)
    assert (term.score(z, T) - 0.5).abs().max() < 1e-6


def test_formulas_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one that can fail, got 'glasses \| ~glasses', which always holds"):
        FormulaReadout(parse("glasses | ~glasses", SCHEMA))
    with pytest.raises(ValueError, match=r"got 'glasses\^0\.0', which always holds or has no weight; sample without"):
        FormulaReadout(parse("glasses^0", SCHEMA))
    with pytest.raises(ValueError, match="which contradicts itself"):
        FormulaReadout(parse("glasses^2 & (~glasses)^3 & beard", SCHEMA))
    with pytest.raises(ValueError, match="one that can hold, got 'glasses & ~glasses', which contradicts itself"):
        FormulaReadout(parse("glasses & ~glasses", SCHEMA))


def test_an_unknown_way_to_read_dependence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="unknown dependence 'jiont'; did you mean 'joint'"):
        FormulaReadout(parse("glasses", SCHEMA), "jiont")  # type: ignore[arg-type]


def test_score_of_a_latent_made_under_inference_mode() -> None:
    term = ClassifierTerm(Heads(), [(FormulaReadout(parse("glasses", SCHEMA)), 1.0)])
    with torch.inference_mode():
        z = latents()
        with pytest.raises(RuntimeError, match=r"guidance needs gradients.*use Trainer\(inference_mode=False\)"):
            term.score(z, T)
    assert torch.equal(term.score(z, T), term.score(latents(), T))
    with torch.no_grad():
        assert torch.equal(term.score(z, T), term.score(latents(), T))


@pytest.mark.parametrize("bad", [NAN, -float("inf")])
def test_outputs_that_are_not_finite_are_named(bad: float) -> None:
    def classifier(z: Tensor, t: Tensor) -> HeadOutputs:
        outputs = Heads()(z, t)
        outputs["beard"] = outputs["beard"] + torch.tensor([0.0, 0.0, bad, 0.0])
        return outputs

    term = ClassifierTerm(classifier, [(FormulaReadout(parse("glasses & beard & ~(beard & smile)", SCHEMA)), 1.0)])
    with pytest.raises(
        ValueError, match=r"in row 2 at t = 0.3: the classifier's output for 'beard' is not finite; check"
    ):
        term.score(latents(), T)


def test_a_log_probability_that_overflows_is_refused() -> None:
    term = ClassifierTerm(lambda z, t: {"a": z[:, 0]}, [(lambda outputs: outputs["a"] * 1e38 * 1e38, 1.0)])
    with pytest.raises(ValueError, match=r"in row 0 at t = 0\.3: the log-probability overflows"):
        term.score(latents(), T)


def test_a_classifier_without_gradient_is_refused() -> None:
    term = ClassifierTerm(torch.no_grad()(Heads()), [(FormulaReadout(parse("glasses", SCHEMA)), 1.0)])
    with pytest.raises(RuntimeError, match=r"outputs have no gradient; run it without torch\.no_grad"):
        term.score(latents(), T)
    assert term.log_prob(latents(), T).shape == (4,)  # the value alone is fine


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: BeliefReadout(SCHEMA, {}, ALL), "unknown attribute 'glasses'"),
    (lambda: BeliefReadout(SCHEMA, {}, ALL[:, :3]), "`asked` must have 5 columns.*got 3"),
    (lambda: LayeredTerm(ClassifierTerm(Heads(), [(lambda o: o["a"], 1.0)]), torch.tensor([-1.0])), "`layers` must be"),
    (lambda: ClassifierTerm(Heads(), []), "`readouts` must hold at least one"),
    (lambda: ClassifierTerm(Heads(), [(lambda o: o["a"], -1.0)]), "`weight` must be >= 0.*negate it in the formula"),
    (lambda: ClassifierTerm(Heads(), [(lambda o: o["a"], torch.tensor([1.0, -2.0]))]), "`weight` must be >= 0"),
    (lambda: FormulaReadout(parse("glasses & ~glasses", SCHEMA)), "'glasses & ~glasses', which contradicts itself"),
    (
        lambda: LabelReadout(SCHEMA, torch.zeros(1, 3)),
        "must have 5 columns.*got 3; mark attributes without a label by NaN",
    ),
    (
        lambda: LabelReadout(SCHEMA, torch.zeros(1, 5), torch.ones(3)),
        r"one number or 5, one per attribute, got shape \(3,\)",
    ),
    (lambda: LabelReadout(SCHEMA, torch.zeros(1, 5), -1.0), "`weights` must be >= 0"),
    (lambda: LabelReadout(SCHEMA, torch.full((1, 5), 0.5)), "'glasses' must be one of 0, 1 or NaN, got 0.5"),
    (lambda: LabelReadout(SCHEMA, torch.tensor([[0.0, 0, 3, 0, 0]])), "'hair' must be one of 0, 1, 2 or NaN, got 3"),
    (lambda: LabelReadout(SCHEMA, torch.tensor([[0, 0, 0, float("inf"), 0]])), "'age' must be finite or NaN, got inf"),
    (lambda: LabelReadout(SCHEMA, torch.zeros(3, 5))(Heads()(latents(), T)), "must have one row or 4.*got 3"),
    (
        lambda: LabelReadout(SCHEMA, torch.zeros(1, 5))({"glasses": T, "bear": T}),
        "unknown attribute 'beard'; did you mean",
    ),
]


@pytest.mark.parametrize(("build", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_makes_no_sense_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_term_must_say_its_log_probability() -> None:
    with pytest.raises(TypeError, match="log_prob"):
        Term()  # type: ignore[abstract]

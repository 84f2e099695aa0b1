"""Guidance prepared for a sampler's times is guidance, whatever the terms; and it never looks at a value if told so."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcg.diffusion import DDIM, CosineSchedule, StaticSampling, UniPC, prepare
from lcg.guidance import (
    And,
    BeliefReadout,
    ClassifierTerm,
    FormulaReadout,
    GuidedDenoiser,
    LabelReadout,
    LayeredTerm,
    PriorTerm,
    SourceTerm,
    Term,
    parse,
)
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.execution import Execution
from lcg.nets.heads import independent
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("hair", "categorical", ("blond", "red")), Attribute("age", "continuous")))
SCHEDULE = CosineSchedule()
TIMES = torch.tensor([0.95, 0.6, 0.2, 0.01], dtype=torch.float64)
D = 6


def random_weights(module: torch.nn.Module) -> torch.nn.Module:
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module.eval().requires_grad_(False)


def networks(
    components: int = 1, trunk: str = "shared", dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (D,)
) -> tuple[LatentDenoiser, TimeConditionedClassifier]:
    torch.manual_seed(0)
    denoiser = LatentDenoiser(shape, 16, 2)
    classifier = TimeConditionedClassifier(shape, SCHEMA, 12, 1, components=components, trunk=trunk)  # type: ignore[arg-type]
    random_weights(denoiser), random_weights(classifier)
    classifier.log_temperature.copy_(torch.linspace(-0.5, 0.5, len(classifier.log_temperature)))
    return denoiser.to(dtype), classifier.to(dtype)


def latents(rows: int = 5, shape: tuple[int, ...] = (D,), dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def formula_term(classifier: TimeConditionedClassifier) -> ClassifierTerm:
    formula = parse("hat & (hair=red | age>0.3)", SCHEMA)
    return ClassifierTerm(classifier, [(FormulaReadout(formula), 2.0)])


def keep_term(classifier: TimeConditionedClassifier) -> ClassifierTerm:
    beliefs = independent(classifier(latents(), TIMES[3].expand(5)))
    asked = torch.tensor([[True, True, False], [False, True, True]]).repeat(3, 1)[:5]
    labels = torch.tensor([[1.0, 0.0, 0.5]]).double()
    return ClassifierTerm(
        classifier, [(BeliefReadout(SCHEMA, beliefs, asked), torch.arange(5.0)), (LabelReadout(SCHEMA, labels), 0.5)]
    )


def source(denoiser: LatentDenoiser, mode: str, joint: bool = True) -> SourceTerm:
    tau = torch.linspace(0.2, 0.9, 5).double()
    return SourceTerm(latents().flip(0), denoiser, SCHEDULE, tau, mode, joint=joint)  # type: ignore[arg-type]


Terms = Callable[[LatentDenoiser, TimeConditionedClassifier], list[Term | PriorTerm]]
CASES: dict[str, Terms] = {
    "none": lambda d, c: [],
    "formula": lambda d, c: [formula_term(c)],
    "formula and what is kept": lambda d, c: [formula_term(c), keep_term(c)],
    "tweedie": lambda d, c: [formula_term(c), source(d, "tweedie")],
    "observation": lambda d, c: [formula_term(c), source(d, "observation")],
    "paper": lambda d, c: [SourceTerm(latents(), d, SCHEDULE, mode="paper"), formula_term(c)],
    "a source with another prior": lambda d, c: [formula_term(c), source(networks()[0], "observation", False)],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["shared", "joint", "separate"])
def test_prepared_guidance_is_guidance(case: str, kind: str) -> None:
    denoiser, classifier = networks(3 if kind == "joint" else 1, "separate" if kind == "separate" else "shared")
    weight = torch.linspace(0, 2, 5).double()
    guided = GuidedDenoiser(
        denoiser, CASES[case](denoiser, classifier), SCHEDULE, lambda t: weight * (1 + t), max_step=0.4
    )
    for t, prepared in zip(TIMES, prepare(guided, TIMES), strict=True):
        exact, found = guided(latents(), t.expand(5)), prepared(latents())
        assert not found.requires_grad
        assert (found - exact).abs().max() < 1e-11 * exact.abs().max().clamp(min=1)


def test_layers_keep_their_weights() -> None:
    denoiser, classifier = networks(shape=(3, 2))
    term = LayeredTerm(formula_term(classifier), torch.tensor([1.0, 0.0, 0.5]))
    guided = GuidedDenoiser(denoiser, [term], SCHEDULE)
    z_t = latents(shape=(3, 2))
    for t, prepared in zip(TIMES, prepare(guided, TIMES), strict=True):
        assert (prepared(z_t) - guided(z_t, t.expand(5))).abs().max() < 1e-12


@pytest.mark.parametrize("backend", ["reference", "autograd", "eager", "packed", "auto"])
@pytest.mark.parametrize("rows", [1, 5])
def test_every_backend_samples_alike(backend: str, rows: int) -> None:
    """In single precision, over a whole path, against the networks in double precision."""
    sampler, results = UniPC(SCHEDULE, 12), []
    for dtype, how in ((torch.float64, Execution("reference")), (torch.float32, Execution(backend))):  # type: ignore[arg-type]
        denoiser, classifier = networks(3, dtype=dtype)
        denoiser.execution = classifier.execution = how
        guided = GuidedDenoiser(denoiser, [formula_term(classifier)], SCHEDULE)
        results.append(sampler.sample(guided, latents(rows, dtype=dtype)).double())
    exact, found = results
    assert (found - exact).abs().max() < 2e-4 * exact.abs().max()


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_stays_near(precision: str, bound: float) -> None:
    """The guidance itself, against double precision; the state and the update are in single precision."""
    exact_nets, half_nets = networks(), networks(dtype=torch.float32)
    half_nets[0].execution = half_nets[1].execution = Execution(precision=precision)  # type: ignore[arg-type]
    guided = [GuidedDenoiser(d, [formula_term(c)], SCHEDULE) for d, c in (exact_nets, half_nets)]
    for i, t in enumerate(TIMES):
        exact = guided[0](latents(), t.expand(5))
        found = prepare(guided[1], TIMES.float())[i](latents(dtype=torch.float32))
        assert found.dtype == torch.float32
        assert float((found - exact).norm() / exact.norm()) < bound


def test_a_conjunction_is_differentiated_once() -> None:
    """Terms of one classifier share its evaluation; several terms are summed before they are differentiated."""
    denoiser, classifier = networks()
    calls = []
    classifier.door.register_forward_hook(lambda *_: calls.append(1))
    both = parse("hat", SCHEMA), parse("age>0.3", SCHEMA)
    term = ClassifierTerm(classifier, [(FormulaReadout(formula), 1.0) for formula in both])
    one = GuidedDenoiser(denoiser, [term], SCHEDULE).prepare(TIMES)[1](latents())
    assert len(calls) == 1
    formula = And(both)
    other = ClassifierTerm(classifier, [(FormulaReadout(formula), 1.0)])
    assert (GuidedDenoiser(denoiser, [other], SCHEDULE).prepare(TIMES)[1](latents()) - one).abs().max() < 1e-12


# --- what is not finite ---


def test_a_gradient_that_is_not_finite_is_named_on_the_fast_path_too() -> None:
    denoiser, classifier = networks()
    classifier.net.output.weight.data[0, 0] = math.nan
    guided = GuidedDenoiser(denoiser, [formula_term(classifier)], SCHEDULE)
    with pytest.raises(ValueError, match=r"the log-probability must be finite.*the classifier's output for 'hat'"):
        DDIM(SCHEDULE, 4).sample(guided, latents())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_patient_guidance_hides_nothing(value: float) -> None:
    """Infinity would be clipped to a number; it becomes NaN instead, and the static sampler then asks the reference."""

    class Broken(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            return (z_t * value).sum(1)

    denoiser, _ = networks()
    guided = GuidedDenoiser(denoiser, [Broken()], SCHEDULE)
    sampler = DDIM(SCHEDULE, 4, clip=3.0)
    assert sampler.sample(guided.patient(), latents()).isnan().all()
    with pytest.raises(ValueError, match="the guidance's gradient must be finite"):
        StaticSampling(sampler, guided).sample(latents())


def test_static_memory_serves_guidance() -> None:
    denoiser, classifier = networks()
    guided, sampler = GuidedDenoiser(denoiser, [formula_term(classifier)], SCHEDULE, 2.0), UniPC(SCHEDULE, 8)
    static = StaticSampling(sampler, guided)
    for rows in (5, 3, 1):
        assert (static.sample(latents(rows)) - sampler.sample(guided, latents(rows))).abs().max() < 1e-11

"""lcg and its competitors behind one contract: rows by their own seeds, strengths by their own grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import lcg
from lcg.baselines import Baseline, LatentArithmetic, Training
from lcg.baselines.contract import strength_per_row
from lcg.benchmarks.benchmark import Benchmark, Sizes, seed_range
from lcg.benchmarks.cache import Cache
from lcg.benchmarks.costs import Cost, measured
from lcg.benchmarks.folder import Folder, read_json
from lcg.benchmarks.methods import LCG, SCALES, Competitor, Variation
from lcg.benchmarks.tasks import parse_task
from lcg.data.avatars import SCHEMA
from lcg.data.store import LatentStore
from lcg.editing import EditRequest, EditResult
from lcg.pipeline import Pipeline
from lcg.settings import Editing, Guidance, Sampling

EDIT = parse_task("edit/+beard +glasses", SCHEMA)
FORMULA = parse_task("generate/hat & ~beard", SCHEMA)


class Grower(Baseline):
    """Adds its strength to every latent, or puts its strength in the place of a sample."""

    name = "grower"
    strengths = (0.5, 1.0, 2.0, 3.0)

    def __init__(self) -> None:
        self.fitted = 0

    def fit(self, training: Training) -> Grower:
        self.fitted += 1
        return self

    def edit(self, z_0: torch.Tensor, request: EditRequest) -> EditResult:
        return EditResult(z_0 + strength_per_row(request.strength, z_0), request)

    def can_generate(self, formula) -> bool:
        return "hat" in formula.attributes

    def generate(self, formula, z_0, randomness=None, strength=1.0):
        return 0 * z_0 + strength_per_row(strength, z_0)


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return replace(lcg.load(demo.prior, demo.classifier), sampling=Sampling(steps=4), editing=Editing(steps=4))


@pytest.fixture(scope="module")
def sources(demo, pipeline: Pipeline) -> tuple[torch.Tensor, torch.Tensor]:
    store = LatentStore.open(demo.store)
    return pipeline.statistics.standardise(store.latents()[:6]), store.labels()[:6]


def grower(pipeline: object = None, cache: Cache | None = None) -> Competitor:
    return Competitor(pipeline, Grower(), lambda baseline: baseline.fit(None), "grower", cache)


# --- rows ---


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpm++2m", "unipc"])
def test_a_sample_depends_on_its_seed_and_not_on_its_chunk(pipeline: Pipeline, sampler: str) -> None:
    method = LCG(replace(pipeline, sampling=Sampling(sampler, steps=4)))
    whole = [method.sample(seed_range(1, 6)), method.generate(FORMULA, seed_range(1, 6))]
    part = [method.sample(seed_range(1, range(2, 5))), method.generate(FORMULA, seed_range(1, range(2, 5)))]
    for all_rows, rows in zip(whole, part, strict=True):
        torch.testing.assert_close(all_rows[2:5], rows, rtol=0, atol=1e-4)
    assert not torch.allclose(whole[0], whole[1], atol=1e-2)


def test_so_do_systems_of_particles(pipeline: Pipeline) -> None:
    method = LCG(replace(pipeline, guidance=Guidance(particles=4)))
    whole, part = (method.generate(FORMULA, seeds) for seeds in (range(6), range(2, 5)))
    torch.testing.assert_close(whole[2:5], part, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "editing",
    [Editing(steps=4), Editing(steps=4, start="noising"), Editing(steps=4, start="noise", corrections=1)],
    ids=lambda editing: f"{editing.start}",
)
def test_an_edit_depends_on_its_row_and_not_on_its_chunk(
    pipeline: Pipeline, sources: tuple[torch.Tensor, torch.Tensor], editing: Editing
) -> None:
    method, (z_0, labels) = LCG(replace(pipeline, editing=editing)), sources
    whole = method.edit(EDIT, z_0, labels, range(6))
    part = method.edit(EDIT, z_0[2:5], labels[2:5], range(2, 5))
    assert whole.shape == (2, *z_0.shape)
    torch.testing.assert_close(whole[:, 2:5], part, rtol=0, atol=1e-4)
    at_once = method.edit_at(EDIT, z_0, labels, range(6), 0.5)
    torch.testing.assert_close(
        at_once[2:5], method.edit_at(EDIT, z_0[2:5], labels[2:5], range(2, 5), 0.5), rtol=0, atol=1e-4
    )


def test_so_it_is_for_a_baseline(
    demo, pipeline: Pipeline, sources: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    store = LatentStore.open(demo.store)
    z_0 = pipeline.statistics.standardise(store.latents())
    # Arithmetic looks at latents and labels only.
    training = Training(z_0, store.labels(), SCHEMA, *(None,) * 5)
    method = Competitor(pipeline, LatentArithmetic().fit(training), lambda fitted: fitted, "name", Cache(tmp_path, {}))
    whole, part = method.edit(EDIT, *sources, range(6)), method.edit(EDIT, *(x[2:5] for x in sources), range(2, 5))
    torch.testing.assert_close(whole[:, 2:5], part, rtol=0, atol=1e-6)
    samples = [method.generate(FORMULA, seeds) for seeds in (range(6), range(2, 5))]
    torch.testing.assert_close(samples[0][2:5], samples[1], rtol=0, atol=1e-4)


def test_repetitions_share_no_seeds() -> None:
    assert seed_range(2, range(3, 5)) == range(2_000_003, 2_000_005)
    assert not {*seed_range(0, 100)} & {*seed_range(1, 100)} and seed_range(0, 4) == range(4)


def test_what_an_edit_costs_does_not_depend_on_what_was_asked_before(
    pipeline: Pipeline, sources: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Within a sequence the inversion of the sources is remembered; of an earlier task's it must not be."""
    method, costs = LCG(pipeline), []
    for _ in range(2):
        with measured(torch.device("cpu")) as cost:
            method.edit(EDIT, *sources, range(6))
        costs.append(cost.evaluations)
        method.edit_at(EDIT, *sources, range(6), 0.5)
    assert costs[0] == costs[1] > 0


# --- strengths ---


def test_at_a_strength_lcg_is_asked_once(pipeline: Pipeline) -> None:
    method = LCG(pipeline)
    assert method.scales == SCALES and method.strengths == pipeline.editor().strengths
    unguided = method.generate(FORMULA, range(4), 0.0)
    torch.testing.assert_close(unguided, method.sample(range(4)), rtol=0, atol=1e-4)
    assert not torch.allclose(unguided, method.generate(FORMULA, range(4), 8.0), atol=1e-2)


def test_all_strengths_at_once_are_each_by_itself(
    demo, pipeline: Pipeline, sources: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    store = LatentStore.open(demo.store)
    z_0 = pipeline.statistics.standardise(store.latents())
    fitted = LatentArithmetic().fit(Training(z_0, store.labels(), SCHEMA, *(None,) * 5))
    for method in (LCG(pipeline), Competitor(pipeline, fitted, lambda same: same, "name", Cache(tmp_path, {}))):
        strengths, edit = (0.25, 0.5, 1.0), (EDIT, *sources, range(6))
        drawn, edited = method.generate_each(FORMULA, range(4), strengths), method.edit_each(*edit, strengths)
        assert len(drawn) == len(edited) == 3
        for number, strength in enumerate(strengths):
            torch.testing.assert_close(drawn[number], method.generate(FORMULA, range(4), strength), rtol=0, atol=1e-4)
            torch.testing.assert_close(edited[number], method.edit_at(*edit, strength), rtol=0, atol=1e-4)


def test_lcg_says_how_far_to_trust_its_samples(pipeline: Pipeline) -> None:
    method = LCG(replace(pipeline, guidance=Guidance(particles=4)))
    method.generate(FORMULA, range(4))
    said = {figure.metric: figure.value for figure in method.diagnostics()}
    assert said.keys() == {"log_p_formula", "ess"} and said["log_p_formula"] < 0 < said["ess"] <= 1
    method.sample(range(4))
    assert list(method.diagnostics()) == []


def test_lcg_is_not_tuned(pipeline: Pipeline) -> None:
    method = LCG(pipeline)
    assert method.parts(EDIT) == () == method.parts(FORMULA) and method.chosen(EDIT) == ""
    assert method.surcharge(FORMULA, range(3)) == Cost()
    assert method.at(None) is pipeline and method.at(2.0).guidance.several == 2 != pipeline.guidance.several


def test_a_baseline_is_tuned_for_every_step_and_has_a_curve_of_its_own() -> None:
    method = grower()
    assert method.strengths == method.scales == (0.5, 1.0, 2.0, 3.0)
    assert method.parts(EDIT) == EDIT.steps() and method.parts(FORMULA) == (FORMULA,)
    synthetic = parse_task("synthetic/+beard +glasses", SCHEMA)
    assert method.parts(synthetic) == EDIT.steps()  # tuned on real images
    assert method.parts(parse_task("tradeoff/+beard", SCHEMA)) == () == method.parts(parse_task("scale/hat", SCHEMA))
    method.tuned.update({"edit/+beard": 1.0, "edit/+beard+glasses": 2.0})
    assert [float(z[0, 0]) for z in method.edit(EDIT, torch.zeros(1, 2), torch.zeros(1, 17), range(1))] == [1.0, 2.0]
    assert float(method.edit_at(EDIT, torch.zeros(1, 2), torch.zeros(1, 17), range(1), 3.0)[0, 0]) == 3.0
    assert method.chosen(EDIT) == "Strength tuned on a validation split: 1, 2." and method.chosen(FORMULA) == ""


@pytest.mark.parametrize(("best", "found"), [(1.0, 1.0), (2.4, 2.0), (None, 0.5)])
def test_the_best_strength_is_found_and_of_equally_good_ones_the_gentlest(
    tmp_path: Path, best: float | None, found: float
) -> None:
    class Scored(Benchmark):
        def scores(self, method, part, strengths):
            return [0.5 if best is None else -abs(strength - best) for strength in strengths]

    method, folder = grower(), Folder(tmp_path, {"always": 0})
    benchmark = Scored(SimpleNamespace(pipeline=None), [method], [], None, Sizes(), folder)
    benchmark.tune(method, EDIT.steps()[0], tmp_path / "tuned.json")
    told = read_json(tmp_path / "tuned.json")
    assert told["strength"] == found and told["strengths"] == [0.5, 1.0, 2.0, 3.0] and len(told["scores"]) == 4


# --- what is asked of whom ---


def test_a_baseline_is_fitted_once_and_when_it_is_needed() -> None:
    method = grower()
    assert method.options.fitted == 0 and method.can(EDIT) and method.depends(EDIT)
    assert method.options.fitted == 0
    method.prepare()
    method.edit_at(EDIT, torch.zeros(1, 2), torch.zeros(1, 17), range(1), 1.0)
    assert method.options.fitted == 1


def test_who_answers_what(pipeline: Pipeline) -> None:
    edits = {"edit/+hat", "synthetic/+hat", "tradeoff/+hat"}
    formulas = {"generate/hat", "generate/beard", "scale/hat"}
    tasks = {text: parse_task(text, SCHEMA) for text in {"unconditional", "calibration"} | formulas | edits}

    def answers(method) -> set[str]:
        return {text for text, task in tasks.items() if method.can(task)}

    assert answers(LCG(pipeline)) == {"unconditional"} | formulas | edits
    assert answers(grower()) == {"generate/hat", "scale/hat"} | edits
    assert answers(LCG(pipeline, "a", Variation(editing=Editing()))) == edits - {"tradeoff/+hat"}
    assert answers(LCG(pipeline, "a", Variation(guidance=Guidance()))) == formulas
    assert answers(LCG(pipeline, "a", Variation(sampling=Sampling()))) == {"unconditional"} | formulas


def test_what_an_answer_depends_on(pipeline: Pipeline) -> None:
    tasks = {text: parse_task(text, SCHEMA) for text in ("unconditional", "generate/hat", "scale/hat", "edit/+hat")}
    assert {text: set(LCG(pipeline).depends(task)) for text, task in tasks.items()} == {
        "unconditional": {"sampling"},
        "generate/hat": {"sampling", "guidance"},
        "scale/hat": {"sampling", "guidance"},
        "edit/+hat": {"sampling", "sources", "editing"},
    }
    assert "variation weak" in LCG(pipeline, "weak", Variation(editing=Editing())).depends(tasks["edit/+hat"])
    assert set(grower().depends(tasks["generate/hat"])) == {"baseline grower", "sampling"}
    assert set(grower().depends(tasks["edit/+hat"])) == {"baseline grower", "sampling", "sources"}


def test_a_variation_changes_what_it_says_and_nothing_else(pipeline: Pipeline) -> None:
    changed = Variation(guidance=Guidance(several=1.5)).of(pipeline)
    assert changed.guidance.several == 1.5
    assert (changed.sampling, changed.editing) == (pipeline.sampling, pipeline.editing)
    with pytest.raises(ValueError, match="a variation must change `sampling`, `guidance` or `editing`, got none"):
        Variation()


# --- costs ---


def test_the_samples_that_are_moved_belong_to_the_cost_and_no_others_are_made(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    mover = Competitor(pipeline, LatentArithmetic(), lambda baseline: baseline, "arithmetic", Cache(tmp_path, {}))
    assert mover.surcharge(FORMULA, range(3)).evaluations == 4 * 3  # steps times samples
    other = grower(pipeline, Cache(tmp_path / "other", {}))
    cost = other.surcharge(FORMULA, range(3))
    assert (cost.seconds, cost.evaluations) == (0, 0)
    assert torch.equal(other.generate(FORMULA, range(3), 2.0), torch.full((3, 64), 2.0))
    assert torch.equal(other.generate(FORMULA, range(3)), torch.ones(3, 64))  # untuned: the default
    assert not (tmp_path / "other").exists()

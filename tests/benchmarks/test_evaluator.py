"""The evaluator with the shipped generator and judge, on latents whose truth is known: those of real avatars."""

import math

import pytest
import torch

import lcg
from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.tasks import Edit, Generate, parse_task
from lcg.benchmarks.world import AvatarWorld
from lcg.data.avatars import COLUMN, SCHEMA, render
from lcg.guidance import parse
from lcg.metrics.judge import AvatarJudge
from lcg.pipeline import Pipeline

N = 160  # more than the judge has features
MARGINALS = {"glasses": 0.3, "beard": 0.3, "smile": 0.45, "hat": 0.35, "long_hair": 0.35, "dark_skin": 0.4}


class SmallWorld(AvatarWorld):
    """Renders at most as many as the tests need."""

    def real(self, distribution, count, split, formula=None):
        return super().real(distribution, min(count, 512), split, formula)


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return lcg.load(demo.prior, demo.classifier)


@pytest.fixture(scope="module")
def evaluator(pipeline: Pipeline) -> Evaluator:
    return Evaluator(pipeline, AvatarJudge(), SmallWorld(), MARGINALS, references=N, neighbours=512)


def by_metric(figures) -> dict[str, Figure]:
    figures = list(figures)
    assert len({f.metric for f in figures}) == len(figures)
    for figure in figures:
        assert math.isfinite(figure.value) and figure.n > 0
    return {figure.metric: figure for figure in figures}


def test_features_have_mean_zero_and_deviation_one_on_renders(evaluator: Evaluator) -> None:
    features = evaluator.see(evaluator.world.real("uniform", 512, "scale").images).features
    assert features.mean(0).abs().max() < 1e-4 and (features.std(0) - 1).abs().max() < 1e-3


def test_the_judge_knows_renders_and_their_reconstructions(evaluator: Evaluator) -> None:
    renders, again = by_metric(evaluator.renders(N, 0)), by_metric(evaluator.reconstructions(N, 0))
    assert renders["joint_accuracy"].value > 0.95 and renders["accuracy/glasses"].value > 0.98
    assert again["joint_accuracy"].value > 0.9 and again["psnr"].value > 20
    assert renders["accuracy/glasses"].n == N > renders["accuracy/glasses_style"].n > 0  # counted where it applies


def test_real_latents_are_sharp_and_near_the_floor_and_noise_is_neither(
    evaluator: Evaluator, pipeline: Pipeline
) -> None:
    real = pipeline.encode(evaluator.world.real("biased", N, "other").images)
    noise = 3 * torch.randn(N, 64, generator=torch.Generator().manual_seed(0))
    good, bad = (by_metric(evaluator.unconditional(z_0)) for z_0 in (real, noise))
    floor, gaussian = by_metric(evaluator.unconditional_floor(0)), by_metric(evaluator.gaussian(0))
    assert good["sharp"].value > 0.9 and bad["sharp"].value < 0.1
    assert good["frechet_distance"].value < 1.5 * floor["frechet_distance"].value
    assert good["frechet_distance"].value < gaussian["frechet_distance"].value < bad["frechet_distance"].value
    assert floor["marginal/hat"].value == MARGINALS["hat"] and abs(good["marginal/hat"].value - 0.35) < 0.12
    assert math.isnan(good["frechet_distance"].stderr) and 0 < good["marginal/hat"].stderr < 0.05


def test_samples_that_satisfy_a_formula_and_some_that_do_not(evaluator: Evaluator, pipeline: Pipeline) -> None:
    task = parse_task("generate/glasses & hat", SCHEMA)
    assert isinstance(task, Generate)
    with_both, without = (
        pipeline.encode(evaluator.world.real("uniform", N, "asked", parse(text, SCHEMA)).images)
        for text in ("glasses & hat", "glasses & ~hat")
    )
    right, wrong = (by_metric(evaluator.generated(task, z_0)) for z_0 in (with_both, without))
    floor = by_metric(evaluator.real(task, N, 0))
    assert min(right["joint_accuracy"].value, floor["joint_accuracy"].value) > 0.9
    assert wrong["joint_accuracy"].value == wrong["sharp"].value < 0.1
    assert wrong["marginal/glasses"].value > 0.9 and wrong["marginal/hat"].value < 0.1
    assert right["frechet_distance"].value < 0.7 * wrong["frechet_distance"].value
    assert right["sharp"].value <= right["joint_accuracy"].value


def test_edits_that_are_made_and_edits_that_are_not(evaluator: Evaluator, pipeline: Pipeline) -> None:
    task = parse_task("edit/+glasses", SCHEMA)
    assert isinstance(task, Edit)
    sources = evaluator.world.real("uniform", 24, "sources", parse("~glasses & ~hat", SCHEMA))
    parts = sources.parts.copy()
    unedited = by_metric(evaluator.edited(task, sources, pipeline.encode(sources.images)))
    assert unedited["edit_success"].value == unedited["joint_accuracy"].value < 0.1
    assert unedited["kept"].value > 0.9 and unedited["l1_outside"].value < 0.03

    parts[:, COLUMN["glasses_style"]] = 1
    edited = by_metric(evaluator.edited(task, sources, pipeline.encode(render(parts))))
    assert edited["edit_success"].value > 0.85 and edited["joint_accuracy"].value > 0.9
    parts[:, COLUMN["mouth"]] = (parts[:, COLUMN["mouth"]] + 3) % 6  # another mouth, of which nobody spoke
    drifted = by_metric(evaluator.edited(task, sources, pipeline.encode(render(parts))))
    assert drifted["joint_accuracy"].value > 0.9 and drifted["kept_fine"].value < 0.1
    assert drifted["edit_success"].value < edited["edit_success"].value


def test_too_few_samples_for_a_distance_are_refused(evaluator: Evaluator) -> None:
    with pytest.raises(ValueError, match="128"):
        list(evaluator.unconditional(torch.zeros(64, 64)))

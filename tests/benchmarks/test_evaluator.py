"""The evaluator with the shipped generator and judge: real images are seen as what they are, once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lcg
from lcg.benchmarks.cache import Cache
from lcg.benchmarks.evaluator import PATIENCE, Evaluator, Sources, sources_of
from lcg.benchmarks.tasks import Edit, parse_task
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.data.avatars import SCHEMA
from lcg.guidance import parse
from lcg.metrics.frechet import moments
from lcg.metrics.judge import AvatarJudge
from lcg.pipeline import Pipeline

N = 160  # more than the judge has features
MARGINALS = {"glasses": 0.3, "beard": 0.3, "smile": 0.45, "hat": 0.35, "long_hair": 0.35, "dark_skin": 0.4}
NOTHING = parse("~hat", SCHEMA)


class CountingWorld(AvatarWorld):
    """Counts what is drawn."""

    drawn = 0

    def real(self, kind, count, split, formula=None):
        self.drawn += 1
        return super().real(kind, count, split, formula)


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return lcg.load(demo.prior, demo.classifier)


@pytest.fixture(scope="module")
def evaluator(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    return evaluator_of(pipeline, tmp_path_factory.mktemp("cache"))


def evaluator_of(pipeline: Pipeline, folder: Path) -> Evaluator:
    cache = Cache(folder, {})
    return Evaluator(pipeline, AvatarJudge(), CountingWorld(), MARGINALS, references=N, neighbours=512, cache=cache)


def edit(text: str) -> Edit:
    task = parse_task(text, SCHEMA)
    assert isinstance(task, Edit)
    return task


def test_features_have_mean_zero_and_deviation_one_on_real_images(evaluator: Evaluator) -> None:
    features = evaluator.see(evaluator.world.real("uniform", 2 * N, "scale").images).features
    assert features.mean(0).abs().max() < 1e-4 and (features.std(0) - 1).abs().max() < 1e-3


def test_the_judge_knows_real_images_and_their_reconstructions(evaluator: Evaluator, pipeline: Pipeline) -> None:
    originals, again = evaluator.originals("some", N), evaluator.originals("some", N)
    binary = [SCHEMA.index(attribute.name) for attribute in SCHEMA.of_kind("binary")]
    for images, least in ((originals.images.numpy(), 0.95), (pipeline.decode(originals.z_0), 0.9)):
        right = evaluator.see(images).labels[:, binary] == originals.labels[:, binary]
        assert right.all(1).double().mean() > least
    assert torch.equal(originals.z_0, again.z_0) and originals.regions is None


def test_real_latents_are_near_and_noise_is_not(evaluator: Evaluator, pipeline: Pipeline) -> None:
    real = pipeline.encode(evaluator.world.real("biased", N, "other").images)
    noise = 3 * torch.randn(N, 64, generator=torch.Generator().manual_seed(0))
    assert evaluator.nearest.near(real).double().mean() > 0.9 > 0.1 > evaluator.nearest.near(noise).double().mean()
    assert len(evaluator.nearest.real_latents) == 512


def test_the_reference_of_the_prior_is_what_the_generator_makes_of_real_images(
    evaluator: Evaluator, pipeline: Pipeline
) -> None:
    reference, z_0 = evaluator.biased()
    images = evaluator.world.real("biased", N, "biased-reference").images
    assert torch.equal(z_0, pipeline.encode(images))
    torch.testing.assert_close(reference.features, evaluator.see(pipeline.decode(z_0)).features)
    assert torch.allclose(reference.weights, torch.tensor(1 / N, dtype=torch.float64))
    torch.testing.assert_close((reference.mean, reference.covariance), moments(reference.features))


@pytest.mark.parametrize(("text", "supported"), [("glasses", True), ("beard & long_hair", False)])
def test_the_reference_of_a_formula_satisfies_it_with_the_usual_marginals(
    evaluator: Evaluator, text: str, supported: bool
) -> None:
    formula = parse(text, SCHEMA)
    assert evaluator.in_support(formula) == supported
    reference, real = evaluator.satisfying(formula), evaluator.real(formula, "reference")
    assert formula.holds(real.labels).all() and len(reference.features) == N
    torch.testing.assert_close(reference.features, evaluator.see(real.images).features)
    assert float(reference.weights.sum()) == pytest.approx(1)
    if supported:
        assert reference.weights.unique().numel() == 1
    else:  # uniform images, whose other attributes are made as common as in the training set
        smile = real.labels[:, SCHEMA.index("smile")].double()
        assert float(reference.weights @ smile) == pytest.approx(MARGINALS["smile"], abs=1e-6)


def test_sources_have_what_was_asked_for_and_none_of_the_edits(evaluator: Evaluator, pipeline: Pipeline) -> None:
    task = edit("edit/+glasses -smile")
    found = evaluator.sources(task, NOTHING, "sources-0", 12)
    wanted = sources_of(task, NOTHING)
    assert wanted.holds(found.labels).all() and parse("~hat & ~glasses & smile", SCHEMA).holds(found.labels).all()
    torch.testing.assert_close(found.z_0, pipeline.encode(found.images.numpy()))
    assert found.regions is not None and found.regions.shape == (2, 12, 64, 64)
    assert (found.regions[0] <= found.regions[1]).all()  # each edit may show beside those before it
    other = evaluator.sources(task, NOTHING, "sources-1", 12)
    assert not torch.equal(found.images, other.images)
    part = found[3:5]
    assert torch.equal(part.z_0, found.z_0[3:5]) and torch.equal(part.regions, found.regions[:, 3:5])
    assert Sources(found.images, found.labels, found.z_0, None)[:4].regions is None


def test_synthetic_sources_are_samples_of_the_prior_by_the_judge(evaluator: Evaluator, pipeline: Pipeline) -> None:
    task, anybody = edit("synthetic/+glasses"), parse("hat | ~hat & ~glasses", SCHEMA)
    found = evaluator.sources(task, anybody, "sources-0", 12)
    assert sources_of(task, anybody).holds(found.labels).all() and found.regions is None
    assert torch.equal(found.images, torch.from_numpy(pipeline.decode(found.z_0)))
    torch.testing.assert_close(evaluator.see(found.images.numpy()).labels, found.labels, equal_nan=True)
    assert not torch.equal(found.z_0, evaluator.sources(task, anybody, "sources-1", 12).z_0)


def test_what_the_prior_never_gives_is_refused_with_advice(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcg.benchmarks.evaluator.PATIENCE", 2)
    impossible = parse("hat & long_hair", SCHEMA)
    with pytest.raises(ValueError, match=r"of 8 samples of the prior \d satisfy .*, 4 sources are needed; lower"):
        evaluator.sources(edit("synthetic/+glasses"), impossible, "sources-0", 4)
    assert PATIENCE > 2


def test_everything_is_computed_once(pipeline: Pipeline, tmp_path: Path) -> None:
    def ask(evaluator: Evaluator) -> None:
        evaluator.see(evaluator.originals("few", 4).images.numpy())
        assert evaluator.nearest and evaluator.biased()
        evaluator.satisfying(parse("glasses", SCHEMA))
        evaluator.sources(edit("edit/+glasses"), NOTHING, "sources-0", 4)

    first, second = (evaluator_of(pipeline, tmp_path) for _ in range(2))
    ask(first)
    drawn = first.world.drawn
    ask(first)
    ask(second)  # another run
    assert drawn == first.world.drawn == 7 and second.world.drawn == 0

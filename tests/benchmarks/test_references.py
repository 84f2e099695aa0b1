"""What stands beside the methods: drawn row by row, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lcg
from lcg.benchmarks.cache import Cache
from lcg.benchmarks.cells import Cell, Direct
from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.references import References
from lcg.benchmarks.tasks import Generate, Single, parse_task
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.data.avatars import SCHEMA
from lcg.metrics.judge import AvatarJudge
from lcg.metrics.reference import marginals

MARGINALS = {"glasses": 0.3, "beard": 0.3, "smile": 0.45, "hat": 0.35, "long_hair": 0.35, "dark_skin": 0.4}


@pytest.fixture(scope="module")
def references(demo, small_judge, tmp_path_factory: pytest.TempPathFactory) -> References:
    cache = Cache(tmp_path_factory.mktemp("cache"), {})
    pipeline, judge = lcg.load(demo.prior, demo.classifier), AvatarJudge(small_judge(0))
    return References(Evaluator(pipeline, judge, AvatarWorld(), MARGINALS, 64, 64, cache))


def cells(references: References, name: str, seed: int = 0, count: int = 24) -> dict[str, Cell | Direct]:
    return {cell.method: cell for cell in references.single(Single(name), seed, count)}


def made(cell: Cell | Direct, size: int) -> tuple[torch.Tensor, np.ndarray | None]:
    assert isinstance(cell, Cell)
    parts = [cell.make(rows) for rows in cell.chunks(size)]
    images = None if parts[0].images is None else np.concatenate([part.images for part in parts], axis=1)
    return torch.cat([part.z_0 for part in parts], dim=1), images


@pytest.mark.parametrize("name", ["unconditional", "reconstruction"])
def test_rows_do_not_depend_on_chunks_and_seeds_are_repetitions(references: References, name: str) -> None:
    other = cells(references, name, seed=1)
    for method, cell in cells(references, name).items():
        whole, images = made(cell, 24)
        parts, again = made(cell, 7)
        torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)
        assert whole.shape == (1, 24, 64) and (images is None or np.array_equal(images, again))
        assert not torch.allclose(whole, made(other[method], 24)[0], atol=1e-2)


def test_the_prior_is_compared_with_a_normal_distribution_and_real_images(references: References) -> None:
    found = cells(references, "unconditional", count=4000)
    assert found.keys() == {"gaussian", "real"}
    z, real = made(found["gaussian"], 4000)[0][0], references.evaluator.biased()[1]
    assert (z.mean(0) - real.mean(0)).abs().max() < 6 * real.std(0).max() / 4000**0.5
    torch.testing.assert_close(torch.cov(z.T), torch.cov(real.T), rtol=0, atol=0.15)


def test_reconstructions_are_those_of_real_images(references: References) -> None:
    found = cells(references, "reconstruction")
    assert found.keys() == {"generator", "real"}
    z_0, nothing = made(found["generator"], 24)
    same, images = made(found["real"], 24)
    originals = references.originals(0, 24)
    assert nothing is None and torch.equal(z_0, same)
    assert images is not None and np.array_equal(images[0], originals.images.numpy())
    assert isinstance(found["real"], Cell) and found["real"].sources is not None
    torch.testing.assert_close(found["real"].sources().labels, originals.labels, equal_nan=True)


@pytest.mark.parametrize("text", ["generate/glasses", "generate/beard & long_hair"])
def test_the_floor_of_a_formula_satisfies_it_with_the_usual_marginals(references: References, text: str) -> None:
    task = parse_task(text, SCHEMA)
    assert isinstance(task, Generate)
    cell = references.beside(task, 0, 400)
    assert (cell.method, cell.count) == ("real", 400)
    real, weights = references.satisfying(str(task.formula))
    assert task.formula.holds(real.labels).all() and float(weights.sum()) == pytest.approx(1)
    _, images = made(cell, 150)
    assert images is not None and images.shape == (1, 400, 64, 64, 3)
    rows = [int((real.images == image).all(axis=(1, 2, 3)).nonzero()[0][0]) for image in images[0]]
    shares = marginals(real.labels[rows], SCHEMA)
    expected = float(weights @ real.labels[:, SCHEMA.index("smile")].double())
    assert shares["smile"] == pytest.approx(expected, abs=0.1)
    floor = references.evaluator.satisfying(task.formula)
    assert len(floor.features) == 64 and not torch.equal(
        floor.features[:24], references.evaluator.see(images[0][:24]).features
    )  # other images than those that samples are compared with


def test_some_figures_need_no_samples(references: References) -> None:
    (calibration,) = cells(references, "calibration").values()
    (latents,) = cells(references, "disentanglement", count=64).values()
    assert isinstance(calibration, Direct) and isinstance(latents, Direct)
    assert (calibration.method, latents.method) == ("classifier", "latents")
    metrics = {figure.metric.partition("/")[0] for figure in calibration.figures()}
    assert {"ece", "nll", "accuracy"} <= metrics
    assert {"modularity", "explicitness"} <= {figure.metric for figure in latents.figures()}
    assert calibration.name == ["classifier", "calibration", 0, 24]


def test_what_is_drawn_from_the_references_depends_on_how_many_there_are(references: References) -> None:
    """Otherwise a benchmark with other references would find, and keep, the samples of the old ones."""
    task = parse_task("generate/glasses", SCHEMA)
    assert isinstance(task, Generate)
    assert "compared with" in references.beside(task, 0, 4).depends
    gaussian = cells(references, "unconditional")["gaussian"]
    assert isinstance(gaussian, Cell) and "compared with" in gaussian.depends

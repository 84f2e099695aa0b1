"""Pairs that are exact pass every check; each way of being wrong is noticed by the check that is about it."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from lcg.conformance.catalogue import plane
from lcg.conformance.pair import Data, Pair
from lcg.conformance.suite import run
from lcg.conformance.trained import pair_checks, regression
from lcg.conformance.worlds import World
from lcg.nets.heads import HeadOutputs, JointOutputs, Outputs

GROUPS = {"average", "calibration", "regression", "path", "consistency", "ends"}


class Prior:
    """The exact denoiser of a world, with what a network has besides."""

    def __init__(self, world: World, change: Callable[[Tensor], Tensor] = lambda eps: eps) -> None:
        self.world, self.change, self.schedule, self.latent_shape = world, change, world.schedule, (world.dim,)

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.change(self.world.denoiser(z_t, t))


class Classifier:
    """The exact classifiers of a world, with what a network has besides."""

    def __init__(
        self,
        world: World,
        change: Callable[[HeadOutputs], HeadOutputs] = lambda heads: heads,
        clean: bool = False,
        components: int = 1,
    ) -> None:
        self.world, self.change, self.clean, self.components = world, change, clean, components
        self.schema = world.schema

    def __call__(self, z_t: Tensor, t: Tensor) -> Outputs:
        heads = self.change(self.world.classifier(z_t, torch.full_like(t, 0.01) if self.clean else t))
        if self.components == 1:
            return heads
        logits = {name: head[:, None] for name, head in heads.items()}  # one component: independent after all
        return JointOutputs(torch.zeros(len(z_t), 1), logits, heads)


def data(world: World, n: int = 3000, missing: float = 0.1) -> Data:
    rng = torch.Generator().manual_seed(5)
    z_0 = world.sample(n, rng)
    labels = world.labels(z_0, rng).float()
    labels[torch.rand(labels.shape, generator=rng) < missing] = math.nan
    return Data(z_0.float(), labels)


def failures(prior: Prior, classifier: Classifier, known: Data | None) -> Mapping[str, list[str]]:
    """The tasks that failed, by group."""
    found: dict[str, list[str]] = {}
    for outcome in run(pair_checks(Pair(prior, classifier, known, samples=1000))):
        assert not outcome.error, outcome.error
        if not outcome.passed:
            found.setdefault(outcome.check.group, []).append(outcome.check.task)
    return found


WORLD = plane()
DATA = data(WORLD)


def test_an_exact_pair_passes_every_check() -> None:
    assert failures(Prior(WORLD), Classifier(WORLD), DATA) == {}


def test_without_data_only_what_speaks_of_none_is_checked() -> None:
    pair = Pair(Prior(WORLD), Classifier(WORLD), samples=400)
    assert {check.group for check in pair_checks(pair)} == {"path", "consistency"}
    with_data = Pair(Prior(WORLD), Classifier(WORLD), DATA, samples=400)
    assert {check.group for check in pair_checks(with_data)} == GROUPS


def test_a_biased_classifier_fails_its_averages() -> None:
    biased = Classifier(WORLD, lambda heads: {**heads, "b": heads["b"] + 1.0})
    found = failures(Prior(WORLD), biased, DATA)
    assert found["average"] == ["b"]
    assert "path" not in found or "a" not in found["path"]


def test_an_overconfident_classifier_fails_calibration() -> None:
    sure = Classifier(WORLD, lambda heads: {name: 3 * head for name, head in heads.items()})
    assert "t = 0.6" in failures(Prior(WORLD), sure, DATA)["calibration"]


def test_a_classifier_of_clean_latents_fails_where_there_is_noise() -> None:
    found = failures(Prior(WORLD), Classifier(WORLD, clean=True), DATA)
    assert {"t = 0.6", "t = 0.8"} <= set(found["calibration"])
    assert "t = 0.02" not in found["calibration"]


def test_a_prior_that_is_too_small_fails_what_is_about_priors() -> None:
    found = failures(Prior(WORLD, lambda eps: 0.8 * eps), Classifier(WORLD), DATA)
    assert {"regression", "consistency", "ends"} <= set(found)
    assert "average" not in found and "calibration" not in found


def test_a_prior_of_another_world_fails_at_the_ends() -> None:
    moved = World(
        WORLD.denoiser.log_weights, WORLD.denoiser.means + 0.8, WORLD.covariances, [], WORLD.schedule
    )  # a fine prior, of other latents
    found = failures(Prior(moved), Classifier(WORLD), DATA)
    assert "latents" in found["ends"] and "a" in found["ends"]
    assert "consistency" not in found


def test_a_joint_head_that_knows_of_no_dependence_fails_for_pairs() -> None:
    found = failures(Prior(WORLD), Classifier(WORLD, components=2), DATA)
    assert "pairs, t = 0.98" in found["average"]
    assert "pairs, t = 0.02" not in found["average"]


def test_every_failure_comes_with_advice() -> None:
    wrong = Pair(
        Prior(WORLD, lambda eps: 0.5 * eps),
        Classifier(WORLD, lambda heads: {name: 4 * head + 1 for name, head in heads.items()}, components=2),
        DATA,
        samples=400,
    )
    outcomes = [o for o in run(pair_checks(wrong)) if not o.passed]
    assert {o.check.group for o in outcomes} == GROUPS
    assert all(m.advice for o in outcomes for m in o.measurements)


def test_attributes_that_are_hardly_labelled_are_passed_over() -> None:
    empty = Data(DATA.z_0[:50], torch.full_like(DATA.labels[:50], math.nan))
    found = {
        outcome.check.group: outcome.passed
        for outcome in run(pair_checks(Pair(Prior(WORLD), Classifier(WORLD), empty, samples=200)))
        if outcome.check.group in ("average", "calibration")
    }
    assert found == {"average": True, "calibration": True}


def test_the_path_goes_from_noise_to_the_samples() -> None:
    pair = Pair(Prior(WORLD), Classifier(WORLD), samples=300)
    times = [t for t, _ in pair.path]
    assert times == sorted(times, reverse=True) and times[0] > 0.99 and times[-1] < 0.01
    torch.testing.assert_close(pair.samples, pair.path[-1][1])
    assert abs(float(pair.path[0][1].std()) - 1) < 0.1


def test_regression_is_the_error_of_the_slope() -> None:
    """With s z_0_hat for z_0_hat the product becomes s (1 - s) E|z_0_hat - m|^2."""
    t, share = 0.4, 0.7
    exact, shrunk = (Pair(Shrunk(WORLD, s), Classifier(WORLD), DATA) for s in (1.0, share))
    z_0_hat = exact.predicted(exact.noised(DATA.z_0, t), t)
    expected = share * (1 - share) * float(z_0_hat.var(0).sum() / DATA.z_0.var(0).sum())
    assert regression(exact, DATA, t)[0].value < 0.02
    assert regression(shrunk, DATA, t)[0].value == pytest.approx(expected, abs=0.02)


class Shrunk(Prior):
    """A prior whose z_0_hat is a share of what it should be."""

    def __init__(self, world: World, share: float) -> None:
        super().__init__(world)
        self.share = share

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (c.to(z_t)[:, None] for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        z_0_hat = (z_t - sigma * super().__call__(z_t, t)) / alpha
        return (z_t - alpha * self.share * z_0_hat) / sigma

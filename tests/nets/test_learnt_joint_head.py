"""A joint head that is learnt: AND of dependent attributes is nearly right, the sum of separate heads is not."""

import pytest
import torch

from lcg.conformance.catalogue import line
from lcg.conformance.distances import total_variation, total_variation_floor
from lcg.conformance.worlds import World
from lcg.diffusion import DPMSolverPP2M, diffuse
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser
from lcg.guidance.terms import Dependence
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import stratified_times
from lcg.nets.heads import JointOutputs, joint_log_likelihood, mean_negative_log_likelihood
from lcg.schema import Schema

SAMPLES = 20_000


@pytest.fixture(scope="module")
def world() -> World:
    return line()


@pytest.fixture(scope="module")
def classifier(world: World) -> TimeConditionedClassifier:
    """Fitted for a few seconds, a fifth of the labels missing."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    schema = Schema(tuple(world.schema))
    network = TimeConditionedClassifier((1,), schema, width=48, depth=2, components=4)
    steps = 2000
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    z_all = world.sample(200_000, rng).float()
    y_all = world.labels(z_all.double(), rng).float()
    y_all[torch.rand(y_all.shape, generator=rng) < 0.2] = torch.nan
    for _ in range(steps):
        rows = torch.randint(len(z_all), (2048,), generator=rng)
        t = stratified_times(len(rows), rng)
        z_t = diffuse(world.schedule, z_all[rows], t, torch.randn(len(rows), 1, generator=rng))
        loss = mean_negative_log_likelihood(schema, network(z_t, t), y_all[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return network.eval().requires_grad_(False)


def distance(world: World, classifier: TimeConditionedClassifier, text: str, dependence: Dependence) -> float:
    """Total variation between guided samples, weight 1, and the exact conditional."""
    term = ClassifierTerm(classifier, [(FormulaReadout(world.parse(text), dependence), 1.0)])
    guided = GuidedDenoiser(world.denoiser, [term], world.schedule)
    noise = torch.randn(SAMPLES, 1, generator=torch.Generator().manual_seed(1))
    z_0 = DPMSolverPP2M(world.schedule, 40).sample(guided, noise)
    return total_variation(z_0, world.conditional(text, 100_000, torch.Generator().manual_seed(2)))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a & b", "a & ~b", "a | b", "(a | b) & ~(a & b)"])
def test_a_learnt_joint_head_samples_the_conditional(
    world: World, classifier: TimeConditionedClassifier, text: str
) -> None:
    assert total_variation_floor(SAMPLES) < 0.012
    assert distance(world, classifier, text, "joint") < 0.05


@pytest.mark.slow
def test_separate_heads_on_the_same_trunk_do_not(world: World, classifier: TimeConditionedClassifier) -> None:
    assert distance(world, classifier, "a & b", "independent") > 0.1


@pytest.mark.slow
def test_it_learns_the_dependence(world: World, classifier: TimeConditionedClassifier) -> None:
    """In likelihood of fresh labels it beats independence at high noise, and is as good as the truth."""
    rng = torch.Generator().manual_seed(3)
    z_0 = world.sample(20_000, rng)
    labels = world.labels(z_0, rng)
    t = torch.full((len(z_0),), 0.8, dtype=torch.float64)
    z_t = diffuse(world.schedule, z_0, t, torch.randn(z_0.shape, generator=rng, dtype=torch.float64))
    with torch.no_grad():
        outputs = classifier.double()(z_t, t)
        classifier.float()
    assert isinstance(outputs, JointOutputs)
    schema = classifier.schema
    joint, single = (float(joint_log_likelihood(schema, o, labels).mean()) for o in (outputs, outputs.single))
    exact = sum(
        float(world.joint(text).log_prob(z_t, t)[world.parse(text).holds(labels)].sum())
        for text in ("a & b", "a & ~b", "~a & b", "~a & ~b")
    ) / len(z_0)
    assert joint > single + 0.1
    assert abs(joint - exact) < 0.01

"""Labels that are sometimes wrong: closed forms, and a network that learns the truth from them."""

import itertools
import math
import re

import pytest
import torch
from torch import Tensor

from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import JointOutputs, joint_log_likelihood, mean_negative_log_likelihood, tensors
from lcg.nets.label_noise import LabelNoise, Rate
from lcg.schema import Attribute, Schema

HAT, AGE = Attribute("hat"), Attribute("age", "categorical", ("child", "adult", "old"), ordered=True)
HAIR, HEIGHT = Attribute("hair", "categorical", ("blond", "red", "black", "brown")), Attribute("height", "continuous")
SCHEMA = Schema((HAT, AGE, HAIR, HEIGHT))
DISCRETE = Schema((HAT, AGE, HAIR))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(*batch: int, seed: int = 0) -> dict[str, Tensor]:
    return {
        "hat": 3 * normal(*batch, seed=seed),
        "age": 2 * normal(*batch, 3, seed=seed + 1),
        "hair": 2 * normal(*batch, 4, seed=seed + 2),
        "height": normal(*batch, 2, seed=seed + 3),
    }


def test_observed_labels_are_the_truth_passed_through_the_mistakes() -> None:
    true = heads(30)
    seen = LabelNoise(SCHEMA, {"hat": [0.02, 0.1], "age": 0.2, "hair": 0.3, "height": 0.7})(true)
    p = true["hat"].sigmoid()
    torch.testing.assert_close(seen["hat"].sigmoid(), 0.9 * p + 0.02 * (1 - p), rtol=1e-12, atol=0)
    steps = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(seen["age"].exp(), true["age"].softmax(1) @ steps, rtol=1e-12, atol=0)
    anything = torch.full((4, 4), 0.1, dtype=torch.float64).fill_diagonal_(0.7)
    torch.testing.assert_close(seen["hair"].exp(), true["hair"].softmax(1) @ anything, rtol=1e-12, atol=0)
    assert torch.equal(seen["height"][:, 0], true["height"][:, 0])
    torch.testing.assert_close(seen["height"][:, 1].exp(), true["height"][:, 1].exp() + 0.49, rtol=1e-12, atol=0)


def test_one_number_is_wrong_either_way_and_what_is_not_named_is_right() -> None:
    true = heads(10)
    seen = LabelNoise(SCHEMA, {"hat": 0.05})(true)
    both = LabelNoise(SCHEMA, {"hat": [0.05, 0.05]})(true)
    assert torch.equal(seen["hat"], both["hat"])
    assert all(seen[name] is true[name] for name in ("age", "hair", "height"))


def test_a_rate_of_zero_changes_no_value_and_no_gradient() -> None:
    noise = LabelNoise(SCHEMA, {"hat": 0.0, "age": 0.0, "hair": 0.0})
    u = torch.tensor([-90.0, -3.0, 0.0, 50.0], requires_grad=True)
    logits = normal(4, 3).float().requires_grad_()
    seen = noise({"hat": u, "age": logits})
    torch.testing.assert_close(seen["hat"], u)
    torch.testing.assert_close(seen["age"], logits.log_softmax(1))
    for found, given in ((seen["hat"].sum(), u), (seen["age"][:, 1].sum(), logits)):
        assert torch.autograd.grad(found, given)[0].isfinite().all()


def test_far_out_the_observed_label_is_as_sure_as_its_rate() -> None:
    seen = LabelNoise(SCHEMA, {"hat": [0.02, 0.1]})({"hat": torch.tensor([-1e4, 1e4], requires_grad=True)})["hat"]
    assert seen.sigmoid().tolist() == pytest.approx([0.02, 0.9], rel=1e-5)


def test_of_a_mixture_it_is_the_sum_over_all_true_labels() -> None:
    """Against enumeration: p(observed) = sum_y prod_j p(observed_j | y_j) p(y), which no product of marginals is."""
    joint = heads(5, 3)
    del joint["height"]
    outputs = JointOutputs(normal(5, 3, seed=9).log_softmax(1), joint, {k: v[:, 0] for k, v in joint.items()})
    noise = LabelNoise(DISCRETE, {"hat": [0.1, 0.2], "age": 0.3, "hair": 0.4})
    chances = [noise.chances[name].exp() for name in DISCRETE.names]
    rows = torch.tensor(list(itertools.product(range(2), range(3), range(4))), dtype=torch.float64)

    def of(outputs: JointOutputs, row: Tensor) -> Tensor:
        return joint_log_likelihood(DISCRETE, outputs, row.expand(5, -1)).exp()

    truth = torch.stack([of(outputs, row) for row in rows])
    seen_by = noise(outputs)
    assert isinstance(seen_by, JointOutputs)
    for row in rows[::5]:
        wrong = torch.stack([c[rows[:, j].long(), int(row[j])] for j, c in enumerate(chances)]).prod(0)
        torch.testing.assert_close(of(seen_by, row), (wrong[:, None] * truth).sum(0), rtol=1e-10, atol=0)
    row = torch.tensor([1.0, math.nan, 2.0], dtype=torch.float64)  # a missing label drops out, as ever
    known = torch.stack([of(seen_by, torch.tensor([1.0, k, 2.0], dtype=torch.float64)) for k in range(3)]).sum(0)
    torch.testing.assert_close(of(seen_by, row), known, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("name", "rate", "expected"),
    [
        ("hat", 0.5, "of binary attribute 'hat' must be a share in [0, 0.5), or two, of false positives"),
        ("hat", [0.4, 0.6], "that sum to less than 1, got [0.4, 0.6]"),
        ("hat", [0.1, 0.1, 0.1], "a share in [0, 0.5), or two"),
        ("hat", -0.1, "a share in [0, 0.5), or two"),
        ("hair", 0.75, "of categorical attribute 'hair' must be a share in [0, 0.75), got 0.75"),
        ("hair", [0.1, 0.1], "must be a share in [0, 0.75), got [0.1, 0.1]"),
        ("age", 0.5, "must be a share in [0, 0.5), got 0.5; leave out attributes whose labels are right"),
        ("height", 0.0, "of continuous attribute 'height' must be a standard deviation > 0, got 0.0"),
        ("height", math.inf, "must be a standard deviation > 0, got inf"),
        ("hats", 0.1, "unknown attribute 'hats'; did you mean 'hat'"),
    ],
)
def test_rates_that_say_nothing_are_refused(name: str, rate: Rate, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        LabelNoise(SCHEMA, {name: rate})


def trained(schema: Schema, corrected: bool, components: int, flips: float = 0.2) -> TimeConditionedClassifier:
    """On z ~ N(0, I) with y = [3 z_1 + xi > 0], each label flipped with the same chance; new samples at every step."""
    torch.manual_seed(0)
    net = TimeConditionedClassifier((2,), schema, width=32, depth=1, time_features=16, components=components)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    noise = LabelNoise(schema, dict.fromkeys(schema.names, flips) if corrected else {})
    for step in range(400):
        z_0 = torch.randn(512, 2)
        labels = (3 * z_0 + torch.randn(512, 2) > 0).float()[:, : len(schema)]
        labels = (labels != (torch.rand_like(labels) < flips)).float()
        outputs = noise(net(*noised(z_0)))
        optimizer.zero_grad()
        mean_negative_log_likelihood(schema, outputs, labels).backward()
        optimizer.step()
        if step == 250:
            optimizer.param_groups[0]["lr"] = 1e-3
    return net.eval().requires_grad_(False)


def noised(z_0: Tensor) -> tuple[Tensor, Tensor]:
    t = torch.rand(len(z_0))
    return torch.cos(t * math.pi / 2)[:, None] * z_0 + torch.sin(t * math.pi / 2)[:, None] * torch.randn_like(z_0), t


def exact(z_t: Tensor, t: Tensor) -> Tensor:
    """P(y = 1 | z_t) of the true labels: Phi(3 alpha z_t / sqrt(1 + 9 sigma^2))."""
    alpha, sigma = torch.cos(t * math.pi / 2)[:, None], torch.sin(t * math.pi / 2)[:, None]
    return torch.special.ndtr(3 * alpha * z_t / (1 + 9 * sigma**2).sqrt())


@pytest.mark.parametrize("components", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_from_flipped_labels_the_clean_posterior_is_learnt(components: int) -> None:
    """A fifth of the labels flipped: uncorrected, what is learnt is .6 p + .2, off by .2 where there is no doubt."""
    schema = Schema((Attribute("a"), Attribute("b"))[: 1 if components == 1 else 2])
    torch.manual_seed(1)
    z_t, t = noised(torch.randn(4000, 2))
    p = exact(z_t, t)[:, 0]
    error, bias = {}, {}
    for corrected in (True, False):
        outputs = trained(schema, corrected, components)(z_t, t)
        head = next(value for name, value in reversed(list(tensors(outputs))) if name == "a")
        error[corrected] = float((head.sigmoid() - p).abs().mean())
        sure = p > 0.98
        bias[corrected] = float(head.sigmoid()[sure].mean() - p[sure].mean())
    assert error[True] < 0.04 and abs(bias[True]) < 0.05
    assert error[False] > 0.08 and bias[False] == pytest.approx(-0.2, abs=0.05)

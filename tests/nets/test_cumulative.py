"""The cumulative link: closed forms, exact far out, its limits, and that everything else takes it for logits."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.cumulative import CumulativeLink, cumulative, cumulative_logits, network_outputs, tempered_ordinal
from lcg.nets.execution import Execution
from lcg.nets.heads import JointOutputs, Outputs, joint_log_likelihood, log_likelihood, tempered, tensors
from lcg.schema import Attribute, Schema

AGE = Attribute("age", "categorical", ("child", "young", "adult", "old"), ordered=True)
SIZE = Attribute("size", "categorical", ("small", "large"), ordered=True)
CUTS = torch.tensor([-1.2, math.log(0.7), math.log(2.5)], dtype=torch.float64)  # at -1.2, -0.5 and 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ordinal_schema() -> Schema:
    return Schema(
        (
            Attribute("hat"),
            AGE,
            Attribute("height", "continuous"),
            SIZE,
            Attribute("hair", "categorical", ("a", "b", "c")),
        )
    )


def network(components: int = 3, trunk: str = "shared", schema: Schema | None = None) -> TimeConditionedClassifier:
    torch.manual_seed(0)
    net = TimeConditionedClassifier((5,), schema or ordinal_schema(), 32, 1, components=components, trunk=trunk)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return net.eval()


def named(outputs: Outputs) -> dict[str, Tensor]:
    """Every tensor by name, those of components and of single attributes apart."""
    if isinstance(outputs, JointOutputs):
        joint = {f"{name} of components": head for name, head in outputs.heads.items()}
        return {"weights": outputs.log_weights, **joint, **outputs.single}
    return outputs


def test_it_is_the_difference_of_cumulative_probabilities() -> None:
    output = normal(100, 2)
    thetas = torch.tensor([-math.inf, -1.2, -0.5, 2.0, math.inf], dtype=torch.float64)
    below = torch.sigmoid((thetas - output[:, :1]) * torch.exp(-output[:, 1:]))
    p = cumulative(output, CUTS).exp()
    torch.testing.assert_close(p, below.diff(dim=1), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(p.sum(1), torch.ones(100, dtype=torch.float64), rtol=1e-13, atol=0)


def test_two_values_are_binary_logistic_regression() -> None:
    output, cut = normal(50, 2), torch.tensor([0.4], dtype=torch.float64)
    logit = (output[:, 0] - 0.4) * torch.exp(-output[:, 1])
    expected = torch.stack((functional.logsigmoid(-logit), functional.logsigmoid(logit)), dim=1)
    torch.testing.assert_close(cumulative(output, cut), expected, rtol=1e-13, atol=1e-15)


def test_at_one_scale_odds_are_proportional() -> None:
    """The log odds ratio of two latents is the same at every cut: the difference of their locations, over the scale."""
    location, log_scale = normal(2, 40), torch.full((40,), 0.3, dtype=torch.float64)
    a, b = (cumulative_logits(cumulative(torch.stack((eta, log_scale), dim=1), CUTS)) for eta in location)
    expected = ((location[1] - location[0]) * math.exp(-0.3))[:, None].expand(-1, 3)
    torch.testing.assert_close(a - b, expected, rtol=1e-11, atol=1e-12)


def test_gradients_are_the_closed_form() -> None:
    """d log p_k / d eta = -(1 - F_k - F_{k-1}) / exp(s), as the logistic density is F (1 - F)."""
    output = normal(60, 2).requires_grad_()
    log_p = cumulative(output, CUTS)
    F = torch.cat((torch.zeros(60, 1).double(), cumulative_logits(log_p).sigmoid(), torch.ones(60, 1).double()), dim=1)
    for k in range(4):
        (grad,) = torch.autograd.grad(log_p[:, k].sum(), output, retain_graph=True)
        expected = -(1 - F[:, k + 1] - F[:, k]) * torch.exp(-output[:, 1])
        torch.testing.assert_close(grad[:, 0], expected, rtol=1e-10, atol=1e-12)
    cuts = CUTS.clone().requires_grad_()
    assert torch.autograd.gradcheck(cumulative, (normal(6, 2).requires_grad_(), cuts))


def test_far_out_it_is_exact_in_single_precision() -> None:
    """Against 400-digit arithmetic's closed form: at eta = 1e3 every probability is an exponential of what it lacks."""
    output = torch.tensor([[1e3, 0.0], [-1e3, 0.0], [0.0, -5.0], [0.0, 12.0]])
    log_p = cumulative(output, CUTS.float())
    wide = cumulative(output.double(), CUTS)
    torch.testing.assert_close(log_p.double(), wide, rtol=1e-5, atol=1e-6)
    # sigmoid(theta_k - 1e3) - sigmoid(theta_{k-1} - 1e3) = exp(theta_k - 1e3) - exp(theta_{k-1} - 1e3) up to 1e-430
    expected = [
        -1.2 - 1e3,
        math.log(math.exp(-0.5) - math.exp(-1.2)) - 1e3,
        math.log(math.exp(2) - math.exp(-0.5)) - 1e3,
    ]
    assert wide[0, :3].tolist() == pytest.approx(expected, abs=1e-9) and wide[0, 3].item() == 0
    # at a scale of e^12 the middle values have the logistic density, 1/4, times their widths
    assert wide[3, 1:3].tolist() == pytest.approx([math.log(0.7 / 4) - 12, math.log(2.5 / 4) - 12], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_output_makes_a_gradient_nan(dtype: torch.dtype) -> None:
    values = torch.tensor([-1e4, -90.0, -1.2, 0.0, 90.0, 1e4], dtype=dtype)
    output = torch.cartesian_prod(values, values).requires_grad_()
    cuts = CUTS.to(dtype).requires_grad_()
    log_p = cumulative(output, cuts)
    assert not log_p.isnan().any() and (log_p <= 0).all()
    for value in (
        log_p[log_p > -1e30].sum(),
        log_likelihood(AGE, log_p, torch.full((36,), math.nan, dtype=dtype)).sum(),
    ):
        for grad in torch.autograd.grad(value, (output, cuts), retain_graph=True):
            assert not grad.isnan().any()


def test_new_cut_points_make_all_values_equally_probable() -> None:
    link = CumulativeLink([AGE, SIZE])
    outputs = link({"hat": normal(3), "age": torch.zeros(3, 2), "size": torch.zeros(3, 4, 2)})
    torch.testing.assert_close(outputs["age"], torch.full((3, 4), -math.log(4)), rtol=1e-6, atol=0)
    torch.testing.assert_close(outputs["size"], torch.full((3, 4, 2), -math.log(2)), rtol=1e-6, atol=0)
    assert torch.equal(outputs["hat"], normal(3))


# --- temperature ---


@pytest.mark.parametrize("log_T", [-1.5, 0.0, 0.8])
def test_a_temperature_widens_the_scale(log_T: float) -> None:
    output = normal(30, 2)
    found = tempered_ordinal(cumulative(output, CUTS), torch.full((30,), log_T, dtype=torch.float64))
    expected = cumulative(output + torch.tensor([0.0, log_T], dtype=torch.float64), CUTS)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_an_infinite_temperature_leaves_the_extremes_one_half_each() -> None:
    log_p = cumulative(normal(30, 2), CUTS)
    hot = tempered_ordinal(log_p, torch.full((30,), 30.0, dtype=torch.float64)).exp()
    torch.testing.assert_close(hot, torch.tensor([0.5, 0, 0, 0.5]).double().expand(30, 4), rtol=0, atol=1e-9)
    cold = tempered_ordinal(log_p, torch.full((30,), -12.0, dtype=torch.float64)).exp()
    location = (cumulative_logits(log_p) < 0).sum(1)  # cut points below the location
    assert torch.equal(cold.argmax(1), location)
    assert (cold.amax(1) > 1 - 1e-6).double().mean() > 0.95


def test_two_ordered_values_are_tempered_as_a_logit() -> None:
    u = normal(20)
    log_p = torch.stack((functional.logsigmoid(-u), functional.logsigmoid(u)), dim=1)
    hot = tempered_ordinal(log_p, torch.full((20,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(hot[:, 1] - hot[:, 0], u * math.exp(-0.7), rtol=1e-12, atol=1e-13)


# --- in the classifier ---


def test_a_network_says_where_and_how_surely() -> None:
    assert [network_outputs(a) for a in ordinal_schema()] == [1, 2, 2, 2, 3]
    assert network().outputs == 10 and network(1).net.output.out_features == 10
    shapes = {name: tuple(x.shape) for name, x in tensors(network(1)(torch.zeros(4, 5), torch.zeros(4)))}
    assert shapes == {"hat": (4,), "age": (4, 4), "height": (4, 2), "size": (4, 2), "hair": (4, 3)}


@pytest.mark.parametrize(("components", "trunk"), [(1, "shared"), (3, "shared"), (1, "separate")])
def test_prepared_restricted_and_tempered_it_says_the_same(components: int, trunk: str) -> None:
    net = network(components, trunk).requires_grad_(False)
    net.log_temperature.copy_(torch.linspace(-0.5, 0.8, 6))
    z_t, t = normal(7, 5).float().requires_grad_(), torch.full((7,), 0.37)
    plain = net(z_t, t)
    whole = named(plain)
    for execution in (Execution("reference"), Execution("eager")):
        net.execution = execution
        for name, value in named(net.prepare(torch.tensor([0.1, 0.37]))[1](z_t)).items():
            torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-5)
            ours, theirs = (
                torch.autograd.grad(x.square().sum(), z_t, retain_graph=True)[0] for x in (value, whole[name])
            )
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    for names in (["size", "age"], ["size"]):
        part = net.restricted(names)
        assert part.link is not None and list(part.link.counts) == sorted(names)
        for name, value in named(part(z_t, t)).items():
            torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-6)
    assert net.restricted(["hat"]).link is None


@pytest.mark.parametrize("components", [1, 3])
def test_its_temperature_is_that_of_its_outputs(components: int) -> None:
    """What calibration fits on stored log-probabilities is what the network does to location and scale."""
    net = network(components).double()
    z_t, t = normal(20, 5), torch.linspace(0, 1, 20, dtype=torch.float64)
    raw = net(z_t, t)
    net.log_temperature.fill_(0.6)
    expected = tempered(net.schema, raw, torch.full((20,), 0.6, dtype=torch.float64))
    for (_, found), (_, wanted) in zip(tensors(net(z_t, t)), tensors(expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-8)


def test_components_measure_on_one_scale_and_add_up_to_one() -> None:
    net = network(3).double()
    outputs = net(normal(6, 5), torch.full((6,), 0.5).double())
    assert isinstance(outputs, JointOutputs)
    labels = torch.full((6, 5), math.nan, dtype=torch.float64)
    total = torch.stack(
        [joint_log_likelihood(net.schema, outputs, labels.index_fill(1, torch.tensor(1), k)).exp() for k in range(4)]
    )
    torch.testing.assert_close(total.sum(0), torch.ones(6).double(), rtol=1e-12, atol=0)


def test_without_ordinal_attributes_nothing_is_added() -> None:
    schema = Schema(tuple(replace(a, ordered=False) for a in ordinal_schema()))
    plain, ordinal = network(3, schema=schema), network(3)
    assert plain.link is None and set(ordinal.state_dict()) - set(plain.state_dict()) == {"link.cuts"}
    assert ordinal.link is not None and ordinal.link.cuts.shape == (4,)


def test_its_config_builds_it_again() -> None:
    net = network(2)
    again = TimeConditionedClassifier(
        **{**net.config, "latent_shape": (5,), "schema": Schema.from_dict(net.config["schema"])}
    ).eval()
    again.load_state_dict(net.state_dict())
    z_t, t = normal(3, 5).float(), torch.full((3,), 0.2)
    for (_, a), (_, b) in zip(tensors(again(z_t, t)), tensors(net(z_t, t)), strict=True):
        assert torch.equal(a, b)


def test_under_autocast_the_link_is_computed_in_single_precision() -> None:
    net = network(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.zeros(2, 5), torch.zeros(2))["age"].dtype == torch.float32

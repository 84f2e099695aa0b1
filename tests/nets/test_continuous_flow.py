"""A conditional continuous flow: a bijection whose density is that of the change of variables, whatever its weights."""

import math

import pytest
import torch
from torch import Tensor

from lcg.nets.continuous_flow import ConcatSquash, ContinuousFlow, MovingBatchNorm
from lcg.schema import Attribute, Schema

NAN = float("nan")


def flow(
    schema: Schema, size: int = 3, hidden: tuple[int, ...] = (8, 8), tolerance: float = 1e-9, scale: float = 1.0
) -> ContinuousFlow:
    """A flow with random weights and statistics that are not those it starts with, in float64."""
    torch.manual_seed(0)
    net = ContinuousFlow((size,), schema, hidden, tolerance).double().eval()
    for norm in (net.first, net.last):
        torch.nn.init.normal_(norm.weight, std=0.2)
        torch.nn.init.normal_(norm.bias, std=0.2)
        norm.mean += torch.randn(size).double() * 0.2
        norm.var *= 1 + 0.3 * torch.rand(size).double()
    for layer in net.layers:
        layer.linear.weight.data *= scale
    return net


def batch(net: ContinuousFlow, n: int = 5) -> tuple[Tensor, Tensor]:
    """z_0 and attribute vectors."""
    generator = torch.Generator().manual_seed(1)
    z_0 = torch.randn(n, *net.latent_shape, dtype=torch.float64, generator=generator)
    return z_0, torch.randn(n, net.conditions, dtype=torch.float64, generator=generator)


def normal_log_prob(u: Tensor) -> Tensor:
    return -0.5 * (u.square() + math.log(2 * math.pi)).sum(1)


# --- the flow is a bijection, and the density is its own ---


def test_the_way_back_is_the_way_there(schema: Schema) -> None:
    net = flow(schema, scale=2.0)
    z_0, a = batch(net, 10)
    u = net.to_noise(z_0, a)
    assert (u - z_0).abs().max() > 0.5
    assert (net.to_latent(u, a) - z_0).abs().max() < 1e-8
    assert (net.to_noise(net.to_latent(z_0, a), a) - z_0).abs().max() < 1e-8


def test_in_single_precision_with_the_authors_tolerance_the_way_back_is_the_way_there_to_1e_4(schema: Schema) -> None:
    net = flow(schema, tolerance=1e-5).float()
    z_0, a = (part.float() for part in batch(net, 20))
    assert (net.to_noise(z_0, a) - z_0).abs().max() > 0.3
    back = net.to_latent(net.to_noise(z_0, a), a)
    assert back.dtype == torch.float32 and (back - z_0).abs().max() < 1e-4


def test_log_prob_is_the_change_of_variables(schema: Schema) -> None:
    """log p(z_0) = log N(u; 0, I) + log |det du/dz_0|, with the Jacobian of the whole way taken by autograd."""
    net = flow(schema, scale=2.0)
    z_0, a = batch(net, 3)
    found = net.log_prob(z_0, a)
    for i in range(len(z_0)):
        jacobian = torch.autograd.functional.jacobian(lambda z, i=i: net.to_noise(z[None], a[i : i + 1])[0], z_0[i])
        exact = normal_log_prob(net.to_noise(z_0[i : i + 1], a[i : i + 1])) + torch.linalg.slogdet(jacobian)[1]
        assert abs(float((found[i] - exact).detach())) < 1e-7


@pytest.mark.parametrize("steps", [None, 40])
def test_a_linear_field_has_a_normal_density(schema: Schema, steps: int | None) -> None:
    """Without hidden layers and with constant gates dz/dt = A z + c: z(T) = e^{TA} z + ..., det e^{TA} = e^{tr TA}."""
    net = ContinuousFlow((3,), schema, (), 1e-9).double().eval()
    torch.manual_seed(0)
    layer, (z_0, a), T = net.layers[0], batch(net), 1.3
    torch.nn.init.normal_(layer.linear.weight)
    torch.nn.init.zeros_(layer.gate.weight)
    torch.nn.init.zeros_(layer.shift.weight[:, :1])
    net.sqrt_duration.data.fill_(math.sqrt(T))
    for norm in (net.first, net.last):
        norm.var.fill_(1 - norm.eps)  # the identity
    gate = torch.sigmoid(layer.gate.bias)
    A, c = gate[:, None] * layer.linear.weight, gate * layer.linear.bias + a @ layer.shift.weight[:, 1:].T
    with torch.no_grad():
        end = []
        for i in range(len(z_0)):
            affine = torch.zeros(4, 4, dtype=torch.float64)
            affine[:3, :3], affine[:3, 3] = T * A, T * c[i]
            end.append((torch.matrix_exp(affine) @ torch.cat((z_0[i], torch.ones(1).double())))[:3])
        u = torch.stack(end)
        assert (net.to_noise(z_0, a) - u).abs().max() < 1e-7
        exact = normal_log_prob(u) + T * A.trace()
        assert (net.log_prob(z_0, a, steps=steps) - exact).abs().max() < 1e-6


def test_without_a_field_there_are_only_the_norms(schema: Schema) -> None:
    net = flow(schema)
    for parameter in net.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)
    z_0, a = batch(net)
    u = z_0
    for norm in (net.first, net.last):
        u = (u - norm.mean) / (norm.var + norm.eps).sqrt() * norm.weight.exp() + norm.bias
    scale = sum((norm.weight - 0.5 * (norm.var + norm.eps).log()).sum() for norm in (net.first, net.last))
    torch.testing.assert_close(net.log_prob(z_0, a), normal_log_prob(u) + scale, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net.to_noise(z_0, a), u, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2])
def test_the_density_integrates_to_one(schema: Schema, size: int) -> None:
    net = flow(schema, size, tolerance=1e-5, scale=2.0)
    line = torch.linspace(-9, 9, 721 if size == 1 else 91, dtype=torch.float64)
    grid = torch.cartesian_prod(*[line] * size).view(-1, size)
    _, a = batch(net, 1)
    with torch.no_grad():
        log_p = net.log_prob(grid, a.expand(len(grid), -1))
    total = log_p.exp().sum() * (line[1] - line[0]) ** size
    assert abs(float(total) - 1) < 2e-3
    assert (log_p - normal_log_prob(grid)).abs().max() > 1  # and it is not that of the noise


# --- estimates, steps, gradients ---


def test_random_directions_estimate_the_divergence_without_bias(schema: Schema) -> None:
    net = flow(schema, scale=3.0, tolerance=1e-6)
    z_0, a = batch(net, 1)
    n = 2000
    with torch.no_grad():
        exact = net.log_prob(z_0, a)
        generator = torch.Generator().manual_seed(0)
        drawn = net.log_prob(z_0.expand(n, -1), a.expand(n, -1), probes=1, steps=10, generator=generator)
        many = net.log_prob(z_0, a, probes=20000, steps=10, generator=generator)
    assert drawn.std() > 0.01
    assert abs(float(drawn.mean() - exact)) < 4 * float(drawn.std()) / math.sqrt(n)
    assert abs(float(many - exact)) < 4 * float(drawn.std()) / math.sqrt(20000)


def test_one_generator_per_row_makes_a_row_what_it_is_alone(schema: Schema) -> None:
    net = flow(schema)
    z_0, a = batch(net, 4)
    seeds = [torch.Generator().manual_seed(k) for k in range(4)]
    together = net.log_prob(z_0, a, probes=2, steps=3, generator=seeds)
    for k in range(4):
        alone = net.log_prob(
            z_0[k : k + 1], a[k : k + 1], probes=2, steps=3, generator=[torch.Generator().manual_seed(k)]
        )
        assert abs(float((alone - together[k]).detach())) < 1e-12


def test_a_batch_is_its_rows_within_the_tolerance(schema: Schema) -> None:
    net = flow(schema, tolerance=1e-7)
    z_0, a = batch(net, 3)
    for call in (net.to_noise, net.to_latent, net.log_prob):
        alone = torch.cat([call(z_0[i : i + 1], a[i : i + 1]) for i in range(len(z_0))])
        assert (call(z_0, a) - alone).abs().max() < 1e-5


def test_steps_converge_with_order_four(schema: Schema) -> None:
    net = flow(schema, scale=3.0, tolerance=1e-11)
    z_0, a = batch(net)
    with torch.no_grad():
        exact = net.log_prob(z_0, a)
        coarse, fine = ((net.log_prob(z_0, a, steps=n) - exact).abs().max() for n in (4, 8))
    assert coarse > 1e-9 and coarse / fine > 10


@pytest.mark.parametrize("steps", [None, 3])
def test_gradients_are_those_of_differences(schema: Schema, steps: int | None) -> None:
    net = flow(schema, hidden=(6,), tolerance=1e-8)
    z_0, a = batch(net, 3)

    def loss() -> Tensor:
        return net.log_prob(z_0, a, steps=steps).mean()

    loss().backward()
    for name, parameter in net.named_parameters():
        place, h = (0,) * parameter.ndim, 1e-5
        found = float(parameter.grad[place])
        with torch.no_grad():
            parameter[place] += h
            above = loss()
            parameter[place] -= 2 * h
            below = loss()
            parameter[place] += h
        assert found == pytest.approx(float(above - below) / (2 * h), rel=1e-4, abs=1e-5), name
    assert abs(float(net.sqrt_duration.grad)) > 1e-3  # T is learnt


def test_a_layer_and_its_derivative() -> None:
    torch.manual_seed(0)
    layer = ConcatSquash(3, 4, 2).double()
    x, dx, a, t = (torch.randn(shape).double() for shape in ((5, 3), (5, 2, 3), (5, 2), ()))

    def direct(x: Tensor) -> Tensor:
        ta = torch.cat((t.expand(5, 1), a), 1)
        return layer.linear(x) * torch.sigmoid(layer.gate(ta)) + layer.shift(ta)

    y, dy = layer(x, dx, t, layer.condition(a))
    torch.testing.assert_close(y, direct(x), rtol=1e-12, atol=1e-12)
    for k in range(2):
        expected = torch.autograd.functional.jvp(direct, x, dx[:, k])[1]
        torch.testing.assert_close(dy[:, k], expected, rtol=1e-12, atol=1e-12)


# --- moving batch norm ---


def test_a_moving_norm_uses_its_statistics_before_it_moves_them() -> None:
    norm, x = MovingBatchNorm(2), 3 + 2 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    first = norm(x)
    torch.testing.assert_close(first, x / math.sqrt(1 + 1e-4))
    torch.testing.assert_close(norm.mean, 0.1 * x.mean(0))
    torch.testing.assert_close(norm.var, 0.9 + 0.1 * x.var(0))
    for _ in range(100):
        norm(x)
    y = norm.eval()(x)
    assert y.mean(0).abs().max() < 1e-2 and (y.std(0) - 1).abs().max() < 1e-2
    mean = norm.mean.clone()
    torch.testing.assert_close(norm.inverse(y), x, rtol=1e-5, atol=1e-5)
    assert torch.equal(norm.mean, mean)


# --- attributes ---


def test_attribute_vectors(schema: Schema) -> None:
    net = ContinuousFlow((3,), schema)
    net.standardise_labels(torch.tensor([[0.0, NAN, 10.0, 1.0], [0.0, 1.0, 30.0, 1.0], [1.0, NAN, NAN, 0.0]]))
    labels = torch.tensor([[1.0, NAN, 40.0, 0.0], [0.0, 2.0, 20.0, NAN], [NAN, 0.0, NAN, 1.0]])
    expected = [[1.0, 0, 0, 0, 2.0, -1.0], [-1.0, 0, 0, 1, 0.0, 0.0], [0.0, 1, 0, 0, 0.0, 1.0]]
    torch.testing.assert_close(net.encode(labels), torch.tensor(expected))
    assert [net.columns(name) for name in schema.names] == [slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 6)]


def test_an_attribute_that_never_varies_has_deviation_one(schema: Schema) -> None:
    net = ContinuousFlow((3,), schema)
    net.standardise_labels(torch.tensor([[0.0, 0.0, 7.0, 0.0]] * 3))
    assert float(net.encode(torch.tensor([[0.0, 0.0, 9.0, 0.0]]))[0, 4]) == 2


def test_the_authors_flow_is_the_default(schema: Schema) -> None:
    net = ContinuousFlow((3,), schema)
    assert [layer.linear.out_features for layer in net.layers] == [512] * 5 + [3] and net.tolerance == 1e-5


def test_latents_of_any_shape_and_none_at_all(schema: Schema) -> None:
    torch.manual_seed(0)
    net = ContinuousFlow((2, 3), schema, (8,)).eval()
    z_0, a = torch.randn(4, 2, 3), torch.randn(4, net.conditions)
    assert (net.to_latent(net.to_noise(z_0, a), a) - z_0).abs().max() < 1e-4
    assert net.to_noise(z_0[:0], a[:0]).shape == (0, 2, 3) and net.log_prob(z_0[:0], a[:0]).shape == (0,)


# --- errors ---


def test_what_is_out_of_range_is_refused(schema: Schema) -> None:
    with pytest.raises(ValueError, match=r"`hidden` must be widths of at least 1, got \[8, 0\]; leave a layer out"):
        ContinuousFlow((3,), schema, (8, 0))
    with pytest.raises(ValueError, match=r"`tolerance` must be positive, got 0.0; 1e-5 is usual"):
        ContinuousFlow((3,), schema, (8,), 0.0)
    net = flow(schema)
    z_0, a = batch(net)
    with pytest.raises(ValueError, match="`probes` must be at least 0, got -1; 0 is the exact divergence"):
        net.log_prob(z_0, a, probes=-1)
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0; None is the adaptive solver"):
        net.log_prob(z_0, a, steps=0)
    with pytest.raises(ValueError, match=r"the flow was trained on latents of shape \(3,\), got \(2,\); use the flow"):
        net.to_noise(z_0[:, :2], a)
    with pytest.raises(
        ValueError, match=r"`attributes` must be \(5, 6\), a vector per latent, got \(5, 4\); make them"
    ):
        net.to_latent(z_0, a[:, :4])
    with pytest.raises(ValueError, match="unknown attribute 'hut'; did you mean 'hat'"):
        net.columns("hut")


def test_a_tolerance_that_cannot_be_kept_is_refused(schema: Schema) -> None:
    net = flow(schema, tolerance=1e-30, scale=20.0).float()
    z_0, a = (part.float() for part in batch(net))
    with pytest.raises(RuntimeError, match=r"cannot keep a tolerance of 1e-30 .*; allow more, or ask in float64"):
        net.to_noise(z_0, a)


def test_a_schema_may_hold_one_attribute() -> None:
    assert ContinuousFlow((3,), Schema((Attribute("hat"),)), (4,)).conditions == 1

import pytest
import torch

from lcg.nets.blocks import SkipPerceptron, TimeFeatures


def net(depth: int = 3, **kwargs: float) -> SkipPerceptron:
    torch.manual_seed(0)
    net = SkipPerceptron(4, 2, width=8, depth=depth, time_features=6, **kwargs).double().eval()
    for block in net.blocks:
        torch.nn.init.normal_(block.modulation.weight)
    return net


def inputs(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(n, 4, dtype=torch.float64, generator=generator),
        torch.rand(n, dtype=torch.float64, generator=generator),
    )


def test_time_features_tell_times_apart_at_both_ends() -> None:
    torch.manual_seed(0)
    time = TimeFeatures(64)
    t = torch.tensor([0.0, 1e-3, 0.5, 0.999, 1.0])
    features = time(t)
    assert features.shape == (5, 64) and time.frequency.min() == 1 and time.frequency.max() == pytest.approx(200)
    assert torch.pdist(features).min() > 1e-3


def test_the_equation() -> None:
    """h_0 = W_in [z; tau], h_{l+1} = h_l + B silu(A (norm(h_l) (1 + scale(t)) + shift(t))), output W_out norm(h_L)."""
    perceptron, (z, t) = net(depth=2), inputs()
    features = perceptron.time(t)
    h = perceptron.input(torch.cat((z, features), dim=1))
    for block in perceptron.blocks:
        scale, shift = block.modulation(features).chunk(2, dim=-1)
        normed = (h - h.mean(1, keepdim=True)) / (h.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        h = h + block.down(torch.nn.functional.silu(block.up(normed * (1 + scale) + shift)))
    expected = perceptron.output(perceptron.norm(h))
    torch.testing.assert_close(perceptron(z, t), expected, rtol=1e-12, atol=1e-13)


def test_rows_are_independent() -> None:
    perceptron, (z, t) = net(), inputs()
    whole = perceptron(z, t)
    for i in range(len(z)):
        torch.testing.assert_close(perceptron(z[i : i + 1], t[i : i + 1]), whole[i : i + 1], rtol=1e-12, atol=1e-13)


def test_a_time_shared_by_all_rows_gives_what_equal_times_give() -> None:
    perceptron, (z, _) = net(), inputs()
    shared = torch.tensor(0.3, dtype=torch.float64).expand(len(z))
    torch.testing.assert_close(perceptron(z, shared), perceptron(z, shared.contiguous()), rtol=1e-12, atol=1e-13)
    assert perceptron(z[:0], shared[:0]).shape == (0, 2)


def test_time_is_read_in_the_precision_of_the_net() -> None:
    perceptron, (z, t) = net().float(), inputs()
    assert perceptron(z.float(), t).dtype == torch.float32


def test_dropout_acts_in_training_only() -> None:
    perceptron, (z, t) = net(dropout=0.5), inputs()
    assert torch.equal(perceptron(z, t), perceptron(z, t))
    perceptron.train()
    assert not torch.equal(perceptron(z, t), perceptron(z, t))


@pytest.mark.parametrize("name", ["width", "depth"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        SkipPerceptron(4, 2, **{"width": 8, "depth": 2, name: 0})

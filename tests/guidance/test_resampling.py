import math

import pytest
import torch
from torch.testing import assert_close

from lcg.guidance.resampling import Weights, distinct, effective_share, pooled, stratified, take


def log_weights(systems: int, particles: int) -> torch.Tensor:
    return 2 * torch.randn(systems, particles, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def draws(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_effective_share_is_the_definition_and_has_its_extremes() -> None:
    w = log_weights(5, 8).exp()
    assert_close(effective_share(w.log()), w.sum(1) ** 2 / (w**2).sum(1) / 8, rtol=1e-12, atol=0)
    equal, one = torch.full((1, 8), -700.0).double(), torch.tensor([[0.0] + [-900.0] * 7]).double()
    assert effective_share(equal).item() == pytest.approx(1, abs=1e-12)
    assert effective_share(one).item() == pytest.approx(1 / 8, abs=1e-12)


def test_particles_are_drawn_in_proportion_to_their_weights() -> None:
    """Particle n is drawn M W^n / sum W times on average, and never further from that than strata allow."""
    log_w = log_weights(1, 6)
    chosen = stratified(log_w.expand(20_000, 6), draws(20_000, 10))
    counts = torch.stack([(chosen == n).sum(1) for n in range(6)], dim=1).double()
    expected = 10 * log_w.softmax(1)
    assert_close(counts.mean(0, keepdim=True), expected, rtol=0, atol=0.02)
    assert (counts - expected).abs().max() < 2
    independent = expected * (1 - expected / 10)
    assert (counts.var(0) < independent[0] + 0.02).all()


def test_equal_weights_keep_every_particle() -> None:
    assert torch.equal(stratified(torch.zeros(3, 8).double(), draws(3, 8)), torch.arange(8).expand(3, 8))


def test_all_weight_on_one_particle_draws_it_alone_and_extreme_numbers_are_safe() -> None:
    log_w = torch.full((2, 4), -math.inf, dtype=torch.float64)
    log_w[0, 2] = log_w[1, 3] = -1e4
    extreme = torch.tensor([[-40.0, 40.0, 9.0], [40.0, -40.0, 9.0]], dtype=torch.float64)  # Phi is 0 or 1 exactly
    assert stratified(log_w, extreme).tolist() == [[2, 2, 2], [3, 3, 3]]
    assert stratified(torch.zeros(1, 4).double(), torch.full((1, 1), 40.0).double()).item() == 3


def test_resampling_keeps_the_mean_weight_and_every_expectation() -> None:
    """Averaged over draws, resampled particles estimate what the weighted ones did: sum W f / N, for any f."""
    log_w, f = log_weights(1, 8).expand(40_000, 8), draws(1, 8, seed=2)
    weights = Weights(40_000, 8, torch.device("cpu"))
    weights.multiply(log_w)
    before = weights.log_normaliser()
    parents = weights.resample(draws(40_000, 8), below=1.0)
    assert parents is not None
    assert_close(weights.log_normaliser(), before, rtol=0, atol=1e-12)
    assert torch.equal(weights.log_w, torch.zeros_like(weights.log_w))
    after = weights.log_normaliser().exp() * take(f.expand(40_000, 8), parents).mean(1)
    assert_close(after.mean(), (log_w[0].exp() * f[0]).mean(), rtol=0, atol=5 * after.std().item() / 200)


def test_only_poor_systems_are_resampled() -> None:
    weights = Weights(3, 4, torch.device("cpu"))
    weights.multiply(torch.tensor([[0.0, 0, 0, 0], [9.0, 0, 0, 0], [1.0, 0, 0, 0]]).double())
    parents = weights.resample(draws(3, 4), below=0.5)
    assert parents is not None
    assert parents[[0, 2]].tolist() == [[0, 1, 2, 3]] * 2
    assert set(parents[1].tolist()) == {0}
    assert weights.log_w[:, 0].tolist() == [0, 0, 1]
    assert weights.log_z[[0, 2]].tolist() == [0, 0]
    assert weights.ess.tolist() == pytest.approx([1, 0.25, 0.787], abs=1e-3)
    assert distinct(weights.origin).tolist() == [4, 1, 4]
    assert Weights(3, 4, torch.device("cpu")).resample(draws(3, 4), below=0.5) is None


def test_ancestors_are_followed_through_generations() -> None:
    weights = Weights(1, 4, torch.device("cpu"))
    for favoured in ([3.0, 3.0, 3.0, -99.0], [-99.0, 3.0, 3.0, 3.0]):
        weights.multiply(torch.tensor([favoured]).double())
        weights.resample(torch.zeros(1, 4).double(), below=1.0)
    assert weights.origin.tolist() == [[1, 1, 1, 2]]  # parents 0, 1, 1, 2 and then 1, 2, 2, 3
    assert distinct(weights.origin).item() == 2


def test_distinct_numbers_are_counted() -> None:
    assert distinct(torch.tensor([[1, 1, 1], [2, 1, 2], [3, 1, 2]])).tolist() == [1, 2, 3]


def test_pooled_estimate_is_the_mean_and_its_error_the_delta_method() -> None:
    log_z = -800 + 0.1 * draws(50)
    z = (log_z + 800).exp()
    log_p, stderr = pooled(log_z)
    assert log_p == pytest.approx(-800 + z.mean().log().item(), abs=1e-12)
    assert stderr == pytest.approx((z.std() / z.mean()).item() / math.sqrt(50), rel=1e-12)
    log_p, stderr = pooled(log_z[:1])
    assert log_p == pytest.approx(log_z[0].item(), abs=1e-12)
    assert math.isnan(stderr)

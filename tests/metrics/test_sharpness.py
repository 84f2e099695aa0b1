"""Ghosts are what is further from every real latent than held-out real ones are."""

import pytest
import torch
from torch import Tensor

from lcg.metrics import NearestReal, sharpness


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_distances_are_those_of_every_pair() -> None:
    real, z = normal(300, 6), normal(70, 6, seed=1)
    expected = (z.double()[:, None] - real.double()[None]).square().sum(-1).min(1).values.sqrt()
    torch.testing.assert_close(NearestReal(real, 1.0).distance(z), expected, rtol=1e-14, atol=0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    nearest, z = NearestReal(normal(50, 3), 1.0), normal(33, 3, seed=1)
    whole = nearest.distance(z)
    for pairs in (1, 200, 50 * 32):
        monkeypatch.setattr(sharpness, "PAIRS", pairs)
        assert torch.equal(nearest.distance(z), whole)


def test_a_real_latent_is_at_zero_also_far_from_the_origin() -> None:
    real = 1e4 + normal(100, 5)
    assert NearestReal(real, 1.0).distance(real).max() == 0


def test_latents_may_have_any_shape() -> None:
    real, z = normal(20, 3, 4), normal(5, 3, 4, seed=1)
    flat = NearestReal(real.flatten(1), 1.0).distance(z.flatten(1))
    assert torch.equal(NearestReal(real, 1.0).distance(z), flat)
    assert NearestReal(real, 1.0).distance(z[:0]).shape == (0,)


@pytest.mark.parametrize(("quantile", "rank"), [(0.99, 99), (1.0, 100), (0.985, 99), (0.5, 50), (0.001, 1)])
def test_the_threshold_is_the_smallest_that_the_share_meets(quantile: float, rank: int) -> None:
    real = torch.zeros(1, 2)
    held_out = torch.stack((torch.arange(1.0, 101.0), torch.zeros(100)), dim=1)[torch.randperm(100)]
    nearest = NearestReal.calibrate(real, held_out, quantile)
    assert nearest.threshold == rank
    assert int(nearest.near(held_out).sum()) == rank


def test_new_real_latents_meet_the_threshold_and_ghosts_do_not() -> None:
    """Two tight clusters: real latents lie in them, a double exposure of two of them lies between."""
    centre = torch.tensor([4.0, 0.0, 0.0])

    def draw(n: int, seed: int) -> Tensor:
        return 0.3 * normal(n, 3, seed=seed) + torch.where(torch.arange(n)[:, None] % 2 == 0, centre, -centre)

    nearest = NearestReal.calibrate(draw(4000, 0), draw(2000, 1))
    assert nearest.near(draw(4000, 2)).float().mean() == pytest.approx(0.99, abs=0.01)
    a, b = draw(1000, 3), draw(1001, 4)[1:]
    assert not nearest.near((a + b) / 2).any()


def test_what_is_not_a_number_is_not_near() -> None:
    z = torch.tensor([[0.0, 0.0], [torch.nan, 0.0], [torch.inf, 0.0]])
    assert NearestReal(torch.zeros(2, 2), 1.0).near(z).tolist() == [True, False, False]


def test_the_threshold_itself_is_near() -> None:
    assert NearestReal(torch.zeros(1, 1), 0.5).near(torch.tensor([[0.5], [0.5000001]])).tolist() == [True, False]


def test_wrong_arguments_are_refused() -> None:
    real = normal(10, 3)
    with pytest.raises(ValueError, match=r"`quantile` must be in \(0, 1\], got 99"):
        NearestReal.calibrate(real, real, 99)
    with pytest.raises(ValueError, match=r"`threshold` must be positive.*got 0.0.*must not be among the reference"):
        NearestReal.calibrate(real, real[:5])
    with pytest.raises(ValueError, match="`threshold` must be positive and finite, got nan"):
        NearestReal(real, float("nan"))
    with pytest.raises(ValueError, match=r"`real_latents` must be at least one latent.*got shape \(0, 3\)"):
        NearestReal(real[:0], 1.0)
    with pytest.raises(ValueError, match=r"`held_out` must be at least one latent.*got shape \(3,\)"):
        NearestReal.calibrate(real, real[0])
    with pytest.raises(ValueError, match="`reference` must be finite"):
        NearestReal.calibrate(real * torch.nan, real)
    with pytest.raises(ValueError, match=r"`z` must be latents of shape \(3,\), as the real ones are, got \(4,\)"):
        NearestReal(real, 1.0).distance(normal(5, 4))

"""Precision, recall, density, coverage and diversity: small sets by hand, expectations in closed form, invariances."""

import math

import pytest
import torch
from torch import Tensor

from lcg.metrics import neighbours
from lcg.metrics.neighbours import density_coverage, diversity, expected_coverage, precision_recall


def draw(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_a_line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def by_definition(real: Tensor, generated: Tensor, k: int) -> tuple[float, float, float, float]:
    """The module's equations with all distances at once, by differences."""

    def inside(y: Tensor, x: Tensor) -> Tensor:
        to_others = (x[:, None] - x[None]).norm(dim=2).sort(dim=1).values
        return (y[:, None] - x[None]).norm(dim=2) <= to_others[:, k]

    balls, reached = inside(generated, real).double(), inside(real, generated).double()
    return (
        balls.amax(1).mean().item(),
        reached.amax(1).mean().item(),
        balls.sum().item() / (k * len(generated)),
        balls.amax(0).mean().item(),
    )


def all_four(real: Tensor, generated: Tensor, k: int) -> tuple[float, float, float, float]:
    first, second = precision_recall(real, generated, k), density_coverage(real, generated, k)
    return first.precision, first.recall, second.density, second.coverage


# --- by hand ---


def test_four_points_on_a_line() -> None:
    """Real 0, 1, 3, 10 have radii 1, 1, 2, 7; generated 0.5, 3.5 and 20 have 3, 3, 16.5."""
    real, generated = on_a_line(0, 1, 3, 10), on_a_line(0.5, 3.5, 20)
    both = precision_recall(real, generated, k=1)
    assert both.precision == pytest.approx(2 / 3)
    assert both.recall == 1.0  # 10 is in the large ball of 20
    found = density_coverage(real, generated, k=1)
    assert found.density == pytest.approx((2 + 2) / 3)  # 0.5 in those of 0 and 1; 3.5 in those of 3 and 10
    assert found.coverage == 1.0


def test_balls_are_closed() -> None:
    real = on_a_line(0, 1)
    assert density_coverage(real, on_a_line(-1), k=1).coverage == 0.5
    assert density_coverage(real, on_a_line(-1.001), k=1).coverage == 0.0


@pytest.mark.parametrize("k", [1, 3, 7])
def test_equals_the_definition(k: int) -> None:
    real, generated = draw(60, 4, 0), 0.8 * draw(45, 4, 1) + 0.3
    assert all_four(real, generated, k) == pytest.approx(by_definition(real, generated, k), abs=1e-15)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = draw(60, 4, 0), draw(45, 4, 1)
    at_once, spread = all_four(real, generated, 3), diversity(real)
    monkeypatch.setattr(neighbours, "PAIRS", 128)
    assert all_four(real, generated, 3) == at_once
    assert diversity(real) == pytest.approx(spread, rel=1e-14)


# --- expectations ---


def test_density_and_coverage_of_a_perfect_generator() -> None:
    """E[density] = 1 and E[coverage] is known for any distribution; averages of 400 draws are within 4 errors."""
    n, m, k = 20, 30, 3
    found = [density_coverage(draw(n, 3, s) ** 3, draw(m, 3, 10_000 + s) ** 3, k) for s in range(400)]
    for values, expected in (
        ([f.density for f in found], 1.0),
        ([f.coverage for f in found], expected_coverage(n, m, k)),
    ):
        x = torch.tensor(values)
        assert abs(x.mean().item() - expected) < 4 * x.std().item() / math.sqrt(len(x))


def test_expected_coverage_in_closed_form() -> None:
    assert expected_coverage(2, 1, k=1) == pytest.approx(1 / 2)  # which of two others is nearer
    assert expected_coverage(10**7, 10**7, k=5) == pytest.approx(1 - 2**-5, abs=1e-6)
    assert expected_coverage(100, 10**9, k=1) == pytest.approx(1, abs=1e-6)


# --- limits and invariances ---


def test_copies_are_perfect_also_where_points_repeat() -> None:
    real = draw(50, 3, 0) + 1000
    assert all_four(real, real.flip(0), 4) == (1.0, 1.0, 1.25, 1.0)  # itself and its k neighbours' balls, over k
    repeated = real.repeat(6, 1)  # radius 0
    assert all_four(repeated, real, 4)[:2] == (1.0, 1.0)
    assert density_coverage(repeated, real, 4).coverage == 1.0


def test_far_away_nothing_is_met() -> None:
    assert all_four(draw(50, 3, 0), draw(50, 3, 1) + 1e4, 3) == (0.0, 0.0, 0.0, 0.0)


def test_one_mode_of_two_is_precise_but_not_complete() -> None:
    real = torch.cat((draw(100, 2, 0), draw(100, 2, 1) + 100))
    found = all_four(real, draw(200, 2, 2), 5)
    assert found[0] > 0.9 and 0.4 < found[1] <= 0.5 and found[3] <= 0.5
    assert 0.8 < found[2] < 1.3  # twice as many samples per real point, of which half as many count


def test_an_outlier_deceives_precision_not_density() -> None:
    real = torch.cat((draw(99, 2, 0), torch.full((1, 2), 1000.0, dtype=torch.float64)))
    generated = draw(100, 2, 1) + 500  # nowhere near a real one, but in the outlier's ball
    found = all_four(real, generated, 3)
    assert found[0] > 0.5 and found[2] < 0.4 and found[3] == 0.01


def test_the_sets_change_places_with_precision_and_recall() -> None:
    real, generated = draw(60, 4, 0), 0.5 * draw(45, 4, 1)
    one, other = precision_recall(real, generated), precision_recall(generated, real)
    assert (one.precision, one.recall) == (other.recall, other.precision)


def test_rotation_shift_scale_and_shape_do_not_matter() -> None:
    real, generated = draw(80, 4, 0), 0.7 * draw(80, 4, 1)
    q = torch.linalg.qr(draw(4, 4, 2)).Q
    moved = all_four(*(3 * x @ q + 50 for x in (real, generated)), 3)
    assert moved == all_four(real, generated, 3)
    assert all_four(real.view(80, 2, 2), generated.view(80, 2, 2), 3) == moved


def test_single_precision_is_no_less() -> None:
    real, generated = (draw(80, 4, s).float() for s in (0, 1))
    assert all_four(real, generated, 3) == all_four(real.double(), generated.double(), 3)


# --- diversity ---


def test_diversity_by_hand() -> None:
    assert diversity(on_a_line(0, 1, 3)) == pytest.approx((1 + 3 + 2) / 3)
    assert diversity(torch.full((7, 3), 1e6)) == 0.0


def test_diversity_equals_the_mean_of_all_pairs() -> None:
    x = draw(300, 8, 0)
    assert diversity(x) == pytest.approx(torch.pdist(x).mean().item(), rel=1e-12)
    assert diversity(5 * x + 1000) == pytest.approx(5 * diversity(x), rel=1e-9)


def test_diversity_is_unbiased() -> None:
    """Of N(0, I_d) it is 2 Gamma((d + 1) / 2) / Gamma(d / 2), also on average over sets of only three."""
    d = 4
    x = torch.tensor([diversity(draw(3, d, s)) for s in range(800)])
    exact = 2 * math.gamma((d + 1) / 2) / math.gamma(d / 2)
    assert abs(x.mean().item() - exact) < 4 * x.std().item() / math.sqrt(len(x))


# --- what is refused ---


@pytest.mark.parametrize("measure", [precision_recall, density_coverage])
def test_features_that_do_not_fit_are_refused(measure) -> None:
    x = draw(10, 3, 0)
    with pytest.raises(ValueError, match=r"`real` must be at least one feature, \(N, \*feature\), got shape \(0, 3\)"):
        measure(x[:0], x)
    with pytest.raises(ValueError, match=r"`generated` must be at least one feature, .* got shape \(10,\)"):
        measure(x, x[:, 0])
    with pytest.raises(ValueError, match=r"`generated` must be finite, got NaN or infinity; leave out"):
        measure(x, x.log())
    with pytest.raises(ValueError, match=r"`generated` must be features of shape \(3,\), .* got \(2,\); take both"):
        measure(x, x[:, :2])
    with pytest.raises(ValueError, match=r"`generated` must be on meta, .* got cpu; move it"):
        measure(x.to("meta"), x)
    for k in (0, 10):
        with pytest.raises(ValueError, match=rf"`k` must be in \[1, 10\), below the number of real features, got {k}"):
            measure(x, x, k)


def test_recall_needs_neighbours_too() -> None:
    with pytest.raises(ValueError, match=r"`k` must be in \[1, 2\), below the number of generated features, got 3"):
        precision_recall(draw(10, 3, 0), draw(2, 3, 1))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`m` must be >= 1 generated features, got 0"):
        expected_coverage(10, 0)
    with pytest.raises(ValueError, match=r"`k` must be in \[1, 5\), below the number of real features, got 5"):
        expected_coverage(5, 5)


def test_diversity_of_one_or_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`features` must be at least two, \(M, \*feature\), got shape \(1, 3\)"):
        diversity(draw(1, 3, 0))
    with pytest.raises(ValueError, match=r"`features` must be finite, got NaN or infinity"):
        diversity(torch.full((3, 2), math.inf))

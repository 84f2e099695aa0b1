"""Frechet distance in one pass, against closed forms and against the distance of all features at once."""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from lcg.metrics import frechet_between, moments
from lcg.metrics.streaming import StreamingFrechet, merge_parts, part_of


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact_sample(n: int, deviations: Tensor, mean: Tensor, reflector: Tensor, seed: int) -> Tensor:
    """Gaussian draws, made to have the given mean and axes exactly; the axes are columns of a Householder matrix."""
    drawn = normal(n, len(deviations), seed=seed)
    white = torch.linalg.qr(drawn - drawn.mean(0)).Q * math.sqrt(n - 1)
    u = reflector / reflector.norm()
    scaled = white * deviations
    return scaled - 2 * torch.outer(scaled @ u, u) + mean


def streamed(generated: Tensor, real: Tensor, size: int = 100) -> StreamingFrechet:
    metric = StreamingFrechet(generated.shape[1])
    for features, is_real in ((generated, False), (real, True)):
        for batch in features.split(size):
            metric.update(batch, real=is_real)
    return metric


# --- the distance ---


@pytest.mark.parametrize("size", [64, 512, pytest.param(2048, marks=pytest.mark.slow)])
def test_two_gaussians_of_common_axes(size: int) -> None:
    """|m_1 - m_2|^2 + sum (s_1 - s_2)^2."""
    s_1, s_2 = 0.1 + normal(size, seed=1).abs(), 0.1 + normal(size, seed=2).abs()
    m_1, m_2, axes = normal(size, seed=3), normal(size, seed=4), normal(size, seed=5)
    first, second = (exact_sample(size + 100, s, m, axes, seed) for s, m, seed in ((s_1, m_1, 6), (s_2, m_2, 7)))
    expected = float((m_1 - m_2).square().sum() + (s_1 - s_2).square().sum())
    assert float(streamed(first, second).compute()) == pytest.approx(expected, rel=1e-6)
    assert float(streamed(first.float(), second.float()).compute()) == pytest.approx(expected, rel=1e-3)


def test_draws_of_two_gaussians_as_they_come() -> None:
    size, n = 64, 200_000
    shift = torch.full((size,), 2.0, dtype=torch.float64)
    metric = streamed(2 * normal(n, size, seed=1) + shift, normal(n, size, seed=2), size=20_000)
    assert float(metric.compute()) == pytest.approx(4 * size + size, rel=1e-3)


def test_it_is_the_distance_of_all_at_once_whatever_the_batches() -> None:
    generated, real = normal(301, 5, seed=1) + 1, 2 * normal(203, 5, seed=2)
    expected = frechet_between(generated, real)
    for size in (1, 7, 64, 1000):
        assert float(streamed(generated, real, size).compute()) == pytest.approx(expected, rel=1e-10)


def test_means_that_are_large_beside_deviations_cost_no_digits() -> None:
    """Sums of squares would: 10^16 beside a variance of 1 leaves none in float64."""
    generated, real = normal(500, 3, seed=1), 2 * normal(500, 3, seed=2)
    far = streamed(generated + 1e8, real + 1e8, size=10)
    assert float(far.compute()) == pytest.approx(frechet_between(generated, real), rel=1e-6)


def test_single_precision_is_accumulated_in_double() -> None:
    generated, real = (normal(400, 4, seed=1) + 100).float(), (normal(400, 4, seed=2) + 100).float()
    value = streamed(generated, real).compute()
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(frechet_between(generated, real), rel=1e-9)


# --- state ---


def test_state_does_not_grow() -> None:
    metric, sizes = StreamingFrechet(4), set()
    for seed in range(20):
        metric.update(normal(50, 4, seed=seed), real=bool(seed % 2))
        sizes.add(sum(state.numel() for state in metric.metric_state.values()))
    assert sizes == {2 * 5 * 5}


def test_state_is_count_mean_and_scatter() -> None:
    real = normal(90, 4) + 3
    mean, covariance = moments(real)
    state = streamed(real, real, size=13).real
    torch.testing.assert_close(state[0, 1:], mean)
    torch.testing.assert_close(state[1:, 1:] / 89, covariance)
    assert float(state[0, 0]) == 90


def test_a_part_is_count_mean_and_scatter() -> None:
    features = torch.tensor([[0.0, 2.0], [2.0, 6.0]])
    expected = torch.tensor([[2.0, 1.0, 4.0], [1.0, 2.0, 4.0], [4.0, 4.0, 8.0]], dtype=torch.float64)
    torch.testing.assert_close(part_of(features), expected)
    assert not part_of(features[:0]).any()


def test_empty_batches_and_reset() -> None:
    generated, real = normal(30, 2, seed=1), normal(30, 2, seed=2)
    metric = streamed(generated, real)
    before = float(metric.compute())
    metric.update(torch.zeros(0, 2), real=True)
    assert float(metric.compute()) == before
    metric.reset()
    assert not metric.real.any() and not metric.generated.any()
    metric.update(generated, real=True)
    metric.update(generated, real=False)
    assert float(metric.compute()) == pytest.approx(0, abs=1e-12)


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    """`forward` of torchmetrics computes on the batch alone, which has one side only, so it says what is missing."""
    metric = StreamingFrechet(2)
    with pytest.raises(ValueError, match="`generated` features must be more rows"):
        metric(normal(30, 2), real=True)


# --- parts (two processes: test_ranks.py) ---


def test_metrics_of_uneven_parts_merge_to_the_whole() -> None:
    generated, real = normal(301, 6, seed=1) + 1, 2 * normal(203, 6, seed=2)
    whole = float(streamed(generated, real).compute())
    first, second = streamed(generated[:37], real[:200]), streamed(generated[37:], real[200:])
    first.merge_state(second)
    assert float(first.compute()) == pytest.approx(whole, rel=1e-10)


def test_parts_merge_in_any_order_and_empty_ones_do_not_count() -> None:
    parts = [streamed(normal(n, 3, seed=n) + n, normal(n, 3)).generated for n in (2, 50, 7)]
    empty = StreamingFrechet(3).real
    expected = merge_parts(torch.stack(parts))
    for order in ([empty, *parts], [parts[2], parts[0], empty, parts[1]], [*parts, empty, empty]):
        torch.testing.assert_close(merge_parts(torch.stack(order)), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(merge_parts(torch.stack((empty, empty))), empty)


# --- memory ---

GROWTH = """
import resource
import torch
from lcg.metrics.streaming import StreamingFrechet
torch.linalg.eigh(torch.eye(2))  # loads the library
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
metric, generator = StreamingFrechet(2048), torch.Generator().manual_seed(0)
for side in (True, False):
    for _ in range(50):
        metric.update(torch.randn(1000, 2048, generator=generator), real=side)
value = float(metric.compute())
print(value, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_peak_memory_of_inceptions_features_is_bounded() -> None:
    """50,000 rows a side would take 820 MB each in float64. ru_maxrss is in KiB on Linux."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, env=environment)
    value, megabytes = map(float, done.stdout.split())
    assert value == pytest.approx(2048**2 / 2 / 50_000, rel=0.01)  # F^2 / 2N is what chance alone gives two samples
    assert megabytes < 500


# --- refusals ---


def test_no_features_are_refused() -> None:
    with pytest.raises(ValueError, match="`features` must be >= 1, got 0"):
        StreamingFrechet(0)


def test_a_side_that_is_not_said_is_refused() -> None:
    with pytest.raises(TypeError, match="`real` must be True or False, got 'fake'; one call takes one side"):
        StreamingFrechet(2).update(normal(5, 2), real="fake")  # type: ignore[arg-type]


def test_images_are_refused() -> None:
    with pytest.raises(TypeError, match=r"`features` must be floating point, got torch.uint8; pass features"):
        StreamingFrechet(2).update(torch.zeros(5, 2, dtype=torch.uint8), real=True)


@pytest.mark.parametrize("shape", [(5, 3), (5,), (5, 2, 1)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`features` must be \(N, 2\), got shape .*; flatten them"):
        StreamingFrechet(2).update(torch.zeros(shape), real=True)


def test_features_that_are_not_numbers_are_refused_and_leave_no_trace() -> None:
    metric, features = StreamingFrechet(2), normal(5, 2)
    features[1, 0], features[4] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="`features` must be finite, got 2 of 5 rows"):
        metric.update(features, real=True)
    assert not metric.real.any()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`real` features must be more rows than dimensions.*got N=3, F=3; take more"):
        streamed(normal(10, 3), normal(3, 3)).compute()

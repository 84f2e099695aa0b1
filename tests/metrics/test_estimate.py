"""Shares and means with their errors, against their textbook definitions."""

import pytest
import torch

from lcg.metrics import proportion
from lcg.metrics.estimate import estimate_mean, estimate_share, require_rows
from lcg.metrics.streaming import part_of


def test_a_share_is_a_proportion() -> None:
    hits = torch.tensor([True, False, True, True])
    share = estimate_share(hits.sum(), torch.tensor(4))
    assert (float(share.value), float(share.stderr)) == pytest.approx(proportion(hits), abs=1e-15)
    assert int(share.n) == 4
    assert share.value.dtype == share.stderr.dtype == torch.float64


def test_a_share_of_nothing_is_not_a_number() -> None:
    share = estimate_share(torch.tensor(0), torch.tensor(0))
    assert share.value.isnan() and share.stderr.isnan() and share.n == 0


def test_a_mean_has_the_unbiased_deviation_over_the_root_of_n() -> None:
    values = torch.tensor([0.25, 0.5, 1.0, 0.0, 0.75], dtype=torch.float64)
    mean = estimate_mean(part_of(values[:, None]))
    assert float(mean.value) == pytest.approx(0.5)
    assert float(mean.stderr) == pytest.approx(float(values.std()) / 5**0.5)
    assert int(mean.n) == 5 and mean.n.dtype == torch.int64


def test_values_that_hardly_differ_keep_their_digits() -> None:
    values = 1 + 1e-12 * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    assert float(estimate_mean(part_of(values)).stderr) == pytest.approx(1e-12 / 3**0.5, rel=1e-3)


def test_means_of_nothing_and_of_one_value() -> None:
    none, one = (estimate_mean(part_of(torch.ones(n, 1))) for n in (0, 1))
    assert none.value.isnan() and none.stderr.isnan() and none.n == 0
    assert one.value == 1 and one.stderr.isnan() and one.n == 1


def test_nothing_is_refused_by_name() -> None:
    require_rows(torch.tensor([0, 1]), "Accuracy")
    with pytest.raises(
        ValueError, match="Accuracy has taken in no rows to compute from; call `update` with some first"
    ):
        require_rows(torch.tensor([0, 0]), "Accuracy")

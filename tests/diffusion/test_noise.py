import pytest
import torch
from torch.testing import assert_close

from lcg.diffusion import generators, randn

EXACT = {"rtol": 0.0, "atol": 0.0}


def test_a_row_depends_on_its_own_generator_only() -> None:
    batch = randn((4, 3, 2), generators([7, 8, 9, 10]))
    alone = randn((1, 3, 2), generators([9]))
    swapped = randn((2, 3, 2), generators([10, 7]))
    assert_close(batch[2:3], alone, **EXACT)
    assert_close(batch[[3, 0]], swapped, **EXACT)


def test_generators_go_on_where_they_stopped() -> None:
    gens = generators([1, 2])
    assert not torch.equal(randn((2, 3), gens), randn((2, 3), gens))


def test_one_generator_serves_the_whole_batch() -> None:
    first, second = (randn((5, 2), torch.Generator().manual_seed(3), dtype=torch.float64) for _ in range(2))
    assert_close(first, second, **EXACT)
    assert first.dtype == torch.float64


def test_without_a_generator_the_global_state_is_used() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = randn((2, 2))
        torch.manual_seed(0)
        assert_close(first, torch.randn(2, 2), **EXACT)


def test_numbers_are_standard_normal() -> None:
    x = randn((400, 200), generators(range(400)), dtype=torch.float64)
    assert abs(x.mean().item()) < 0.02
    assert abs(x.std().item() - 1) < 0.02
    assert abs(torch.corrcoef(x[:2])[0, 1].item()) < 0.3  # neighbouring seeds are not related


def test_an_empty_batch_is_a_batch() -> None:
    assert randn((0, 3), []).shape == (0, 3)


def test_one_generator_per_row_is_required() -> None:
    with pytest.raises(ValueError, match=r"one generator per row: expected 3, got 2; make them with"):
        randn((3, 2), generators([0, 1]))

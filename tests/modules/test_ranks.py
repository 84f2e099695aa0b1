"""Ranks share their weights and nothing of their noise."""

from types import SimpleNamespace

import torch

from lcg.modules.ranks import draw_own_noise


def test_ranks_draw_different_noise_and_the_first_is_left_as_it_is() -> None:
    drawn = []
    for rank in range(3):
        torch.manual_seed(7)
        draw_own_noise(SimpleNamespace(global_rank=rank))
        drawn.append(torch.randn(4))
    torch.manual_seed(7)
    assert torch.equal(drawn[0], torch.randn(4))
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])

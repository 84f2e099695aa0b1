"""What ranks tell each other, in one process; `test_ddp` has two."""

import torch

from lcg.modules.ranks import mean_over_ranks, weight_of_known


def test_one_process_hears_itself() -> None:
    value = torch.tensor(2.0, requires_grad=True)
    mean = mean_over_ranks(value)
    assert mean == 2 and not mean.requires_grad


def test_all_known_labels_of_one_process_count_fully() -> None:
    labels = torch.tensor([[0.0, torch.nan, torch.nan], [1.0, 1.0, torch.nan]])
    assert weight_of_known(labels) == 1
    assert weight_of_known(labels, dim=0).tolist() == [1, 1, 0]
    assert weight_of_known(labels.fill_(torch.nan)) == 0
